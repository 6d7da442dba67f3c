"""A corpus in memory: photos as rows of regions, each photo with its captions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Outline:
    """What is known of a corpus without its features.

    Attributes:
      captions: one tuple of captions a photo; parsed when asked for, where they lie on disk.
      regions: [N] i64, regions of each photo, the whole photo not counted.
    """

    captions: Sequence[tuple[str, ...]]
    regions: np.ndarray

    def all_captions(self) -> Iterator[str]:
        """One after the other."""
        for photo in self.captions:
            yield from photo


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Photos and captions, column by column.

    Rows `offsets[i]:offsets[i + 1]` belong to photo i; its first row is the whole photo, the others
    are its regions, in any order.

    Attributes:
      name: what errors and tables call it.
      image_ids: [N] i64, unique.
      offsets: [N + 1] i64, ascending from 0.
      features: [rows, F], f32 or f16, or uint8 companded as `(value / 8) ** 2 * FEATURE_SCALE`.
      boxes: [rows, 4] f32: ymin, xmin, ymax, xmax in 0..1.
      captions: one tuple of captions a photo.
      scores: [rows] f32, best non-background score of each region, or None.
      class_ids: [rows, k] i32 and class_probs: [rows, k] f32, the k likeliest of `num_classes`
        classes; what their probabilities leave over is spread evenly over the other classes.
      num_classes: 0 where there is no class distribution.
      pixels: [N, H, W, 3] uint8, or None.
    """

    name: str
    image_ids: np.ndarray
    offsets: np.ndarray
    features: np.ndarray
    boxes: np.ndarray
    captions: tuple[tuple[str, ...], ...]
    scores: np.ndarray | None = None
    class_ids: np.ndarray | None = None
    class_probs: np.ndarray | None = None
    num_classes: int = 0
    pixels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def feature_dim(self) -> int:
        """F."""
        return self.features.shape[1]
