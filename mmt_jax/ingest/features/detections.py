"""What a detector found in one photo, as files hold it, and the way from there to a `Photo`."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmt_jax.errors import UsageError
from mmt_jax.ingest import boxes
from mmt_jax.ingest.guarded import Entries
from mmt_jax.photo import LABELS, Photo, image_id, rows, top

MAX_REGIONS = 10_000  # of a photo; more is a damaged number
MAX_CLASSES = 100_000  # of a detector, and attributes; likewise
MAX_SIDE = 1 << 20  # of a photo in pixels; likewise
_SIDES_SLACK = 0.01


@dataclasses.dataclass(frozen=True)
class Detections:
    """What a file holds of one photo."""

    photo: Photo  # with the captions that the format brings, if any
    name: str | int  # what the file calls it, or its number
    num_classes: int | None  # where the whole distribution is there, else None
    cut: int  # how many boxes were cut at the photo's edges
    lost: int  # how many went for want of an area


@dataclasses.dataclass(frozen=True)
class Format:
    """One layout; each declares itself in the file that reads it."""

    about: str  # what it is, in a line
    boxes: str  # their convention, one of `boxes.CONVENTIONS`
    # Path, and the names of its categories where it has some → place and reader of each photo.
    read: Callable[..., Entries]
    # Path → names of the categories that features are made of.
    categories: Callable[[pathlib.Path], list[str]] | None = None
    captions: bool = False  # whether photos bring theirs


# What a format calls its fields: features and boxes, and what may be unknown: the photo's width and
# height, the count of its regions, class_ids and the scores of these, attribute_ids and
# attribute_scores, and class_probs, of all classes.
Names = Mapping[str, str]


def detected(
    name: str | int,
    features: np.ndarray,
    placed: boxes.Placed,
    where: str,
    *,
    size: tuple[int, int] | None = None,
    num_classes: int | None = None,
    whole: np.ndarray | None = None,
    captions: tuple[str, ...] = (),
    info: Mapping[str, Any] | None = None,
    **columns: np.ndarray | None,
) -> Detections:
    """What is known of n regions, as a photo; those without area are gone.

    Args:
      name: of the photo, or its number.
      features: [n, F] float, without the whole photo.
      size: the photo's width and height in pixels.
      num_classes: of the detector, where its whole distribution is known.
      whole: [F], the whole photo's feature; None = the mean of the regions'.
      captions, info: of the photo.
      **columns: [n] `scores`; [n] or [n, k] the likeliest `class_ids` and `attribute_ids`, each
        with `class_probs` and `attribute_probs`.

    Raises:
      UsageError: impossible labels, or no region. What else may be wrong is for
        `FolderWriter.add` to find.
    """
    kept = ~placed.empty
    features, scores = features[kept], columns.get("scores")
    labels = {}
    for kind in LABELS:
        ids, probs = columns.get(f"{kind}_ids"), columns.get(f"{kind}_probs")
        if ids is None or probs is None:
            continue
        if ids.min(initial=0) < 0 or ids.max(initial=0) >= MAX_CLASSES:
            raise UsageError(f"{where}: {kind} ids run from {ids.min()} to {ids.max()}")
        for part, values in (("ids", ids), ("probs", probs)):
            labels[f"{kind}_{part}"] = values[kept] if values.ndim == 2 else values[kept, None]
    if whole is None:
        check_count(len(features), where)
        whole = features.mean(axis=0, dtype=np.float32)
    known = {"name": name} if isinstance(name, str) else {}
    known |= dict(zip(("width", "height"), size or ())) | dict(info or {})
    number = name if isinstance(name, int) else image_id(name)
    scores = None if scores is None else scores[kept]
    seen = rows(features, placed.corners[kept], whole=whole, scores=scores, **labels)
    photo = Photo(number, captions, seen, known)
    cut = int(placed.cut[kept].sum())
    return Detections(photo, name, num_classes, cut, len(kept) - int(kept.sum()))


def from_fields(
    fields: Mapping[str, Any],
    names: Names,
    *,
    name: str,
    where: str,
    convention: str = "xyxy pixels",
) -> Detections:
    """`detected` out of named arrays, cut to the regions that `count` says; boxes by `convention`.

    Raises:
      UsageError: a field is missing, of the wrong type or of a length that disagrees, boxes are
        against the convention, or as `detected`.
    """
    features = array(fields, names["features"], "f", 2, where)
    count = len(features)
    if (key := names.get("count")) and key in fields:
        count = number(fields[key], key, where, high=len(features))
    check_count(count, where)

    def column(role: str, kinds: str, rank: int) -> np.ndarray | None:
        key = names.get(role)
        if key is None or fields.get(key) is None:
            return None
        values = array(fields, key, kinds, rank, where)
        if len(values) != len(features):
            wanted = f"{names['features']} {len(features)}"
            raise UsageError(f"{where}: {key} has {len(values)} rows, {wanted}")
        return values[:count]

    ids, scores = column("class_ids", "iu", 1), column("scores", "f", 1)
    probs, num_classes = column("class_probs", "f", 2), None
    if probs is None:
        probs = scores
    elif not np.isfinite(probs).all() or not probs.size:
        raise UsageError(f"{where}: the class distribution holds NaN or infinity, or nothing")
    else:
        num_classes = probs.shape[1]
        scores = probs.max(axis=1) if scores is None or "class_ids" in names else scores
        ids, probs = top(probs)
    drawn = column("boxes", "iuf", 2)
    if drawn is None:
        raise UsageError(f"{where}: the field {names['boxes']} is missing")
    size = None
    if "width" in names:
        sides = names["width"], names["height"]
        width, height = (number(fields.get(s), s, where, high=MAX_SIDE) for s in sides)
        size = width, height
    return detected(
        name,
        features[:count],
        boxes.placed(drawn, convention, size, where),
        where,
        size=size,
        num_classes=num_classes,
        class_ids=ids,
        class_probs=probs,
        attribute_ids=column("attribute_ids", "iu", 1),
        attribute_probs=column("attribute_scores", "f", 1),
        scores=scores,
    )


def array(fields: Mapping[str, Any], key: str, kinds: str, rank: int, where: str) -> np.ndarray:
    """A field that must be an array of some kinds of numbers (as `numpy.dtype.kind`) and rank."""
    values = fields.get(key)
    if not isinstance(values, np.ndarray):
        raise UsageError(f"{where}: the field {key} is missing or no array")
    if values.ndim != rank or values.dtype.kind not in kinds:
        raise UsageError(f"{where}: {key} is {values.dtype} {values.shape}; it needs {rank} axes")
    return values


def number(value: Any, name: str, where: str, *, high: int) -> int:
    """A whole number from 1 to `high`, from a number or its digits."""
    try:
        if isinstance(value, str | bytes):
            found = int(value[:20])
        else:
            found = int(np.asarray(value).reshape(()))
            if found != value:
                raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{where}: {name} is no whole number") from None
    if not 1 <= found <= high:
        raise UsageError(f"{where}: {name} is {found}, it must be from 1 to {high}")
    return found


def corners(geometry: np.ndarray, name: str, where: str) -> np.ndarray:
    """[n, 6 or 7] xmin, ymin, xmax, ymax, width, height and perhaps area → [n, 4], checked."""
    geometry = geometry.astype(np.float64)
    sides = geometry[:, 2:4] - geometry[:, :2]
    if geometry.shape[1] not in (6, 7) or (np.abs(sides - geometry[:, 4:6]) > _SIDES_SLACK).any():
        raise UsageError(f"{where}: {name} not xmin, ymin, xmax, ymax, width, height of a box")
    return geometry[:, :4]


def check_count(count: int, where: str) -> None:
    """Refuses photos without regions, and numbers of regions that no detector gives."""
    if not 1 <= count <= MAX_REGIONS:
        raise UsageError(f"{where}: {count} regions; a photo has from 1 to {MAX_REGIONS:,}")
