"""One photo on its way into a region folder, and what its name says of its id."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

TOP = 16  # classes that are kept of a region's distribution
WHOLE = (0.0, 0.0, 1.0, 1.0)  # the box of a photo's first row

# What a detector says of a row, each as `KIND_ids` and `KIND_probs`, → the name of its number.
LABELS = {"class": "num_classes", "attribute": "num_attributes"}
# Arrays of [rows, …], of which those after the first two are optional.
ROWS = (
    "features",
    "boxes",
    "scores",
    *(f"{kind}_{x}" for kind in LABELS for x in ("ids", "probs")),
)

# COCO_val2014_000000393225, flickr30k_000001000092795, vg_713545, 1000092795: names that number.
_NUMBERED = re.compile(r"(?:[A-Za-z]\w*_)?0*(\d{1,18})")


@dataclasses.dataclass(frozen=True)
class Photo:
    """What becomes one photo of a region folder; `writer.FolderWriter` checks and stores it.

    Attributes:
      image_id: unique within a split.
      captions: none where they are not known.
      features: [rows, F] f32 or f16, or uint8 companded as in `Corpus`. Row 0 is the whole photo:
        its own feature, or the mean of the regions' where the format has none.
      boxes: [rows, 4] f32: ymin, xmin, ymax, xmax in 0..1; row 0 is `WHOLE`.
      scores: [rows] f32, or None.
      class_ids, class_probs: [rows, k], the likeliest classes of each row, or None; a row whose
        probabilities are all 0 has no class distribution.
      attribute_ids, attribute_probs: [rows, j], attributes likewise.
      info: what else the photo's line says: width and height in pixels, file name, ….
      pixels: [H, W, 3] uint8, of one size within a split, or None.
    """

    image_id: int
    captions: tuple[str, ...]
    features: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray | None = None
    class_ids: np.ndarray | None = None
    class_probs: np.ndarray | None = None
    attribute_ids: np.ndarray | None = None
    attribute_probs: np.ndarray | None = None
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pixels: np.ndarray | None = None


def with_whole(regions: Photo, feature: np.ndarray) -> Photo:
    """A photo of which only regions are known, with `feature` [F] of the whole in a row above them.

    Its score is 1; of classes and attributes it has none.
    """

    def rows(first: Any, values: np.ndarray | None) -> np.ndarray | None:
        if values is None:
            return None
        return np.concatenate([np.full_like(values, first, shape=(1, *values.shape[1:])), values])

    labels = [f"{kind}_{part}" for kind in LABELS for part in ("ids", "probs")]
    return dataclasses.replace(
        regions,
        features=np.concatenate([feature[None], regions.features]),
        boxes=rows(WHOLE, regions.boxes),
        scores=rows(1, regions.scores),
        **{name: rows(0, getattr(regions, name)) for name in labels},
    )


def top(probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n, C] class probabilities → ids [n, k] i32 and probabilities [n, k] f32 of the likeliest.

    Best first, k at most `TOP`.
    """
    ids = np.argsort(-probs, axis=1, kind="stable")[:, :TOP].astype(np.int32)
    return ids, np.take_along_axis(probs, ids, axis=1).astype(np.float32)


def image_id(name: str) -> int:
    """The id of a photo that files know by name, with or without folder and suffix.

    The number that ends a name such as `COCO_val2014_000000393225.jpg`; names that do not number
    (`dev-850-1-img0`, Flickr8k's) get 63 bits of their SHA-256, which no order of files changes.
    """
    stem = pathlib.PurePosixPath(name).name
    stem = re.sub(r"\.[A-Za-z]\w{0,4}$", "", stem)
    if numbered := _NUMBERED.fullmatch(stem):
        return int(numbered[1])
    return int.from_bytes(hashlib.sha256(stem.encode()).digest()[:8], "big") >> 1
