"""Photos in parquet files, as img2dataset writes them: a column of files' bytes, one of captions.

A row is read with the others of its group, of which img2dataset makes 100, and the last few groups
are kept.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import Any

from mmt_jax.errors import UsageError, optional, reading, trying

_PHOTOS = ("jpg", "jpeg", "png", "webp", "image")  # bytes, or as in `datasets` {bytes: …, path: …}
_CAPTIONS = ("caption", "txt", "text", "captions")
_GROUPS = 8  # kept a process


def library() -> Any:
    """What reads parquet files; a UsageError where it cannot be imported."""
    with optional("parquet files need pyarrow", "data"):
        from pyarrow import parquet
    return parquet


def rows(path: str | os.PathLike) -> Iterator[tuple[int, int, str, Any, bytes | None]]:
    """The group, the place in it, the name, the captions and the photo's bytes of each row.

    Captions are a text, a list of texts or None; bytes are None where the photo was not to be had.

    Raises:
      UsageError: the file is damaged, at the group where it is, or has no column of photos.
    """
    with _opened(path) as file:
        names, groups = file.schema_arrow.names, file.num_row_groups
    column = _photos(names, path)
    said = next((name for name in _CAPTIONS if name in names), None)
    wanted = [name for name in ("key", said) if name and name in names]
    for group in range(groups):
        *told, photos = _read(path, group, [*wanted, column])
        texts = told[-1] if said else [None] * len(photos)
        for row, photo in enumerate(photos):
            name = str(told[0][row]) if "key" in wanted else f"{group:04d}{row:05d}"
            yield group, row, name, texts[row], _bytes(photo)


def photo(path: str | os.PathLike, group: int, row: int) -> bytes:
    """The bytes of one photo's file, which `rows` has found."""
    with reading(path):
        changed = os.stat(path).st_mtime_ns
    photos = _group(path, group, changed)
    data = _bytes(photos[row]) if row < len(photos) else None
    if data is None:
        raise UsageError(f"{path} changed since it was listed; start again")
    return data


@functools.lru_cache(maxsize=_GROUPS)
def _group(path: str | os.PathLike, group: int, changed: int) -> list[Any]:
    del changed  # only there so that a file that changed is read again
    with _opened(path) as file:
        column = _photos(file.schema_arrow.names, path)
    return _read(path, group, [column])[0]


def _photos(names: list[str], path: str | os.PathLike) -> str:
    """The column of photos."""
    found = next((name for name in _PHOTOS if name in names), None)
    if found is None:
        raise UsageError(f"{path} has no column of photos, such as jpg; it has {', '.join(names)}")
    return found


def _opened(path: str | os.PathLike) -> Any:
    parquet = library()
    with trying(f"{path} is not whole"):
        return parquet.ParquetFile(path)


def _read(path: str | os.PathLike, group: int, columns: list[str]) -> list[list[Any]]:
    """Columns of a group."""
    with _opened(path) as file, trying(f"{path} is not whole"):
        table = file.read_row_group(group, columns=columns, use_threads=False)
        return [table.column(name).to_pylist() for name in columns]


def _bytes(value: Any) -> bytes | None:
    value = value.get("bytes") if isinstance(value, dict) else value
    return value if isinstance(value, bytes) and value else None
