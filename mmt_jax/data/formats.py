"""Region folders: the interchange format for a user's own photos.

A folder holds `<split>.jsonl` and `<split>.npz` for each split, photos in the same order in both.

`<split>.jsonl` has one photo a line: `image_id` (integer, unique), `captions` (list of strings),
and whatever else is of use to others. In `<split>.npz`, rows `offsets[i]:offsets[i + 1]` belong to
photo i; the first of them is the whole photo, the others are its regions:

| array | shape, dtype | |
|---|---|---|
| `offsets` | [N + 1] integer | ascending from 0 to the number of rows |
| `features` | [rows, F] f32, f16 or uint8 | uint8: value = (uint8 / 8)² · 0.0058821 |
| `boxes` | [rows, 4] float | ymin, xmin, ymax, xmax in 0..1 |
| `image_ids` | [N] integer | optional; must agree with the lines |
| `scores` | [rows] float | optional; without them regions keep their order |
| `class_ids`, `class_probs` | [rows, k] | optional; the likeliest classes, their probabilities |
| `num_classes` | [] integer | optional; else the largest class id of `train` plus 1 |
| `attribute_ids`, `attribute_probs` | [rows, j] | optional; the likeliest attributes, likewise |
| `num_attributes` | [] integer | optional; likewise |
| `pixels` | [N, H, W, 3] uint8 | optional; for models that read pixels |

Without a split `train`, classes and attributes are counted in the first split by name. A split that
holds larger ids than that has as many as they need: it can still be evaluated.

`train[:90%]` and `train[90%:]` are parts of a split that have no photo in common: to which of a
hundred parts a photo belongs is a function of its id alone, whatever other photos there are.

This is what is published, so it is what is written too: a second format would have to be read for
ever beside it. `published` turns its rows into those of `photo`.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import sys
from collections.abc import Iterator

import numpy as np

from mmt_jax.corpus import Corpus, Outline
from mmt_jax.data import published
from mmt_jax.data.npz import Npz
from mmt_jax.data.source import WHOLE, Source, Spec, portion, within
from mmt_jax.data.writer import FolderWriter
from mmt_jax.errors import UsageError
from mmt_jax.photo import LABELS, Photo
from mmt_jax.text.base import prepare


def splits(folder: str | os.PathLike) -> tuple[str, ...]:
    """Names of the splits in a folder, sorted.

    Raises:
      UsageError: no such folder, or no split in it.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    names = {path.stem for path in folder.glob("*.jsonl")} & {p.stem for p in folder.glob("*.npz")}
    if not names:
        raise UsageError(
            f"{folder} is not a region folder: it must hold <split>.jsonl and <split>.npz, such as "
            f"train.jsonl and train.npz"
        )
    return tuple(sorted(names))


def read(
    folder: str | os.PathLike, split: str, *, pixels: bool = False, bare: bool = False
) -> Corpus:
    """Reads one split.

    Args:
      pixels: also read the photos' pixels, which must be there then.
      bare: also take photos without captions, which can be indexed and shown, but not trained on.

    Raises:
      UsageError: naming the file, and the line, row or photo, of the first fault.
    """
    return next(blocks(folder, split, photos=sys.maxsize, pixels=pixels, bare=bare))


def blocks(
    folder: str | os.PathLike,
    split: str,
    *,
    photos: int = 256,
    pixels: bool = False,
    bare: bool = False,
) -> Iterator[Corpus]:
    """One split, `photos` at a time: of its features, no more than that is in memory.

    Raises:
      UsageError: as `read`; what is wrong with a block is told when it is reached.
    """
    with _opened(folder, split) as file:
        image_ids, captions = _lines(_lines_of(file), bare=bare)
        offsets = _offsets(file, image_ids)
        with Npz(_reference(folder)) as reference:
            numbers = {number: _number(kind, reference, file) for kind, number in LABELS.items()}
        there = [name for name in published.NAMES if name in file or name in ("features", "boxes")]
        columns = {name: file.rows(name, offsets[-1]) for name in there}
        pictures = file.rows("pixels", len(image_ids)) if pixels else None
        for start in range(0, len(image_ids), photos):
            own = slice(start, start + photos)
            bounds = offsets[start : start + photos + 1]
            arrays = {name: rows(bounds[-1] - bounds[0]) for name, rows in columns.items()}
            part = f", counted from photo {start}" * (photos < len(image_ids))
            where = f"{file.path}{part}"
            published.check(arrays, numbers, where)
            drawn = pictures(len(bounds) - 1) if pictures else None
            if drawn is not None and (drawn.dtype != np.uint8 or drawn.shape[3:] != (3,)):
                raise UsageError(
                    f"{where}: pixels is {drawn.dtype} {drawn.shape}, it must be uint8 [N, H, W, 3]"
                )
            counts = {n: numbers[n] for kind, n in LABELS.items() if f"{kind}_ids" in arrays}
            yield Corpus(
                name=f"regions:{file.path.parent}",
                image_ids=image_ids[own],
                offsets=bounds - bounds[0],
                captions=captions[own],
                rows=published.rows(arrays, bounds - bounds[0]),
                pixels=drawn,
                num_classes=counts.get("num_classes", 0),
                num_attributes=counts.get("num_attributes", 0),
            )


