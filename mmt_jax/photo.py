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

# How the names of photos end, and of files of their features; another dot belongs to the name.
PICTURES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif"),
    ".heic",  # Pillow does not read it, and says so
)
_ENDINGS = ((".npz", ".npy", ".pkl", ".pickle"), PICTURES)  # of dev-850-1-img0.png.npz, both

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
