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
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mmt_jax.corpus import Corpus, Outline
from mmt_jax.data import schema
from mmt_jax.data.writer import FolderWriter
from mmt_jax.errors import UsageError
from mmt_jax.photo import LABELS, ROWS, Photo
from mmt_jax.text.base import prepare


@dataclasses.dataclass(frozen=True)
class FolderSpec:
    """What a folder's records look like."""

    feature_dim: int
    num_classes: int  # 0: no class distribution
    num_attributes: int  # 0: none
    counted: tuple[str, ...]  # which of these two are not stored, but the largest id plus 1
    unlabelled: bool  # some regions have no class distribution


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


def spec(folder: str | os.PathLike) -> FolderSpec:
    """What a folder's first split (`train` where there is one) holds; its features are not read.

    Raises:
      UsageError: as `splits`, or the split cannot be read.
    """
    path = pathlib.Path(folder) / f"{_reference_split(folder)}.npz"
    with schema.open_npz(path) as file:
        shape = _shape(file, "features", path)
        if len(shape) != 2:
            raise UsageError(f"{path}: features has shape {shape}, it must be [rows, F]")
        numbers = {name: _number(file, kind, path) for kind, name in LABELS.items()}
        counted = tuple(name for name in numbers if name not in file.files)
        unlabelled = _unlabelled(file, path)
        return FolderSpec(shape[1], **numbers, counted=counted, unlabelled=unlabelled)


def read(
    folder: str | os.PathLike, split: str, *, pixels: bool = False, bare: bool = False
) -> Corpus:
    """Reads one split.

    Args:
      folder: the region folder.
      split: its name, such as "train".
      pixels: also read the photos' pixels, which must be there then.
      bare: also take photos without captions, which can be indexed and shown, but not trained on.

    Raises:
      UsageError: naming the file, and the line, row or photo, of the first fault.
    """
    folder = _with_split(folder, split)
    image_ids, captions = _read_lines(folder / f"{split}.jsonl", bare=bare)
    path = folder / f"{split}.npz"
    with schema.open_npz(path) as file:
        arrays = {name: schema.read_array(file, name, path) for name in _wanted(file, path, pixels)}
    return _corpus(arrays, image_ids, captions, _numbers(folder, arrays), path)


def blocks(
    folder: str | os.PathLike, split: str, *, photos: int = 256, pixels: bool = False
) -> Iterator[Corpus]:
    """One split, `photos` at a time: of its features, no more than that is in memory.

    Raises:
      UsageError: as `read`; what is wrong with a block is told when it is reached.
    """
    folder = _with_split(folder, split)
    image_ids, captions = _read_lines(folder / f"{split}.jsonl")
    path = folder / f"{split}.npz"
    with schema.open_npz(path) as file, contextlib.ExitStack() as stack:
        small = {"offsets", "image_ids"} & set(wanted := _wanted(file, path, pixels))
        whole = {name: schema.read_array(file, name, path) for name in small}
        _check_numbers(whole, path)
        _check_photos(
            whole | {"features": range(_shape(file, "features", path)[0])}, image_ids, path
        )
        labels = {f"{kind}_ids" for kind in LABELS} & set(wanted)
        ids = {name: schema.read_array(file, name, path) for name in labels}
        numbers, offsets = _numbers(folder, ids), whole["offsets"].astype(np.int64)
        columns = {
            name: stack.enter_context(schema.stream_array(file, name, path))
            for name in wanted
            if name not in small
        }
        rows = {name: offsets[-1] for name in columns}
        rows |= {"pixels": len(image_ids)} if pixels else {}
        for name, wanted_rows in rows.items():
            if (found := _shape(file, name, path)[0]) != wanted_rows:
                raise UsageError(f"{path}: {name} has {found} rows, it must have {wanted_rows}")
        for start in range(0, len(image_ids), photos):
            own = slice(start, start + photos)
            bounds = offsets[start : start + photos + 1]
            counts = {name: bounds[-1] - bounds[0] for name in columns}
            counts |= {"pixels": len(bounds) - 1} if pixels else {}
            arrays = {name: read(counts[name]) for name, read in columns.items()}
            arrays["offsets"] = bounds - bounds[0]
            where = path.with_name(f"{path.name}, counted from photo {start}")
            yield _corpus(arrays, image_ids[own], captions[own], numbers, where)


