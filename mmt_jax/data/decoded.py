"""Photos as a model is shown them, kept on disk, so that they are decoded once."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from mmt_jax import progress
from mmt_jax.errors import UsageError, writing
from mmt_jax.files import lock, whole
from mmt_jax.photos import pictures

_PIXELS, _STAMP, _LOCK = "pixels.npy", "stamp", "lock"
_FORMAT = 1  # raised where photos of the same names and processor are prepared differently


def kept(
    folder: str | os.PathLike,
    names: Sequence[str],
    files: Iterable[pathlib.Path],
    *,
    how: str,
    side: int,
    decode: Callable[[int], np.ndarray],
) -> pathlib.Path:
    """The file of the photos' pixels [N, side, side, 3] uint8, written if it is not there.

    Where another process is writing it, that one is waited for.

    Args:
      folder: of caches; each lies in a folder of its own.
      names: of the source, then of each photo.
      files: that hold the photos.
      how: they are prepared.
      side: in pixels.
      decode: number of a photo → [side, side, 3] uint8.

    Raises:
      UsageError: the files changed since they were cached.
      NoRoomError: it cannot be written.
    """
    made = [str(_FORMAT), pictures.library().__version__, how]
    place = pathlib.Path(folder) / _hash([*made, *names])[:16]
    held = [(str(file), file.stat()) for file in dict.fromkeys(files)]
    stamp = _hash(f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in held)
    if not os.path.exists(place / _PIXELS):
        with _alone(place):
            if not (place / _PIXELS).exists():  # nor did the process write it that was waited for
                (place / _STAMP).write_text(stamp, encoding="utf-8")
                _write(place / _PIXELS, (len(names) - 1, side, side, 3), decode)
    if (place / _STAMP).read_text(encoding="utf-8") != stamp:
        raise UsageError(f"{names[0]} changed since its photos were cached; remove {place}")
    return place / _PIXELS


@functools.lru_cache(maxsize=8)
def opened(path: pathlib.Path) -> np.ndarray:
    """What `kept` wrote, read where it lies; by each process for itself."""
    return np.load(path, mmap_mode="r")


@contextlib.contextmanager
def _alone(place: pathlib.Path) -> Iterator[None]:
    """Makes a cache's folder and keeps it from others; what a killed run left there goes."""
    with writing(place, of=Exception):
        place.mkdir(parents=True, exist_ok=True)
    with writing(place), open(place / _LOCK, "wb") as file:
        if not lock(file):
            progress.say(f"another process is writing {place}; waiting for it")
            lock(file, wait=True)
        for left in place.glob(f".{_PIXELS}.*"):
            left.unlink()
        yield


def _write(path: pathlib.Path, shape: tuple[int, ...], decode: Callable[[int], np.ndarray]) -> None:
    """In sequence, for where a disk is full, a file that is mapped ends the process."""
    with whole(path) as part, open(part, "wb") as file:
        about = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, about)
        for index in progress.track(range(shape[0]), "photos decoded"):
            file.write(decode(index).tobytes())


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
