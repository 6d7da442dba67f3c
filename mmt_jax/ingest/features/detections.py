"""What a detector found in one photo, as files hold it, and the way from there to a `Photo`.

Where boxes lie is declared by each format (`boxes.CONVENTIONS`) and checked, never guessed.
"""

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

# What `Detections` has of each region beside its box.
_COLUMNS = ("features", "scores", "class_ids", "class_probs", "attribute_ids", "attribute_probs")


@dataclasses.dataclass(frozen=True)
class Detections:
    """One photo as a format holds it; `photo` checks and converts it.

    Attributes:
      name: of the photo, or its number.
      features: [n, F] float, without the whole photo.
      boxes: [n, 4] in the format's convention; `inside` brings them into ours.
      size: the photo's width and height in pixels, or None where boxes are normalised.
      scores: [n], or None.
      class_ids: [n], each region's likeliest class, whose probability is `class_probs` [n]; or
        None, and `class_probs` [n, C] is the whole distribution; or both are None.
      attribute_ids, attribute_probs: [n], each region's likeliest attribute, or both None.
      whole: [F], the whole photo's feature; None = the mean of the regions'.
      captions: none where the format has none.
      info: what else is known of the photo.
      cut, lost: how many boxes were cut at the photo's edges, and went for want of an area.
    """

    name: str | int
    features: np.ndarray
    boxes: np.ndarray
    size: tuple[int, int] | None = None
    scores: np.ndarray | None = None
    class_ids: np.ndarray | None = None
    class_probs: np.ndarray | None = None
    attribute_ids: np.ndarray | None = None
    attribute_probs: np.ndarray | None = None
    whole: np.ndarray | None = None
    captions: tuple[str, ...] = ()
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    cut: int = 0
    lost: int = 0

    @property
    def image_id(self) -> int:
        """The number of the photo, or what its name says of it."""
        return self.name if isinstance(self.name, int) else image_id(self.name)

    @property
    def num_classes(self) -> int | None:
        """C, where the whole distribution is there."""
        if self.class_probs is None or self.class_ids is not None:
            return None
        return self.class_probs.shape[-1]


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
    width: str
    height: str
    count: str | None = None  # of regions
    class_ids: str | None = None
    scores: str | None = None  # probability of `class_ids`
    attribute_ids: str | None = None
    attribute_scores: str | None = None
    class_probs: str | None = None  # of all classes
    convention: str = "xyxy pixels"  # of the boxes


