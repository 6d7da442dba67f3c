"""Photos of which only annotated boxes are known: what a perfect detector would say of them.

A region's feature is the one-hot of its category followed by ymin, xmin, ymax, xmax and area in
0..1; its class distribution is certain. The whole photo's is the mean of the one-hots, with the box
of the whole photo. `boxes-jsonl` has a photo a line: image_id, width, height, captions, and boxes,
each `{"xyxy": pixels, "category": name}`. `coco-instances` is COCO's instances file, xywh in
pixels, without its crowds.
"""

from __future__ import annotations

import array
import contextlib
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmt_jax import readers as files
from mmt_jax.errors import UsageError
from mmt_jax.ingest import boxes as boxes_lib
from mmt_jax.ingest.features import detections
from mmt_jax.ingest.features.detections import Detections, Format
from mmt_jax.ingest.guarded import Entries
from mmt_jax.photo import WHOLE, with_area

MAX_CATEGORIES = 10_000


def categories_of_lines(path: pathlib.Path) -> list[str]:
    """The categories that a `boxes-jsonl` names, sorted; damaged lines name none."""
    found: set[str] = set()
    for where, line in files.byte_lines(path):
        try:
            found |= {box["category"] for box in json.loads(line)["boxes"]}
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if len(found) > MAX_CATEGORIES:
            raise UsageError(f"{where}: more than {MAX_CATEGORIES:,} categories")
    return sorted(name for name in found if isinstance(name, str))


def categories_of_coco(path: pathlib.Path) -> list[str]:
    """The categories of a `coco-instances`, by id."""
    found: dict[int, str] = {}
    for where, _, row in files.json_members(path, ("categories",)):
        name, number = files.field(row, "name", str, where), files.field(row, "id", int, where)
        if name in found.values() or number in found:
            raise UsageError(f"{where}: the category {name!r} is there twice")
        found[number] = name
    return [found[number] for number in sorted(found)]


def read_lines(path: pathlib.Path, categories: Sequence[str]) -> Entries:
    """The photos of a `boxes-jsonl`."""
    numbers = {name: number for number, name in enumerate(categories)}
    for where, line in files.byte_lines(path):
        if line.strip():
            yield where, functools.partial(_line, line, numbers, where)


def read_coco(path: pathlib.Path, categories: Sequence[str]) -> Entries:
    """The photos of a `coco-instances`. Its boxes, 56 bytes each, are in memory at once."""
    columns = {name: number for number, name in enumerate(categories)}
    photos: dict[int, tuple[str, Any]] = {}
    kinds: dict[int, int] = {}  # of categories → their columns
    numbers, boxes = array.array("q"), array.array("d")  # owner and category; the box
    for where, key, row in files.json_members(path, ("categories", "images", "annotations")):
        try:
            if key == "categories":
                kinds[files.field(row, "id", int, where)] = _column(row, "name", columns, where)
            elif key == "images":
                if (photo := files.field(row, "id", int, where)) in photos:
                    raise UsageError(f"{where}: the image {photo} is there twice")
                photos[photo] = (where, row)
            elif not (isinstance(row, dict) and row.get("iscrowd")):
                box = _box(row, "bbox", where)
                owner = files.field(row, "image_id", int, where)
                numbers.extend([owner, files.field(row, "category_id", int, where)])
                boxes.extend(box)
        except UsageError as error:
            yield where, functools.partial(_refuse, str(error))
    table = np.frombuffer(numbers, np.int64).reshape(-1, 2)
    order = np.argsort(table[:, 0], kind="stable")
    owners, found = table[order, 0], table[order, 1]
    drawn = np.frombuffer(boxes, np.float64).reshape(-1, 4)[order]
    for owner in np.setdiff1d(owners, np.fromiter(photos, np.int64, len(photos))).tolist():
        reason = f"{path}: annotations are of the image {owner}, which is not among the images"
        yield f"{path}: image {owner}", functools.partial(_refuse, reason)
    for owner, (where, row) in photos.items():
        own = slice(*np.searchsorted(owners, [owner, owner + 1]))
        load = functools.partial(
            _coco_photo, owner, row, found[own], drawn[own], kinds, len(categories), where
        )
        yield where, load


def _coco_photo(
    number: int,
    row: Any,
    found: np.ndarray,
    boxes: np.ndarray,
    kinds: Mapping[int, int],
    width: int,
    where: str,
) -> Detections:
    if unknown := set(found.tolist()) - set(kinds):
        raise UsageError(f"{where}: the category {min(unknown)} is not among the categories")
    classes = np.array([kinds[kind] for kind in found.tolist()], np.int64)
    info = {"file_name": row["file_name"]} if isinstance(row.get("file_name"), str) else {}
    return _photo(number, row, boxes, "xywh pixels", classes, width, where, info=info)


def _line(line: bytes, columns: Mapping[str, int], where: str) -> Detections:
    row = files.parsed(line, where)
    number = files.field(row, "image_id", int, where)
    rows = files.field(row, "boxes", list, where)
    if len(rows) > detections.MAX_REGIONS:
        raise UsageError(f"{where}: {len(rows)} boxes; a photo has {detections.MAX_REGIONS:,}")
    boxes = np.array([_box(box, "xyxy", where) for box in rows], np.float64).reshape(-1, 4)
    classes = np.array([_column(box, "category", columns, where) for box in rows], np.int64)
    captions = row.get("captions", [])
    if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
        raise UsageError(f"{where}: captions must be a list of strings")
    known = {"captions": tuple(captions)}
    return _photo(number, row, boxes, "xyxy pixels", classes, len(columns), where, **known)


def _photo(
    number: int,
    row: Any,
    boxes: np.ndarray,
    convention: str,
    classes: np.ndarray,
    num_classes: int,
    where: str,
    **known: Any,
) -> Detections:
    """A photo out of its boxes and the numbers of their categories [n]."""
    hot = np.eye(num_classes)[classes]
    width, height = (
        detections.number(files.field(row, key, int, where), key, where, high=detections.MAX_SIDE)
        for key in ("width", "height")
    )
    placed = boxes_lib.placed(boxes, convention, (width, height), where, little=np.inf)
    histogram = hot[~placed.empty].sum(axis=0) / max(1, (~placed.empty).sum())
    return detections.detected(
        number,
        np.concatenate([hot, with_area(placed.corners)], axis=1, dtype=np.float32),
        placed,
        where,
        size=(width, height),
        class_ids=classes,
        class_probs=np.ones(len(hot), np.float32),
        whole=np.concatenate([histogram, WHOLE], dtype=np.float32),
        **known,
    )


def _column(row: Any, key: str, columns: Mapping[str, int], where: str) -> int:
    """The number of a category that is named."""
    if (name := files.field(row, key, str, where)) not in columns:
        raise UsageError(
            f"{where}: the category {name!r} is not among those that the folder knows; convert the "
            f"split with the most categories first"
        )
    return columns[name]


def _box(row: Any, key: str, where: str) -> list[float]:
    box = files.field(row, key, list, where)
    if len(box) == 4 and all(type(value) in (int, float) for value in box):
        with contextlib.suppress(OverflowError):
            return [float(value) for value in box]
    raise UsageError(f"{where}: {key} must be four numbers")


def _refuse(reason: str) -> Detections:
    raise UsageError(reason)


FORMATS = {
    "boxes-jsonl": Format(
        "annotated boxes with a category and captions, no pixels",
        "xyxy pixels",
        read_lines,
        categories=categories_of_lines,
        captions=True,
    ),
    "coco-instances": Format(
        "COCO's instances file, no pixels", "xywh pixels", read_coco, categories=categories_of_coco
    ),
}
