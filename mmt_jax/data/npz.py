"""Npz files whose arrays are read one by one, or a few rows at a time."""

from __future__ import annotations

import contextlib
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO

import numpy as np

from mmt_jax.errors import UsageError

# What numpy raises where an npz is damaged.
_BROKEN = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)
_CHUNK = 1 << 24  # bytes


class Npz(contextlib.ExitStack):
    """An npz file, open within a `with` block; no Python object in it is made.

    Every method raises UsageError where the file is missing, damaged or lacks the array.

    Attributes:
      names: of the arrays.
    """

    def __init__(self, path: str | os.PathLike):
        """Opens it, its arrays still unread."""
        super().__init__()
        self.path = pathlib.Path(path)
        with contextlib.ExitStack() as opened:
            try:
                # numpy leaves a file that it opened itself open where the archive is damaged.
                stream = opened.enter_context(self.path.open("rb"))
                self._file = np.load(stream, allow_pickle=False)
            except FileNotFoundError:
                raise UsageError(f"there is no file {path}") from None
            except _BROKEN as error:
                raise UsageError(
                    f"{path} cannot be read as an npz file ({error}); it is damaged or of another "
                    f"format: write it again with numpy.savez"
                ) from None
            if not isinstance(self._file, np.lib.npyio.NpzFile):
                raise UsageError(f"{path} is a single array; write an npz with numpy.savez")
            self._zip = zipfile.ZipFile(stream)
            self.names = tuple(self._file.files)
            self.push(opened.pop_all())

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def read(self, name: str) -> np.ndarray:
        """One array."""
        with self._reading(name):
            return self._file[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """An array's shape, from its header alone."""
        with self._reading(name), self._zip.open(f"{name}.npy") as member:
            return _header(member)[0]

    def rows(self, name: str, count: int) -> Callable[[int], np.ndarray]:
        """A function that reads the next rows of an array, which must have `count` of them."""
        with self._reading(name):
            member = self.enter_context(self._zip.open(f"{name}.npy"))
            shape, fortran, dtype = _header(member)
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
            while len(flat):
                with self._reading(name):
                    part = np.frombuffer(member.read(min(_CHUNK, len(flat))), np.uint8)
                if not len(part):
                    raise UsageError(f"{self.path}: {name} ends too early; write the file again")
                flat[: len(part)] = part
                flat = flat[len(part) :]
            return values

        return read

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


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether it stands column by column, and dtype."""
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(member)
    return np.lib.format.read_array_header_2_0(member)