def write(corpus: Corpus, folder: str | os.PathLike, split: str) -> None:
    """Writes a corpus as one split of a region folder, which is made where it does not exist.

    Both files appear whole or not at all.

    Raises:
      UsageError: the split is there already (nothing is overwritten), or as `FolderWriter.add`.
    """
    numbers = {name: getattr(corpus, name) or None for name in LABELS.values()}
    dtype = corpus.rows[published.FEATURES].dtype.name
    with FolderWriter(folder, split, dtype=dtype, **numbers) as writer:
        for photo in photos(corpus):
            writer.add(photo)


def photos(corpus: Corpus) -> Iterator[Photo]:
    """One after the other, as `FolderWriter.add` takes them."""
    for index, captions in zip(range(len(corpus)), corpus.captions, strict=True):
        own = slice(*corpus.offsets[index : index + 2])
        rows = {key: values[own] for key, values in corpus.rows.items()}
        pixels = None if corpus.pixels is None else corpus.pixels[index]
        yield Photo(int(corpus.image_ids[index]), captions, rows, pixels=pixels)


def _opened(folder: str | os.PathLike, split: str) -> Npz:
    if split not in (names := splits(folder)):
        raise UsageError(f"{folder} has no split {split!r}; it has {', '.join(names)}")
    return Npz(pathlib.Path(folder) / f"{split}.npz")


def _reference(folder: str | os.PathLike) -> pathlib.Path:
    """The split that says what all have in common."""
    names = splits(folder)
    return pathlib.Path(folder) / f"{'train' if 'train' in names else names[0]}.npz"


def _number(kind: str, reference: Npz, *splits: Npz) -> int:
    """How many classes or attributes there are: as the reference says, or as all ids need."""
    if (name := LABELS[kind]) in reference:
        number = reference.read(name)
        if number.ndim or number.dtype.kind not in "iu":
            raise UsageError(f"{reference.path}: {name} is {number!r}, it must be one integer")
        return int(number)
    found = [file.read(f"{kind}_ids") for file in (reference, *splits) if f"{kind}_ids" in file]
    return max((int(ids.max(initial=0)) + 1 for ids in found), default=0)


def _shape(file: Npz) -> tuple[int, ...]:
    """Rows and width of the features."""
    if len(shape := file.shape("features")) != 2:
        raise UsageError(f"{file.path}: features has shape {shape}, it must be [rows, F]")
    return shape


def _offsets(file: Npz, image_ids: np.ndarray) -> np.ndarray:
    """[N + 1] i64."""
    offsets, lines, (rows, _) = file.read("offsets"), _lines_of(file).name, _shape(file)
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu":
        raise UsageError(f"{file.path}: offsets must be a list of integers")
    if len(offsets) != len(image_ids) + 1:
        raise UsageError(
            f"{file.path}: offsets are for {len(offsets) - 1} photos, but {lines} has "
            f"{len(image_ids)} lines"
        )
    offsets = offsets.astype(np.int64)
    if offsets[0] or offsets[-1] != rows or (np.diff(offsets) < 1).any():
        raise UsageError(
            f"{file.path}: offsets must ascend from 0 to the number of rows, {rows}; a photo has "
            f"at least the row of the whole photo"
        )
    if "image_ids" in file and not np.array_equal(file.read("image_ids"), image_ids):
        raise UsageError(f"{file.path}: image_ids are not those of {lines}")
    return offsets