def _numbers(folder: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Numbers of classes and attributes of a split whose ids are these, by name."""
    reference, numbers = spec(folder), {}
    for kind, name in LABELS.items():
        numbers[name] = getattr(reference, name)
        if (ids := arrays.get(f"{kind}_ids")) is not None and name in reference.counted:
            numbers[name] = max(numbers[name], int(ids.max(initial=0)) + 1)
    return numbers


def _corpus(
    arrays: dict,
    image_ids: np.ndarray,
    captions: tuple,
    numbers: Mapping[str, int],
    path: pathlib.Path,
) -> Corpus:
    """The arrays of a split, or of some of its photos, once they have been checked."""
    _check_numbers(arrays, path)
    _check_photos(arrays, image_ids, path)
    _check_rows(arrays, path)
    labels: dict[str, Any] = {}
    for kind, name in LABELS.items():
        ids, probs = f"{kind}_ids", f"{kind}_probs"
        if ids in arrays:
            _check_labels(arrays[ids], arrays[probs], kind, numbers[name], path)
            labels[ids] = arrays[ids].astype(np.int32, copy=False)
            labels[probs] = arrays[probs].astype(np.float32, copy=False)
            labels[name] = numbers[name]
    scores = arrays.get("scores")
    return Corpus(
        name=f"regions:{path.parent}",
        image_ids=image_ids,
        offsets=arrays["offsets"].astype(np.int64),
        features=arrays["features"],
        boxes=arrays["boxes"].astype(np.float32, copy=False),
        captions=captions,
        scores=None if scores is None else scores.astype(np.float32, copy=False),
        pixels=arrays.get("pixels"),
        **labels,
    )


def outline(folder: str | os.PathLike, split: str) -> Outline:
    """Captions and numbers of regions of one split, its features unread.

    Raises:
      UsageError: as `read`, where it is these that have the fault.
    """
    folder = _with_split(folder, split)
    image_ids, captions = _read_lines(folder / f"{split}.jsonl")
    path = folder / f"{split}.npz"
    with schema.open_npz(path) as file:
        rows = _shape(file, "features", path)[0]
        arrays = {"offsets": schema.read_array(file, "offsets", path), "features": range(rows)}
    _check_photos(arrays, image_ids, path)
    return Outline(captions, np.diff(arrays["offsets"].astype(np.int64)) - 1)


def write(corpus: Corpus, folder: str | os.PathLike, split: str) -> None:
    """Writes a corpus as one split of a region folder, which is made where it does not exist.

    Both files appear whole or not at all.

    Raises:
      UsageError: the split is there already (nothing is overwritten), or as `FolderWriter.add`.
    """
    numbers = {name: getattr(corpus, name) or None for name in LABELS.values()}
    with FolderWriter(folder, split, dtype=corpus.features.dtype.name, **numbers) as writer:
        for index, captions in zip(range(len(corpus)), corpus.captions, strict=True):
            writer.add(_photo(corpus, index, captions))


def _photo(corpus: Corpus, index: int, captions: tuple[str, ...]) -> Photo:
    rows = slice(*corpus.offsets[index : index + 2])
    arrays: dict[str, Any] = {}
    for name in ROWS:
        values = getattr(corpus, name)
        arrays[name] = None if values is None else values[rows]
    pixels = None if corpus.pixels is None else corpus.pixels[index]
    return Photo(int(corpus.image_ids[index]), captions, pixels=pixels, **arrays)


def _with_split(folder: str | os.PathLike, split: str) -> pathlib.Path:
    folder = pathlib.Path(folder)
    if split not in (names := splits(folder)):
        raise UsageError(f"{folder} has no split {split!r}; it has {', '.join(names)}")
    return folder


def _reference_split(folder: str | os.PathLike) -> str:
    names = splits(folder)
    return "train" if "train" in names else names[0]


def _shape(file: np.lib.npyio.NpzFile, name: str, path: pathlib.Path) -> tuple[int, ...]:
    """An array's shape from its header alone."""
    if name not in file.files:
        raise UsageError(f"{path}: the array {name} is missing")
    return schema.array_header(file, name, path)[0]


def _number(file: np.lib.npyio.NpzFile, kind: str, path: pathlib.Path) -> int:
    """How many classes or attributes there are: as stored, or as the ids need."""
    if (name := LABELS[kind]) in file.files:
        number = schema.read_array(file, name, path)
        if number.ndim or number.dtype.kind not in "iu":
            raise UsageError(
                f"{path}: {name} is {number.dtype} {number.shape}, it must be one integer"
            )
        return int(number)
    if f"{kind}_ids" not in file.files:
        return 0
    return int(schema.read_array(file, f"{kind}_ids", path).max(initial=0)) + 1


def _unlabelled(file: np.lib.npyio.NpzFile, path: pathlib.Path) -> bool:
    if "class_probs" not in file.files:
        return True
    probs = np.atleast_2d(schema.read_array(file, "class_probs", path))
    whole_photos = schema.read_array(file, "offsets", path)  # these rows are never hidden
    return not (probs.any(axis=-1) | np.isin(np.arange(len(probs)), whole_photos)).all()


def _wanted(file: np.lib.npyio.NpzFile, path: pathlib.Path, pixels: bool) -> list[str]:
    needed = ["offsets", "features", "boxes"] + ["pixels"] * pixels
    for name in needed:
        if name not in file.files:
            raise UsageError(f"{path}: the array {name} is missing; see mmt_jax.data.formats")
    for kind in LABELS:
        if (f"{kind}_ids" in file.files) != (f"{kind}_probs" in file.files):
            raise UsageError(f"{path}: {kind}_ids and {kind}_probs need each other")
    return needed + [name for name in ("image_ids", *ROWS[2:]) if name in file.files]


def _read_lines(
    path: pathlib.Path, *, bare: bool = False
) -> tuple[np.ndarray, tuple[tuple[str, ...], ...]]:
    image_ids: dict[int, int] = {}  # → line
    captions = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            photo = _parse_line(line, f"{path}:{number}", bare=bare)
            first = image_ids.setdefault(photo["image_id"], number)
            if first != number:
                raise UsageError(
                    f"{path}:{number}: image_id {photo['image_id']} is that of line {first} too; "
                    f"put all captions of a photo into one line"
                )
            captions.append(tuple(photo["captions"]))
    if not captions:
        raise UsageError(f"{path} is empty; it must hold one photo a line")
    return np.array(list(image_ids), np.int64), tuple(captions)


def _parse_line(line: bytes, where: str, *, bare: bool) -> dict:
    try:
        photo = json.loads(line)
    except ValueError as error:  # UnicodeDecodeError too
        raise UsageError(f"{where}: not JSON ({error}); write one photo a line") from None
    if not isinstance(photo, dict) or not isinstance(photo.get("image_id"), int):
        raise UsageError(f"{where}: a photo needs an integer `image_id`")
    if not -(2**63) <= photo["image_id"] < 2**63:
        raise UsageError(f"{where}: image_id {photo['image_id']} does not fit into 64 bits")
    captions = photo.get("captions")
    if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
        raise UsageError(f"{where}: a photo needs `captions`, a list of strings")
    if not (captions or bare):
        raise UsageError(f"{where}: photo {photo['image_id']} has no caption; leave it out")
    if not all(map(prepare, captions)):
        raise UsageError(f"{where}: photo {photo['image_id']} has an empty caption; leave it out")
    return photo


def _check_numbers(arrays: dict, path: pathlib.Path) -> None:
    for name, values in arrays.items():
        if not values.ndim or values.dtype.kind not in "iuf":
            raise UsageError(
                f"{path}: {name} has shape {values.shape} and dtype {values.dtype}, it must be an "
                f"array of numbers; see mmt_jax.data.formats"
            )


def _check_photos(arrays: dict, image_ids: np.ndarray, path: pathlib.Path) -> None:
    offsets, rows = arrays["offsets"], len(arrays["features"])
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu":
        raise UsageError(f"{path}: offsets must be a list of integers")
    if len(offsets) != len(image_ids) + 1:
        raise UsageError(
            f"{path}: offsets are for {len(offsets) - 1} photos, but "
            f"{path.with_suffix('.jsonl').name} has {len(image_ids)} lines"
        )
    if offsets[0] != 0 or offsets[-1] != rows:
        raise UsageError(
            f"{path}: offsets run from {offsets[0]} to {offsets[-1]}, they must run from 0 to the "
            f"{rows} rows of features"
        )
    empty = np.diff(offsets.astype(np.int64)) < 1
    if empty.any():
        raise UsageError(
            f"{path}: photo {np.flatnonzero(empty)[0]} has no row; offsets must ascend, and each "
            f"photo's first row is the whole photo"
        )
    if "image_ids" in arrays and not np.array_equal(arrays["image_ids"], image_ids):
        raise UsageError(f"{path}: image_ids are not those of {path.with_suffix('.jsonl').name}")
    pixels = arrays.get("pixels")
    if pixels is not None and (
        pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[::3] != (len(image_ids), 3)
    ):
        raise UsageError(
            f"{path}: pixels is {pixels.dtype} {pixels.shape}, it must be uint8 "
            f"[{len(image_ids)}, H, W, 3]"
        )


def _check_rows(arrays: dict, path: pathlib.Path) -> None:
    features, boxes = arrays["features"], arrays["boxes"]
    rows = len(features)
    if features.ndim != 2 or features.dtype not in (np.uint8, np.float16, np.float32):
        raise UsageError(
            f"{path}: features is {features.dtype} {features.shape}, it must be float32, float16 "
            f"or uint8 [rows, F]"
        )
    for name in ROWS[1:]:
        rank = 1 if name == "scores" else 2
        shape = arrays[name].shape if name in arrays else (rows,) * rank
        if len(shape) != rank or shape[0] != rows:
            raise UsageError(
                f"{path}: {name} has shape {shape}, it must have rank {rank} and the {rows} rows "
                f"of features"
            )
    if boxes.shape[1] != 4:
        raise UsageError(f"{path}: boxes has shape {boxes.shape}, it must be [{rows}, 4]")
    for name in ("features", "scores", *(f"{kind}_probs" for kind in LABELS)):
        _check_finite(arrays.get(name), f"{path}: {name}")
    schema.check_coordinates(boxes, f"{path}: boxes")


def _check_labels(
    ids: np.ndarray, probs: np.ndarray, kind: str, number: int, path: pathlib.Path
) -> None:
    if ids.shape != probs.shape or ids.dtype.kind not in "iu":
        raise UsageError(f"{path}: {kind}_ids and {kind}_probs must both be [rows, k]")
    if ids.min(initial=0) < 0 or ids.max(initial=0) >= number:
        what = LABELS[kind]
        raise UsageError(
            f"{path}: {kind}_ids run from {ids.min()} to {ids.max()}, but there are {number} "
            f"{what.removeprefix('num_')}; store their number as `{what}` in each npz"
        )
    total = probs.sum(axis=1, dtype=np.float32)
    if (probs < 0).any() or (total > 1.01).any():
        raise UsageError(f"{path}: {kind}_probs must be at least 0 and sum to at most 1 a row")


def _check_finite(values: np.ndarray | None, name: str) -> None:
    if values is None or values.dtype.kind != "f" or np.isfinite(values).all():
        return
    row = np.argwhere(~np.isfinite(values))[0][0]
    raise UsageError(f"{name} holds NaN or infinity in row {row}")
