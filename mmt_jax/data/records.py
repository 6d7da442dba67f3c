"""Packed records: a corpus in shards of array_record, read photo by photo wherever they stand.

Of a split, a folder holds

| file | holds |
|---|---|
| `SPLIT-00000-of-00007.array_record`, … | one record a photo: the arrays of its rows, one after the other |
| `SPLIT.jsonl` | one line a photo: `image_id` and `captions` |
| `SPLIT.index.npz` | `image_ids` [N], `offsets` [N + 1], `caption_counts` [N], `lines` [N + 1]: where a line begins |
| `SPLIT.json` | `columns`: key, dtype and shape of a row, in the order they have in a record; counts; size and SHA-256 of each file |

Keys and rows are those of `photo`; features are float16, or uint8 as they were. `SPLIT.json` is
written last: a split without it is none. Only the index is read whole. Records of the first format
have the names and rows of a region folder and are read too.
"""  # noqa: E501

from __future__ import annotations

import dataclasses
import functools
import json
import math
import mmap
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmt_jax.corpus import Corpus, Photos, starts
from mmt_jax.data import published
from mmt_jax.data.npz import Npz
from mmt_jax.data.source import Source, Spec
from mmt_jax.errors import UsageError
from mmt_jax.photo import BOXES, FEATURES, PIXELS

FORMAT, FIRST_FORMAT = "mmt_jax records 2", "mmt_jax records 1"
INDEX = ("image_ids", "offsets", "caption_counts", "lines")
_AGAIN = "pack it again with `mmt data pack`"


