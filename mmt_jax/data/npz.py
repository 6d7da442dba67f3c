"""Npz files whose arrays are read one by one, or a few rows at a time."""

from __future__ import annotations

import contextlib
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np

from mmt_jax.errors import UsageError

# What numpy raises where an npz is damaged.
_BROKEN = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)
_CHUNK = 1 << 24  # bytes


class Npz(contextlib.ExitStack):
    """An npz file, open within a `with` block; no Python object in it is made.

    Every method raises UsageError where the file is missing, damaged or lacks the array, of which
    `names` has all.
    """

    def __init__(self, path: str | os.PathLike):
        """Opens it, its arrays still unread."""
        super().__init__()
        self.path = pathlib.Path(path)
        try:
            self._zip = self.enter_context(zipfile.ZipFile(path))
        except FileNotFoundError:
            raise UsageError(f"there is no file {path}") from None
        except _BROKEN as error:
            raise UsageError(
                f"{path} cannot be read as an npz file ({error}); it is damaged, a single array or "
                f"of another format: write it again with numpy.savez"
            ) from None
        self.names = tuple(name.removesuffix(".npy") for name in self._zip.namelist())

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def read(self, name: str) -> np.ndarray:
        """One array."""
        with self._reading(name), self._member(name) as member:
            return np.lib.format.read_array(member, allow_pickle=False)

    def shape(self, name: str) -> tuple[int, ...]:
        """An array's shape, from its header alone."""
        with self._reading(name), self._member(name) as member:
            return header(member)[0]

    def rows(self, name: str, count: int) -> Callable[[int], np.ndarray]:
        """A function that reads the next rows of an array, which must have `count` of them."""
        with self._reading(name):
            member = self.enter_context(self._member(name))
            shape, fortran, dtype = header(member)
        if shape[:1] != (count,):
            raise UsageError(f"{self.path}: {name} has shape {shape}, it must have {count} rows")
        if dtype.hasobject or (fortran and len(shape) > 1):
            # The one is refused by `read`, the other stands column by column.
            left = [self.read(name)]

            def cut(rows: int) -> np.ndarray:
                part, left[0] = left[0][:rows].copy(), left[0][rows:]
                return part

            return cut

        def read(rows: int) -> np.ndarray:
            values = np.empty((rows, *shape[1:]), dtype)
            flat = values.reshape(-1).view(np.uint8)
            for start in range(0, len(flat), _CHUNK):
                part = flat[start : start + _CHUNK]
                with self._reading(name):
                    if member.readinto(part) < len(part):
                        raise EOFError("it ends too early")
            return values

        return read

    def _member(self, name: str) -> Any:
        return self._zip.open(f"{name}.npy")

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        if name not in self.names:
            raise UsageError(
                f"{self.path}: the array {name} is missing; it has {', '.join(self.names)}"
            )
        try:
            yield
        except _BROKEN as error:
            raise UsageError(
                f"{self.path}: {name} cannot be read ({error}); write the file again"
            ) from None


def header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape of the array that a file in numpy's npy layout begins with, whether it stands column by
    column, and its dtype."""
    if np.lib.format.read_magic(member) == (1, 0):
        return np.lib.format.read_array_header_1_0(member)
    return np.lib.format.read_array_header_2_0(member)
