"""The record of one photo: its keys, and its regions as rows.

Keys, order of a box and place of the whole photo are those of the exported signature, on disk, in
memory and in batches alike. The published region folders, which have others, are translated where
they are read and written (`data.published`); the signature's masks in `data.schema`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

Rows = Mapping[str, np.ndarray]  # [rows, …] by key

BOXES = "image/bboxes"  # [R, 5] f32: ymin, xmin, ymax, xmax in 0..1, then the area
FEATURES = "image/detection_features"  # [R, F]
SCORES = "image/scores"  # [R] f32: of the best class that is not background
PIXELS = "image/pixels"  # [H, W, 3]
IMAGE_PADDING = "image/padding_mask"  # [R]: 1 where a row is no region

# What a record file holds for people, and no model reads.
PICTURE = "photo/picture"  # [H, W, 3] uint8
NAMES = "photo/names"  # [R] str: what the detector calls each slot; "" is padding

# What a detector says of a region, each as [R, k] `image/KIND_ids` (i32) and `image/KIND_probs`
# (f32), best first; what the probabilities lack to 1 is spread evenly over the other classes, and
# where all are 0 there is no distribution. → what their number is called.
LABELS = {"class": "num_classes", "attribute": "num_attributes"}
IDS = {kind: f"image/{kind}_ids" for kind in LABELS}
PROBS = {kind: f"image/{kind}_probs" for kind in LABELS}

WHOLE = (0.0, 0.0, 1.0, 1.0, 1.0)  # the box of the whole photo, which is the last row
TOP = 16  # classes that are kept of a region's distribution

# How the names of photos end, and of files of their features; another dot belongs to the name.
PICTURES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif"),
    ".heic",  # Pillow does not read it, and says so
)
PICKLED = (".pkl", ".pickle")  # of one photo's regions, as the MMT release has them
RECORDS = (".npz", *PICKLED)
_ENDINGS = ((*RECORDS, ".npy"), PICTURES)  # of dev-850-1-img0.png.npz, both

# Corpora that number their photos, so that the folder says nothing that the name does not:
# COCO_val2014_000000393225 or 000000393225, flickr30k_000001000092795 and vg_713545 (features of
# UNITER), and plain numbers, alone or in the folders of Visual Genome and Flickr30k.
_NUMBERED = re.compile(
    r"(?:.*/)?(?:(?:COCO|coco)_(?:train|val|test)\d{4}_)?(\d{12})"
    r"|(?:.*/)?(?:flickr30k|vg)_0*(\d{1,18})"
    r"|(?:(?:.*/)?(?:VG_100K|VG_100K_2|flickr30k[-_]images)/)?(0|[1-9]\d{0,17})"
)
# Names that no two photos share: Flickr's (1000268201_693b08cb0e), NLVR2's (dev-850-1-img0, which
# UNITER's features call nlvr2_dev-850-1-img0).
_NAMED = re.compile(
    r"(?:.*/)?(?:nlvr2_)?"
    r"([1-9]\d{4,}_[0-9a-f]{10}(?:_\w)?|(?:train|dev|test[12])-\d+-\d+-img[01])"
)


@dataclasses.dataclass(frozen=True)
class Photo:
    """What becomes one photo of a region folder; `writer.FolderWriter` checks and stores it."""

    image_id: int  # unique within a split
    captions: tuple[str, ...]  # none where they are not known
    rows: Rows  # see `rows`; features f32 or f16, or uint8 companded as `regions.encode` does
    # What else the photo's line says: width and height in pixels, file name, ….
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pixels: np.ndarray | None = None  # [H, W, 3] uint8, of one size within a split


def rows(
    features: np.ndarray | None,
    boxes: np.ndarray,
    *,
    whole: np.ndarray | None = None,
    scores: np.ndarray | None = None,
    **labels: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """A photo's rows out of what a detector says of n regions.

    Features are [n, F], or None where they come later, boxes [n, 4] (ymin, xmin, ymax, xmax in
    0..1), scores [n], labels [n, k] `class_ids`, `class_probs`, `attribute_ids`, `attribute_probs`.
    `whole` [F] is the whole photo's feature, which gets a row behind the others, with the score 1
    and no classes; None = the last row is the whole photo already.
    """
    named = {FEATURES: features, BOXES: with_area(boxes), SCORES: scores}
    named |= {f"image/{name}": values for name, values in labels.items()}
    found = {key: values for key, values in named.items() if values is not None}
    if whole is None:
        return found
    last = {FEATURES: whole, BOXES: WHOLE, SCORES: 1}
    return {
        key: np.concatenate([v, np.full((1, *v.shape[1:]), last.get(key, 0), v.dtype)])
        for key, v in found.items()
    }


def with_area(boxes: np.ndarray) -> np.ndarray:
    """[..., 4] boxes → [..., 5] f32: the box's share of the image is appended."""
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return np.concatenate([boxes, area[..., None]], axis=-1, dtype=np.float32)


def top(probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n, C] class probabilities → ids [n, k] i32 and probabilities [n, k] f32 of the likeliest.

    Best first, k at most `TOP`.
    """
    ids = np.argsort(-probs, axis=1, kind="stable")[:, :TOP].astype(np.int32)
    return ids, np.take_along_axis(probs, ids, axis=1).astype(np.float32)


def stem(name: str) -> str:
    """The path of a photo without the ending that photos have."""
    path = pathlib.PurePosixPath(name)
    for endings in _ENDINGS:
        if path.suffix.lower() in endings:
            path = path.with_suffix("")
    return str(path)


def image_id(name: str) -> int:
    """The id of a photo that files know by name: its whole path, without its ending.

    Where a corpus numbers its photos (`COCO_val2014_000000393225.jpg`) it is the number, in
    whatever folder it lies. Other names get 63 bits of the SHA-256 of the path: what differs in
    anything else is another photo.
    """
    path = stem(name)
    if numbered := _NUMBERED.fullmatch(path):
        return int(next(filter(None, numbered.groups())))
    if named := _NAMED.fullmatch(path):
        path = named[1]
    return int.from_bytes(hashlib.sha256(path.encode("utf-8", "replace")).digest()[:8], "big") >> 1