class Lines(Sequence[tuple[str, ...]]):
    """The captions of each photo, parsed when asked for."""

    def __init__(self, path: pathlib.Path, starts: np.ndarray, counts: np.ndarray):
        """Opens nothing yet: [N + 1] i64 byte offsets of the lines, and [N] captions in each."""
        self._path, self._starts, self.counts = path, starts, counts

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_bytes"}

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: Any) -> Any:
        """The captions of a photo; for a slice, a tuple of them in memory."""
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        index = range(len(self))[index]
        line = self._bytes[self._starts[index] : self._starts[index + 1]]
        try:
            return tuple(json.loads(line)["captions"])
        except (ValueError, KeyError, TypeError):
            raise UsageError(f"{self._path}:{index + 1}: no photo's line; {_AGAIN}") from None

    @functools.cached_property
    def _bytes(self) -> mmap.mmap:
        with open(self._path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packed(Photos):
    """A packed split, whose photos may be read from several processes."""

    columns: tuple[tuple[str, str, tuple[int, ...]], ...]  # of a record: key, dtype, shape of a row
    source: Any  # grain's ArrayRecordDataSource

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        shapes = {published.NAMES.get(name, name): shape for name, _, shape in self.columns}
        return shapes | {BOXES: (5,)}

    @property
    def caption_counts(self) -> np.ndarray:
        return self.captions.counts if isinstance(self.captions, Lines) else super().caption_counts

    def take(self, photos: np.ndarray) -> Corpus:
        """As `Photos` says.

        Raises:
          UsageError: a shard is damaged.
        """
        counts = np.diff(self.offsets)[photos]
        try:
            records = self.source.__getitems__([int(photo) for photo in photos])
            parts = [self._parse(*one) for one in zip(records, counts, strict=True)]
        except (RuntimeError, ValueError, IndexError) as error:
            raise UsageError(
                f"{self.name}: photos cannot be read ({error}); compare the shards with the "
                f"SHA-256 that the split's .json gives, or {_AGAIN}"
            ) from None
        rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        pixels = rows.pop(PIXELS, None)
        if FEATURES not in rows:  # of the first format
            rows = published.rows(rows, starts(counts))
        return Corpus(
            name=self.name,
            image_ids=self.image_ids[photos],
            offsets=starts(counts),
            captions=tuple(() for _ in photos),
            rows=rows,
            num_classes=self.num_classes,
            num_attributes=self.num_attributes,
            pixels=pixels,
        )

    def _parse(self, record: bytes, rows: int) -> dict[str, np.ndarray]:
        """The arrays of a photo, which share the record's memory."""
        arrays, start = {}, 0
        for name, dtype, shape in self.columns:
            count = 1 if name == PIXELS else int(rows)
            values = np.frombuffer(record, dtype, count * math.prod(shape), start)
            arrays[name] = values.reshape(count, *shape)
            start += values.nbytes
        if start != len(record):
            raise ValueError(f"a record of {len(record)} bytes, where {start} are expected")
        return arrays


def splits(folder: str | os.PathLike) -> tuple[str, ...]:
    """Names of the splits in a folder, sorted.

    Raises:
      UsageError: no such folder, or no split in it.
    """
    names = sorted(path.stem for path in pathlib.Path(folder).glob("*.json"))
    if not names:
        raise UsageError(
            f"{folder} holds no packed records; make them with `mmt data pack --out={folder}`"
        )
    return tuple(names)


def about(folder: str | os.PathLike, split: str) -> dict[str, Any]:
    """What `SPLIT.json` says, once the files it names are known to be there, whole by their size.

    Raises:
      UsageError: no such split, or a file of it is missing, cut or of another version.
    """
    folder = pathlib.Path(folder)
    if split not in (names := splits(folder)):
        raise UsageError(f"{folder} has no split {split!r}; it has {', '.join(names)}")
    path = folder / f"{split}.json"
    try:
        said = json.loads(path.read_bytes())
        sizes = {row["file"]: row["bytes"] for row in said["files"]}
        known = said["format"] in (FORMAT, FIRST_FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"{path} does not describe packed records; {_AGAIN}") from None
    if not known:
        raise UsageError(f"{path} is of the format {said['format']!r}, not {FORMAT!r}; {_AGAIN}")
    for name, size in sizes.items():
        part = folder / name
        if not part.is_file() or part.stat().st_size != size:
            raise UsageError(
                f"{part} is missing, or not of {size} bytes as {path.name} says; copy it again, or "
                f"{_AGAIN}"
            )
    return said


def read(folder: str | os.PathLike, split: str) -> Packed:
    """Opens a split.

    Raises:
      UsageError: as `about`, or the index is damaged.
    """
    import grain  # takes two seconds, which those who read no records are spared

    folder, said = pathlib.Path(folder), about(folder, split)
    with Npz(folder / f"{split}.index.npz") as file:
        index = {name: file.read(name) for name in INDEX}
    shards = [row["file"] for row in said["files"] if row["file"].endswith(".array_record")]
    shards.sort(key=lambda name: int(name.rsplit("-", 3)[1]))  # SPLIT-00000-of-00007.array_record
    return Packed(
        name=f"records:{folder}",
        image_ids=index["image_ids"],
        offsets=index["offsets"],
        captions=Lines(folder / f"{split}.jsonl", index["lines"], index["caption_counts"]),
        num_classes=said["num_classes"],
        num_attributes=said["num_attributes"],
        columns=tuple(
            (PIXELS if key == "pixels" else key, dtype, tuple(shape))  # of the first format
            for key, dtype, shape in said["columns"]
        ),
        source=grain.sources.ArrayRecordDataSource([str(folder / name) for name in shards]),
    )


class PackedRecords(Source):
    """`records:FOLDER`."""

    kind = "records"
    form = "records:FOLDER"

    def splits(self) -> tuple[str, ...]:
        return splits(self.name)

    def spec(self) -> Spec:
        names = splits(self.name)
        said = about(self.name, "train" if "train" in names else names[0])
        (width,) = (row[2][0] for row in said["columns"] if row[0] in (FEATURES, "features"))
        return Spec(width, said["num_classes"], said["num_attributes"], said["unlabelled"])

    def load(self, split: str, *, seed: int, size: int | None, pixels: bool, bare: bool) -> Packed:
        """Pixels come along where there are some."""
        del seed, size, pixels, bare
        return read(self.name, split)
