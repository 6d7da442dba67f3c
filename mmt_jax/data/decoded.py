"""Photos as a model is shown them, kept on disk, so that they are decoded once."""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from mmt_jax import progress
from mmt_jax.errors import UsageError
from mmt_jax.files import whole_folder

_PIXELS, _STAMP = "pixels.npy", "stamp"


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

    Args:
      folder: of caches; each lies in a folder of its own, which is whole or not there.
      names: of the source, then of each photo.
      files: that hold the photos.
      how: they are prepared.
      side: in pixels.
      decode: number of a photo → [side, side, 3] uint8.

    Raises:
      UsageError: the files changed since they were cached.
      NoRoomError: it cannot be written.
    """
    place = pathlib.Path(folder) / _hash([how, *names])[:16]
    held = [(str(file), file.stat()) for file in dict.fromkeys(files)]
    stamp = _hash(f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in held)
    if not place.exists():
        with whole_folder(place) as part:
            part.mkdir()
            shape = (len(names) - 1, side, side, 3)
            pixels = np.lib.format.open_memmap(part / _PIXELS, "w+", np.uint8, shape)
            for index in progress.track(range(len(pixels)), "photos decoded"):
                pixels[index] = decode(index)
            pixels.flush()
            (part / _STAMP).write_text(stamp, encoding="utf-8")
    if (place / _STAMP).read_text(encoding="utf-8") != stamp:
        raise UsageError(f"{names[0]} changed since its photos were cached; remove {place}")
    return place / _PIXELS


@functools.lru_cache(maxsize=8)
def opened(path: pathlib.Path) -> np.ndarray:
    """What `kept` wrote, read where it lies; by each process for itself."""
    return np.load(path, mmap_mode="r")


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
