"""Packed records: a corpus in shards of array_record, read photo by photo wherever they stand.

Of a split, a folder holds

| file | holds |
|---|---|
| `SPLIT-00000-of-00007.array_record`, … | one record a photo: the arrays of its rows, one after the other |
| `SPLIT.jsonl` | one line a photo: `image_id` and `captions` |
| `SPLIT.index.npz` | `image_ids` [N], `offsets` [N + 1], `caption_counts` [N], `lines` [N + 1]: where a line begins |
| `SPLIT.json` | `columns`: name, dtype and shape of a row, in the order they have in a record; counts; size and SHA-256 of each file |

Features are float16, or uint8 as they were; row 0 of a photo is the whole photo, as in `formats`.
`SPLIT.json` is written last: a split without it is none. Only the index is read whole.
"""  # noqa: E501

from __future__ import annotations

import dataclasses
import functools
import json
import math
import mmap
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mmt_jax.corpus import Corpus, Outline, starts
from mmt_jax.data import schema
from mmt_jax.errors import UsageError

FORMAT = "mmt_jax records 1"
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


@dataclasses.dataclass(frozen=True)
class Packed:
    """A packed split; see `corpus.Photos`. Its photos may be read from several processes."""

    name: str
    image_ids: np.ndarray
    offsets: np.ndarray
    captions: Sequence[tuple[str, ...]]
    num_classes: int
    num_attributes: int
    columns: tuple[tuple[str, str, tuple[int, ...]], ...]  # name, dtype and shape of a row
    source: Any  # grain's ArrayRecordDataSource

    def __len__(self) -> int:
        return len(self.image_ids)

    def _shape(self, name: str) -> tuple[int, ...] | None:
        return next((shape for column, _, shape in self.columns if column == name), None)

    @property
    def feature_dim(self) -> int:
        """See `Photos`."""
        return (self._shape("features") or (0,))[0]

    @property
    def classes_kept(self) -> int:
        """See `Photos`."""
        return (self._shape("class_ids") or (0,))[0]

    @property
    def attributes_kept(self) -> int:
        """See `Photos`."""
        return (self._shape("attribute_ids") or (0,))[0]

    @property
    def pixel_shape(self) -> tuple[int, ...] | None:
        """See `Photos`."""
        return self._shape("pixels")

    @property
    def pixels(self) -> np.ndarray | None:
        """See `Photos`."""
        return self.take(np.arange(len(self))).pixels if self.pixel_shape else None

    @property
    def caption_counts(self) -> np.ndarray:
        """See `Photos`."""
        if isinstance(self.captions, Lines):
            return self.captions.counts
        return np.array([len(photo) for photo in self.captions], np.int64)

    def head(self, count: int) -> Packed:
        """See `Photos`; their captions come into memory."""
        return dataclasses.replace(
            self,
            image_ids=self.image_ids[:count],
            offsets=self.offsets[: count + 1],
            captions=self.captions[:count],
        )

    def bare(self) -> Packed:
        """See `Photos`."""
        return dataclasses.replace(self, captions=((),) * len(self))

    def take(self, photos: np.ndarray) -> Corpus:
        """See `Photos`.

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
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return Corpus(
            name=self.name,
            image_ids=self.image_ids[photos],
            offsets=starts(counts),
            captions=tuple(() for _ in photos),
            num_classes=self.num_classes,
            num_attributes=self.num_attributes,
            **arrays,
        )

    def _parse(self, record: bytes, rows: int) -> dict[str, np.ndarray]:
        """The arrays of a photo, which share the record's memory."""
        arrays, start = {}, 0
        for name, dtype, shape in self.columns:
            count = 1 if name == "pixels" else int(rows)
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
    folder = pathlib.Path(folder)
    names = sorted(path.stem for path in folder.glob("*.json"))
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
        known = said["format"] == FORMAT
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


def reference(folder: str | os.PathLike) -> dict[str, Any]:
    """`about` the split `train`, or where there is none the first."""
    names = splits(folder)
    return about(folder, "train" if "train" in names else names[0])


def read(folder: str | os.PathLike, split: str) -> Packed:
    """Opens a split.

    Raises:
      UsageError: as `about`, or the index is damaged.
    """
    import grain  # takes two seconds, which those who read no records are spared

    folder, said = pathlib.Path(folder), about(folder, split)
    path = folder / f"{split}.index.npz"
    with schema.open_npz(path) as file:
        index = {name: schema.read_array(file, name, path) for name in INDEX}
    shards = [row["file"] for row in said["files"] if row["file"].endswith(".array_record")]
    return Packed(
        name=f"records:{folder}",
        image_ids=index["image_ids"],
        offsets=index["offsets"],
        captions=Lines(folder / f"{split}.jsonl", index["lines"], index["caption_counts"]),
        num_classes=said["num_classes"],
        num_attributes=said["num_attributes"],
        columns=tuple((name, dtype, tuple(shape)) for name, dtype, shape in said["columns"]),
        source=grain.sources.ArrayRecordDataSource([str(folder / name) for name in shards]),
    )


def outline(folder: str | os.PathLike, split: str) -> Outline:
    """Captions and numbers of regions of a split."""
    packed = read(folder, split)
    return Outline(packed.captions, np.diff(packed.offsets) - 1)


def in_blocks(packed: Packed, photos: int = 256) -> Iterator[Corpus]:
    """All photos with their captions, `photos` at a time."""
    for start in range(0, len(packed), photos):
        stop = min(start + photos, len(packed))
        block = packed.take(np.arange(start, stop))
        yield dataclasses.replace(block, captions=packed.captions[start:stop])
