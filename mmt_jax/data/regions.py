"""A photo's regions in their slots: sorted, capped, padded in front, the global region last.

Two readings. "plain" keeps every region up to the cap, and the global feature is that of the whole
photo. "release" repeats what the released notebook does: with no more regions than the cap, the
global region overwrites the lowest-scoring one, and its feature is the mean of those that are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mmt_jax.corpus import Photos
from mmt_jax.data import schema
from mmt_jax.errors import UsageError
from mmt_jax.typing import Array, Image

READINGS = ("plain", "release")
FEATURE_SCALE = 0.0058821  # of features stored as uint8: value = (uint8 / 8) ** 2 * FEATURE_SCALE
GLOBAL_BOX = (0.0, 0.0, 1.0, 1.0, 1.0)

_DECODED = ((np.arange(256) / 8) ** 2 * FEATURE_SCALE).astype(np.float32)


def decode(features: np.ndarray) -> np.ndarray:
    """Stored features as f32; uint8 is companded."""
    if features.dtype == np.uint8:
        return _DECODED[features]
    return features.astype(np.float32, copy=False)


def encode(features: np.ndarray) -> np.ndarray:
    """The uint8 whose decoded values lie nearest in the companded scale; negative becomes 0."""
    root = np.sqrt(np.maximum(features, 0) / FEATURE_SCALE)
    return np.clip(np.rint(8 * root), 0, 255).astype(np.uint8)


def with_area(boxes: np.ndarray) -> np.ndarray:
    """[..., 4] boxes → [..., 5]: the box's share of the image is appended."""
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return np.concatenate([boxes, area[..., None]], axis=-1, dtype=np.float32)


def width(
    offsets: np.ndarray, *, max_regions: int, reading: str = "plain", global_region: bool = True
) -> int:
    """R of `slots`, whose arguments and errors these are."""
    _check_reading(max_regions, reading, global_region)
    most = int(kept(offsets, max_regions, reading).max(initial=0))
    return most + 1 if global_region else max(most, 1)


def kept(offsets: np.ndarray, max_regions: int, reading: str) -> np.ndarray:
    """[N] i64: the regions that photos keep, the global one not counted; arguments as `slots`."""
    counts = np.diff(offsets).astype(np.int64) - 1
    most = np.minimum(counts, max_regions)
    if reading == "release":
        most = np.where(counts <= max_regions, np.maximum(counts - 1, 0), most)
    return most


def slots(
    offsets: np.ndarray,
    scores: np.ndarray | None = None,
    *,
    max_regions: int,
    reading: str = "plain",
    global_region: bool = True,
) -> np.ndarray:
    """Which row stands in which slot.

    Args:
      offsets: [N + 1] as in `Corpus`: a photo's first row is the whole photo.
      scores: [rows], best first; equal scores, and None, keep the given order.
      max_regions: the most regions of a photo, the global one not counted.
      reading: "plain" or "release".
      global_region: whether the whole photo has a slot; without, a photo that has no region is its
        own only region.

    Returns:
      [N, R] i64, R the most regions that a photo keeps, and one for the whole photo, which is the
      last column; -1 is padding.

    Raises:
      UsageError: unknown reading, one that is about the global region where there is none, or
        `max_regions` below 1.
    """
    _check_reading(max_regions, reading, global_region)
    firsts, counts = offsets[:-1].astype(np.int64), np.diff(offsets) - 1
    photo = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(counts) - counts
    rank = np.arange(len(photo)) - starts[photo]
    rows = firsts[photo] + 1 + rank
    if scores is not None:
        rows = rows[np.lexsort((-scores[rows], photo))]

    real = kept(offsets, max_regions, reading)
    most = real.max(initial=0)
    table = np.full((len(counts), most + 1), -1, np.int64)
    table[:, -1] = firsts
    fits = rank < real[photo]
    photo, rank, rows = photo[fits], rank[fits], rows[fits]
    table[photo, most - real[photo] + rank] = rows
    if global_region or most == 0:
        return table
    table[:, -2] = np.where(counts == 0, firsts, table[:, -2])
    return table[:, :-1]


def _check_reading(max_regions: int, reading: str, global_region: bool) -> None:
    if reading not in READINGS:
        raise UsageError(f"unknown reading of regions {reading!r}; it is one of {READINGS}")
    if max_regions < 1:
        raise UsageError(f"max_regions is {max_regions}; a photo needs room for one region")
    if reading == "release" and not global_region:
        raise UsageError(
            "config.data.regions='release' puts the global region in place of another, but this "
            "model reads no global region; take config.data.regions='plain'"
        )


