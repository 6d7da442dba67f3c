"""A photo's regions in their slots: sorted, capped, padded in front, the global region last.

Two readings. "plain" keeps every region up to the cap, and the global feature is that of the whole
photo. "release" repeats what the released notebook does: with no more regions than the cap, the
global region overwrites the lowest-scoring one, and its feature is the mean of those that are kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from mmt_jax.configs.config import Config
from mmt_jax.corpus import Corpus, Photos
from mmt_jax.data import schema
from mmt_jax.errors import UsageError
from mmt_jax.photo import BOXES, FEATURES, IDS, PROBS, SCORES, WHOLE, Rows
from mmt_jax.typing import Array, Image

WHOLE_NAME = "the whole photo"
READINGS = ("plain", "release")
FEATURE_SCALE = 0.0058821  # of features stored as uint8: value = (uint8 / 8) ** 2 * FEATURE_SCALE

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


@dataclasses.dataclass(frozen=True)
class Reading:
    """Which of a photo's regions are read, and in which slots.

    Attributes:
      max_regions: the most regions of a photo, the global one not counted.
      reading: "plain" or "release".
      global_region: whether the whole photo has a slot; without, a photo that has no region is its
        own only region.

    Raises:
      UsageError: unknown reading, one that is about the global region where there is none, or
        `max_regions` below 1.
    """

    max_regions: int = 100
    reading: str = "plain"
    global_region: bool = True

    def __post_init__(self) -> None:
        if self.reading not in READINGS:
            raise UsageError(
                f"unknown reading of regions {self.reading!r}; it is one of {READINGS}"
            )
        if self.max_regions < 1:
            raise UsageError(
                f"max_regions is {self.max_regions}; a photo needs room for one region"
            )
        if self.reading == "release" and not self.global_region:
            raise UsageError(
                "config.data.regions='release' puts the global region in place of another, but "
                "this model reads no global region; take config.data.regions='plain'"
            )

    @classmethod
    def of(cls, config: Config) -> Reading:
        """As a model of `config` reads."""
        return cls(config.data.max_regions, config.data.regions, config.model.global_region)

    def kept(self, offsets: np.ndarray) -> np.ndarray:
        """[N] i64: the regions that photos keep, the global one not counted."""
        counts = np.diff(offsets).astype(np.int64) - 1
        most = np.minimum(counts, self.max_regions)
        if self.reading == "release":
            most = np.where(counts <= self.max_regions, np.maximum(counts - 1, 0), most)
        return most

    def width(self, offsets: np.ndarray) -> int:
        """R: slots for the most regions that a photo keeps, and for the whole photo."""
        return max(int(self.kept(offsets).max(initial=0)) + self.global_region, 1)

    def slots(self, offsets: np.ndarray, scores: np.ndarray | None = None) -> np.ndarray:
        """Which row stands in which slot.

        Args:
          offsets: [N + 1] as in `Photos`: a photo's last row is the whole photo.
          scores: [rows], best first; equal scores, and None, keep the given order.

        Returns:
          [N, R] i64, the whole photo in the last column; -1 is padding, in front.
        """
        table = np.full((len(offsets) - 1, self.width(offsets)), -1, np.int64)
        counts = np.diff(offsets) - 1
        photo = np.repeat(np.arange(len(counts)), counts)
        rank = np.arange(len(photo)) - (np.cumsum(counts) - counts)[photo]
        rows = offsets[photo] + rank
        if scores is not None:
            rows = rows[np.lexsort((-scores[rows], photo))]

        real = self.kept(offsets)
        fits = rank < real[photo]
        photo, rank, rows = photo[fits], rank[fits], rows[fits]
        table[photo, table.shape[1] - self.global_region - real[photo] + rank] = rows
        alone = slice(None) if self.global_region else counts == 0
        table[alone, -1] = offsets[1:][alone] - 1
        return table

    def batch(
        self,
        parts: Sequence[tuple[np.ndarray, Corpus]],
        shapes: Mapping[str, tuple[int, ...]],
        width: int,
    ) -> dict[str, np.ndarray]:
        """The record of B photos, by the keys of the signature and of `shapes`.

        A photo that "release" leaves without a region keeps the whole photo's feature, for there is
        nothing to take the mean of.

        Args:
          parts: photos in memory, each with the places [n] that they have among the B.
          shapes: of a row, by key, what the record holds. Where a part lacks a key, or has fewer
            classes than others, there is 0.
          width: R, of these photos or more.

        Returns:
          Numpy arrays [B, R, …], f32 and i32; padding stands in front and is 0 everywhere.
        """
        count = sum(len(places) for places, _ in parts)
        record = {
            key: np.zeros((count, width, *shape), np.int32 if key in IDS.values() else np.float32)
            for key, shape in shapes.items()
        }
        real = np.zeros((count, width), bool)
        for places, photos in parts:
            table = self.slots(photos.offsets, photos.rows.get(SCORES))
            photo, slot = np.nonzero(table >= 0)
            rows = table[photo, slot]
            photo, slot = places[photo], slot + width - table.shape[1]
            real[photo, slot] = True
            for key in shapes.keys() & photos.rows.keys():
                values = photos.rows[key][rows]
                values = decode(values) if key == FEATURES else values
                record[key][photo, slot, : values.shape[1]] = values
        if self.reading == "release":
            _release_global(record, real)
        return record | {schema.IMAGE_PADDING: schema.padding(real)}


def _release_global(record: dict[str, np.ndarray], real: np.ndarray) -> None:
    """Puts the mean of the kept regions into the last slot, in place; no detector classified it."""
    features = record[FEATURES]
    kept = real[:, :-1].sum(axis=1)
    some = kept > 0
    features[some, -1] = features[some, :-1].sum(axis=1) / kept[some, None].astype(np.float32)
    for key in record.keys() & {*IDS.values(), *PROBS.values()}:
        record[key][:, -1] = 0


def record(photos: Photos, index: int, reading: Reading | None = None) -> dict[str, np.ndarray]:
    """The three image keys of photo `index`, as a record file holds them."""
    photo, reading = photos.take(np.array([index])), reading or Reading()
    shapes = {key: photo.shapes[key] for key in (BOXES, FEATURES)}
    found = reading.batch([(np.arange(1), photo)], shapes, reading.width(photo.offsets))
    return {key: value[0] for key, value in found.items()}


def names(rows: Rows, slots: np.ndarray, labels: Mapping[int, str]) -> tuple[str, ...]:
    """What a photo's rows in `slots` [R] are called: the likeliest class, and the score.

    The whole photo is `WHOLE_NAME`, a region of no known class "region", and padding, -1, "".
    """
    scores, ids, probs = (rows.get(key) for key in (SCORES, IDS["class"], PROBS["class"]))
    found = []
    for row in slots:
        if row in (-1, len(rows[BOXES]) - 1):
            found.append("" if row < 0 else WHOLE_NAME)
            continue
        name = "region"
        if ids is not None and probs is not None:
            best = int(ids[row, probs[row].argmax()])
            name = labels.get(best, f"class {best}")
        found.append(name if scores is None else f"{name} {scores[row]:.2f}")
    return tuple(found)


def patches(
    pixels: Float32[Array, "*lead H W 3"], patch_size: int, *, global_region: bool = True
) -> tuple[Float32[Array, "*lead R F"], Float32[Array, "*lead R 5"]]:
    """Cuts whole images into square patches that stand in for regions.

    Works on numpy arrays and, traced or not, on jax arrays, of symbolic height and width too where
    these are multiples of `patch_size`.

    Args:
      pixels: in 0..1.
      patch_size: side of a patch in pixels; divides H and W.
      global_region: whether the whole photo, with the mean of the patches, follows them.

    Returns:
      Features, F = patch_size² · 3, and boxes, row by row from the top left.

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
        boxes = xp.concatenate([boxes, xp.asarray([WHOLE], dtype=np.float32)], axis=0)
    return cells, xp.broadcast_to(boxes, (*lead, *boxes.shape))


def pixel_image(
    pixels: Float32[Array, "B H W 3"], patch_size: int, *, global_region: bool = True
) -> Image:
    """`patches` of photos as an `Image` without padding."""
    features, boxes = patches(pixels, patch_size, global_region=global_region)
    return Image(features, boxes, mask=boxes[..., 4] > 0)


def _patch_boxes(xp: Any, rows: Any, columns: Any) -> Float32[Array, "R 5"]:
    """Boxes of rows · columns patches; `rows` and `columns` may be symbolic."""
    tall, wide = (xp.asarray(side, dtype=np.float32) for side in (rows, columns))
    top = xp.arange(rows, dtype=np.float32) / tall
    left = xp.arange(columns, dtype=np.float32) / wide
    top, left = xp.meshgrid(top, left, indexing="ij")
    area = xp.full_like(top, 1) / (tall * wide)
    return xp.stack([top, left, top + 1 / tall, left + 1 / wide, area], axis=-1).reshape(-1, 5)