def from_fields(fields: Mapping[str, Any], names: Names, *, name: str, where: str) -> Detections:
    """Detections out of named arrays, cut to the regions that `count` says, `inside` the photo.

    Raises:
      UsageError: a field is missing, of the wrong type or of a length that disagrees, or as
        `inside`.
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

    class_ids = column(names.class_ids, "iu", 1)
    scores = column(names.scores, "f", 1)
    probs = column(names.class_probs, "f", 2)
    if probs is not None:
        class_ids, scores = None, probs.max(axis=1, initial=0)
    attribute_ids = column(names.attribute_ids, "iu", 1)
    attribute_probs = column(names.attribute_scores, "f", 1)
    both = attribute_ids is not None and attribute_probs is not None
    drawn = column(names.boxes, "iuf", 2)
    if drawn is None:
        raise UsageError(f"{where}: the field {names.boxes} is missing")
    found = Detections(
        name=name,
        features=features[:count],
        boxes=drawn,
        size=(
            number(fields.get(names.width), names.width, where, high=MAX_SIDE),
            number(fields.get(names.height), names.height, where, high=MAX_SIDE),
        ),
        scores=scores,
        class_ids=class_ids if scores is not None else None,
        class_probs=scores if probs is None and class_ids is not None else probs,
        attribute_ids=attribute_ids if both else None,
        attribute_probs=attribute_probs if both else None,
    )
    return inside(found, names.convention, where)


def array(fields: Mapping[str, Any], key: str, kinds: str, rank: int, where: str) -> np.ndarray:
    """A field that must be an array of some kinds of numbers (as `numpy.dtype.kind`) and rank."""
    values = fields.get(key)
    if not isinstance(values, np.ndarray):
        raise UsageError(f"{where}: the field {key} is missing or no array")
    if values.ndim != rank or values.dtype.kind not in kinds:
        raise UsageError(f"{where}: {key} is {values.dtype} {values.shape}; it needs {rank} axes")
    return values


def number(value: Any, name: str, where: str, *, low: int = 1, high: int) -> int:
    """A whole number within bounds, from a number or its digits."""
    try:
        if isinstance(value, str | bytes):
            found = int(value[:20])
        else:
            found = int(np.asarray(value).reshape(()))
            if found != value:
                raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{where}: {name} is no whole number") from None
    if not low <= found <= high:
        raise UsageError(f"{where}: {name} is {found}, it must be from {low} to {high}")
    return found


def check_count(count: int, where: str) -> None:
    """Refuses photos without regions, and numbers of regions that no detector gives."""
    if not 1 <= count <= MAX_REGIONS:
        raise UsageError(f"{where}: {count} regions; a photo has from 1 to {MAX_REGIONS:,}")


def inside(found: Detections, convention: str, where: str) -> Detections:
    """The same with boxes as ymin, xmin, ymax, xmax in 0..1, cut; regions without area are gone.

    Args:
      found: the detections.
      convention: of its boxes, one of `boxes.CONVENTIONS`.
      where: for messages.

    Raises:
      UsageError: boxes against the convention; see `boxes.placed`.
    """
    placed = boxes.placed(found.boxes, convention, found.size, where)
    if len(placed.corners) != len(found.features):
        raise UsageError(f"{where}: {len(placed.corners)} boxes for {len(found.features)} features")
    kept = ~placed.empty
    columns = {name: getattr(found, name) for name in _COLUMNS}
    return dataclasses.replace(
        found,
        **{name: values[kept] for name, values in columns.items() if values is not None},
        boxes=placed.corners[kept],
        cut=int(placed.cut[kept].sum()),
        lost=int(placed.empty.sum()),
    )


def photo(found: Detections, captions: tuple[str, ...], where: str) -> Photo:
    """The photo as a region folder holds it.

    Args:
      found: the detections, `inside` the photo.
      captions: of the photo.
      where: for messages.

    Raises:
      UsageError: impossible probabilities, or no region. What else may be wrong is for
        `FolderWriter.add` to find.
    """
    whole = found.whole
    if whole is None:
        check_count(len(found.features), where)
        whole = found.features.mean(axis=0, dtype=np.float32)
    ids, probs = _classes(found, where)
    attributes, likely = _one_a_row(found.attribute_ids, found.attribute_probs, "attribute", where)
    size = dict(zip(("width", "height"), found.size, strict=True)) if found.size else {}
    name = {"name": found.name} if isinstance(found.name, str) else {}
    seen = rows(
        found.features,
        found.boxes,
        whole=whole,
        scores=found.scores,
        class_ids=ids,
        class_probs=probs,
        attribute_ids=attributes,
        attribute_probs=likely,
    )
    return Photo(found.image_id, captions, seen, info={**name, **size, **found.info})


def _one_a_row(
    ids: np.ndarray | None, probs: np.ndarray | None, kind: str, where: str
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """[n] labels and their probabilities as [n, 1]."""
    if ids is None or probs is None:
        return None, None
    if ids.min(initial=0) < 0 or ids.max(initial=0) >= MAX_CLASSES:
        raise UsageError(f"{where}: {kind} ids run from {ids.min()} to {ids.max()}")
    return ids[:, None], probs[:, None]


def _classes(found: Detections, where: str) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Ids and probabilities [n, k] of the likeliest classes, best first."""
    ids, probs = found.class_ids, found.class_probs
    if probs is None:
        return None, None
    if ids is not None:
        return _one_a_row(ids, probs, "class", where)
    if not np.isfinite(probs).all() or not probs.size:
        raise UsageError(f"{where}: the class distribution holds NaN or infinity, or nothing")
    return top(probs)
