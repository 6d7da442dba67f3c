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
from mmt_jax.photo import Photo, image_id, rows, top

MAX_REGIONS = 10_000  # of a photo; more is a damaged number
MAX_CLASSES = 100_000  # of a detector, and attributes; likewise
MAX_SIDE = 1 << 20  # of a photo in pixels; likewise
_SIDES_SLACK = 0.01


@dataclasses.dataclass(frozen=True)
class Detections:
    """What a file holds of one photo.

    Attributes:
      photo: with the captions that the format brings, if any.
      name: what the file calls it, or its number.
      num_classes: where the whole distribution is there, else None.
      cut, lost: how many boxes were cut at the photo's edges, and went for want of an area.
    """

    photo: Photo
    name: str | int
    num_classes: int | None
    cut: int
    lost: int


@dataclasses.dataclass(frozen=True)
class Format:
    """One layout; each declares itself in the file that reads it.

    Attributes:
      about: what it is, in a line.
      boxes: the convention of its boxes, one of `boxes.CONVENTIONS`.
      read: path → place and reader of each photo, for `guarded.read`; takes the names of its
        categories too, where it has them.
      categories: path → names of the categories that features are made of.
      captions: whether photos bring their captions.
    """

    about: str
    boxes: str
    read: Callable[..., Entries]
    categories: Callable[[pathlib.Path], list[str]] | None = None
    captions: bool = False


@dataclasses.dataclass(frozen=True)
class Names:
    """What a format calls its fields; those that are None or absent are not known of a photo."""

    features: str
    boxes: str
    width: str | None = None  # of the photo in pixels
    height: str | None = None
    count: str | None = None  # of regions
    class_ids: str | None = None
    scores: str | None = None  # probability of `class_ids`
    attribute_ids: str | None = None
    attribute_scores: str | None = None
    class_probs: str | None = None  # of all classes
    convention: str = "xyxy pixels"  # of the boxes


def detected(
    name: str | int,
    features: np.ndarray,
    placed: boxes.Placed,
    where: str,
    *,
    size: tuple[int, int] | None = None,
    class_ids: np.ndarray | None = None,
    class_probs: np.ndarray | None = None,
    attribute_ids: np.ndarray | None = None,
    attribute_probs: np.ndarray | None = None,
    scores: np.ndarray | None = None,
    whole: np.ndarray | None = None,
    captions: tuple[str, ...] = (),
    info: Mapping[str, Any] | None = None,
) -> Detections:
    """What is known of n regions, as a photo; those without area are gone.

    Args:
      name: of the photo, or its number.
      features: [n, F] float, without the whole photo.
      placed: their boxes.
      where: for messages.
      size: the photo's width and height in pixels.
      class_ids: [n], each region's likeliest class, whose probability is `class_probs` [n]; or
        None, and `class_probs` [n, C] is the whole distribution; or both are None.
      class_probs: see `class_ids`.
      attribute_ids: [n], each region's likeliest attribute, whose probability is
        `attribute_probs` [n].
      attribute_probs: see `attribute_ids`.
      scores: [n].
      whole: [F], the whole photo's feature; None = the mean of the regions'.
      captions: of the photo.
      info: what else is known of it.

    Raises:
      UsageError: impossible labels, or no region. What else may be wrong is for
        `FolderWriter.add` to find.
    """
    if len(placed.corners) != len(features):
        raise UsageError(f"{where}: {len(placed.corners)} boxes for {len(features)} features")
    num_classes = None
    if class_probs is not None and class_ids is None:
        if not np.isfinite(class_probs).all() or not class_probs.size:
            raise UsageError(f"{where}: the class distribution holds NaN or infinity, or nothing")
        num_classes = class_probs.shape[1]
        class_ids, class_probs = top(class_probs)
    columns = {"features": features} if scores is None else {"features": features, "scores": scores}
    labels = {"class": (class_ids, class_probs), "attribute": (attribute_ids, attribute_probs)}
    for kind, (ids, probs) in labels.items():
        if ids is None or probs is None:
            continue
        if ids.min(initial=0) < 0 or ids.max(initial=0) >= MAX_CLASSES:
            raise UsageError(f"{where}: {kind} ids run from {ids.min()} to {ids.max()}")
        for part, values in (("ids", ids), ("probs", probs)):
            columns[f"{kind}_{part}"] = values if values.ndim == 2 else values[:, None]
    kept = ~placed.empty
    columns = {key: values[kept] for key, values in columns.items()}
    if whole is None:
        check_count(int(kept.sum()), where)
        whole = columns["features"].mean(axis=0, dtype=np.float32)
    known = {"name": name} if isinstance(name, str) else {}
    known |= dict(zip(("width", "height"), size or ())) | dict(info or {})
    number = name if isinstance(name, int) else image_id(name)
    seen = rows(boxes=placed.corners[kept], whole=whole, **columns)
    photo = Photo(number, captions, seen, known)
    cut = int(placed.cut[kept].sum())
    return Detections(photo, name, num_classes, cut, len(kept) - int(kept.sum()))


def from_fields(fields: Mapping[str, Any], names: Names, *, name: str, where: str) -> Detections:
    """`detected` out of named arrays, cut to the regions that `count` says.

    Raises:
      UsageError: a field is missing, of the wrong type or of a length that disagrees, boxes are
        against the convention, or as `detected`.
    """
    features = array(fields, names.features, "f", 2, where)
    count = len(features)
    if names.count is not None and names.count in fields:
        count = number(fields[names.count], names.count, where, high=len(features))
    check_count(count, where)

    def column(key: str | None, kinds: str, rank: int) -> np.ndarray | None:
        if key is None or fields.get(key) is None:
            return None
        values = array(fields, key, kinds, rank, where)
        if len(values) != len(features):
            raise UsageError(
                f"{where}: {key} has {len(values)} rows, {names.features} {len(features)}"
            )
        return values[:count]

    ids, scores = column(names.class_ids, "iu", 1), column(names.scores, "f", 1)
    probs = column(names.class_probs, "f", 2)
    if probs is not None and (scores is None or names.class_ids):
        ids, scores = None, probs.max(axis=1, initial=0)
    drawn = column(names.boxes, "iuf", 2)
    if drawn is None:
        raise UsageError(f"{where}: the field {names.boxes} is missing")
    size = None
    if names.width and names.height:
        width, height = (
            number(fields.get(side), side, where, high=MAX_SIDE)
            for side in (names.width, names.height)
        )
        size = width, height
    return detected(
        name,
        features[:count],
        boxes.placed(drawn, names.convention, size, where),
        where,
        size=size,
        class_ids=ids,
        class_probs=scores if probs is None and ids is not None else probs,
        attribute_ids=column(names.attribute_ids, "iu", 1),
        attribute_probs=column(names.attribute_scores, "f", 1),
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