def assemble(
    table: np.ndarray,
    *,
    features: Callable[[np.ndarray], np.ndarray],
    boxes: np.ndarray,
    class_ids: np.ndarray | None = None,
    class_probs: np.ndarray | None = None,
    attribute_ids: np.ndarray | None = None,
    attribute_probs: np.ndarray | None = None,
    reading: str = "plain",
    global_region: bool = True,
) -> Image:
    """Gathers photos by their slots.

    Args:
      table: [B, R] rows of `slots`.
      features: rows [n] → decoded features [n, F] f32.
      boxes: [rows, 5] f32, with area.
      class_ids, class_probs: [rows, k], or None.
      attribute_ids, attribute_probs: [rows, j], or None.
      reading, global_region: as given to `slots`. A photo that "release" leaves without a region
        keeps the whole photo's feature, for there is nothing to take the mean of.

    Returns:
      Numpy arrays; padding is 0 everywhere.
    """
    mask = table >= 0
    rows = table[mask]

    def place(values: np.ndarray) -> np.ndarray:
        out = np.zeros((*table.shape, *values.shape[1:]), values.dtype)
        out[mask] = values
        return out

    labels = {
        "class_ids": class_ids,
        "class_probs": class_probs,
        "attribute_ids": attribute_ids,
        "attribute_probs": attribute_probs,
    }
    image = Image(
        features=place(features(rows)),
        boxes=place(boxes[rows]),
        mask=mask,
        **{name: place(values[rows]) for name, values in labels.items() if values is not None},
    )
    if global_region:
        image.boxes[:, -1] = GLOBAL_BOX
    if reading == "release":
        _release_global(image)
    return image


def _release_global(image: Image) -> None:
    """Puts the mean of the kept regions into the last slot, in place; no detector classified it."""
    kept = image.mask[:, :-1].sum(axis=1)
    some = kept > 0
    total = image.features[some, :-1].sum(axis=1)
    image.features[some, -1] = total / kept[some, None].astype(np.float32)
    for labels in (image.class_ids, image.class_probs, image.attribute_ids, image.attribute_probs):
        if labels is not None:
            labels[:, -1] = 0


def record(
    corpus: Photos,
    index: int,
    *,
    max_regions: int = 100,
    reading: str = "plain",
    global_region: bool = True,
) -> dict[str, np.ndarray]:
    """The three image keys of photo `index`, as a record file holds them; arguments as `slots`."""
    photo = corpus.take(np.array([index]))
    image = assemble(
        slots(
            photo.offsets,
            photo.scores,
            max_regions=max_regions,
            reading=reading,
            global_region=global_region,
        ),
        features=lambda rows: decode(photo.features[rows]),
        boxes=with_area(photo.boxes),
        reading=reading,
        global_region=global_region,
    )
    return {key: value[0] for key, value in schema.from_image(image).items()}


def patches(pixels: Array, patch_size: int, *, global_region: bool = True) -> tuple[Array, Array]:
    """Cuts whole images into square patches that stand in for regions.

    Works on numpy arrays and, traced or not, on jax arrays, of symbolic height and width too where
    these are multiples of `patch_size`.

    Args:
      pixels: [..., H, W, 3] f32 in 0..1.
      patch_size: side of a patch in pixels; divides H and W.
      global_region: whether the whole photo, with the mean of the patches, follows them.

    Returns:
      Features [..., R, patch_size² · 3] and boxes [..., R, 5], row by row from the top left.

    Raises:
      UsageError: H or W is no multiple of `patch_size`.
    """
    xp = pixels.__array_namespace__()
    *lead, height, width, channels = pixels.shape
    if height % patch_size or width % patch_size:
        raise UsageError(
            f"images of {height} × {width} cannot be cut into patches of {patch_size} pixels; set "
            f"config.model.patch_size to a divisor of both sides"
        )
    rows, columns, n = height // patch_size, width // patch_size, len(lead)
    cells = pixels.reshape(*lead, rows, patch_size, columns, patch_size, channels)
    cells = cells.transpose(*range(n), n, n + 2, n + 1, n + 3, n + 4)
    cells = cells.reshape(*lead, rows * columns, patch_size * patch_size * channels)
    boxes = _patch_boxes(xp, rows, columns)
    if global_region:
        cells = xp.concatenate([cells, cells.mean(axis=-2, keepdims=True)], axis=-2)
        boxes = xp.concatenate([boxes, xp.asarray([GLOBAL_BOX], dtype=np.float32)], axis=0)
    return cells, xp.broadcast_to(boxes, (*lead, *boxes.shape))


def pixel_image(pixels: Array, patch_size: int, *, global_region: bool = True) -> Image:
    """`patches` of [B, H, W, 3] f32 pixels as an `Image` without padding."""
    features, boxes = patches(pixels, patch_size, global_region=global_region)
    return Image(features, boxes, mask=boxes[..., 4] > 0)


def _patch_boxes(xp: Any, rows: Any, columns: Any) -> Array:
    """[rows · columns, 5] f32; `rows` and `columns` may be symbolic."""
    tall, wide = (xp.asarray(side, dtype=np.float32) for side in (rows, columns))
    top = xp.arange(rows, dtype=np.float32) / tall
    left = xp.arange(columns, dtype=np.float32) / wide
    top, left = xp.meshgrid(top, left, indexing="ij")
    area = xp.full_like(top, 1) / (tall * wide)
    return xp.stack([top, left, top + 1 / tall, left + 1 / wide, area], axis=-1).reshape(-1, 5)