def _lines_of(file: Npz) -> pathlib.Path:
    return file.path.with_suffix(".jsonl")


def _lines(
    path: pathlib.Path, *, bare: bool = False
) -> tuple[np.ndarray, tuple[tuple[str, ...], ...]]:
    """Ids and captions of a split's photos."""
    seen: dict[int, int] = {}  # image_id → line
    captions = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            image_id, own = _photo(line, f"{path}:{number}", bare=bare)
            if (first := seen.setdefault(image_id, number)) != number:
                raise UsageError(
                    f"{path}:{number}: image_id {image_id} is that of line {first} too; put all "
                    f"captions of a photo into one line"
                )
            captions.append(own)
    if not captions:
        raise UsageError(f"{path} is empty; it must hold one photo a line")
    return np.array(list(seen), np.int64), tuple(captions)


def _photo(line: bytes, where: str, *, bare: bool) -> tuple[int, tuple[str, ...]]:
    try:
        photo = json.loads(line)
        image_id, captions = photo["image_id"], photo["captions"]
        if not isinstance(image_id, int) or not -(2**63) <= image_id < 2**63:
            raise TypeError(f"image_id is {image_id!r}")
        if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
            raise TypeError(f"captions are {captions!r}")
    except (ValueError, KeyError, TypeError) as error:  # UnicodeDecodeError too
        raise UsageError(
            f"{where}: no photo ({error}); a line is a JSON object with `image_id`, an integer of "
            f"at most 64 bits, and `captions`, a list of strings"
        ) from None
    if not (captions or bare) or not all(map(prepare, captions)):
        raise UsageError(f"{where}: photo {image_id} has no caption, or an empty one; leave it out")
    return image_id, tuple(captions)


class RegionFolder(Source):
    """`regions:FOLDER`; the last few splits that were read stay in memory."""

    kind = "regions"
    form = "regions:FOLDER"

    def splits(self) -> tuple[str, ...]:
        return splits(self.name)

    def spec(self) -> Spec:
        """Features are not read."""
        with Npz(_reference(self.name)) as file:
            _, width = _shape(file)
            unlabelled = "class_probs" not in file
            if not unlabelled:
                probs = np.atleast_2d(file.read("class_probs"))
                known = probs.any(axis=1)
                whole = np.isin(np.arange(len(probs)), file.read("offsets"))  # never hidden
                unlabelled = not (known | whole).all()
            numbers = {number: _number(kind, file) for kind, number in LABELS.items()}
            return Spec(feature_dim=width, unlabelled=unlabelled, **numbers)

    def load(self, split: str, *, seed: int, size: int | None, pixels: bool, bare: bool) -> Corpus:
        del seed, size
        files = [
            pathlib.Path(self.name) / f"{portion(split)[0]}{end}" for end in (".npz", ".jsonl")
        ]
        changed = tuple(file.stat().st_mtime_ns for file in files if file.exists())
        return _kept(self.name, split, pixels, bare, changed)

    def outline(self, split: str, *, size: int | None = None) -> Outline:
        del size
        name, part = portion(split)
        with _opened(self.name, name) as file:
            image_ids, captions = _lines(_lines_of(file))
            regions, rows = np.diff(_offsets(file, image_ids)) - 1, within(image_ids, part, split)
            return Outline(tuple(captions[row] for row in rows), regions[rows])

    def blocks(self, split: str, *, pixels: bool, photos: int = 256) -> Iterator[Corpus]:
        """Photos without captions too, which tasks ask about."""
        name, part = portion(split)
        if part == WHOLE:
            return blocks(self.name, name, pixels=pixels, photos=photos, bare=True)
        return super().blocks(split, pixels=pixels, photos=photos)


@functools.lru_cache(maxsize=4)
def _kept(folder: str, split: str, pixels: bool, bare: bool, changed: tuple[int, ...]) -> Corpus:
    del changed  # only there so that a rewritten folder is read again
    name, part = portion(split)
    corpus = read(folder, name, pixels=pixels, bare=bare)
    return corpus if part == WHOLE else corpus.take(within(corpus.image_ids, part, split))
