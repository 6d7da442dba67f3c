"""The records that the library's parts hand to each other, and the letters of their shapes.

Letters: B batch, T text tokens, R regions (the global region is the last), D model width, F
detector feature width, N heads, H head dim, V vocabulary, C detector classes, K candidates of a
contrastive softmax, P pairs.

Inside the library `mask` is True for a real element. On disk and in the exported signature the
convention is the opposite (1 = padding); `mmt_jax.data.schema` holds the one conversion.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

Array = jax.Array | np.ndarray
Params = dict[str, Any]  # nested dicts with string keys; leaves are arrays


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Text:
    """Captions as tokens, laid out `[pad…] [SEP] w1 … wn [CLS]`."""

    token_ids: Array  # [B, T] i32
    segment_ids: Array  # [B, T] i32: 0, and 2 at [CLS]
    word_ids: Array  # [B, T] i32: 0, 1, … for words, -1 for [SEP] and [CLS], -2 for padding
    mask: Array  # [B, T] bool, True = real


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Image:
    """Photos as regions; the last slot is the global region and is always real."""

    features: Array  # [B, R, F] f32
    boxes: Array  # [B, R, 5] f32: ymin, xmin, ymax, xmax in 0..1, then area
    mask: Array  # [B, R] bool, True = real
    class_ids: Array | None = None  # [B, R, k] i32: the k likeliest detector classes
    class_probs: Array | None = None  # [B, R, k] f32: their probabilities; all 0 = unknown
    attribute_ids: Array | None = None  # [B, R, k] i32 and [B, R, k] f32: attributes likewise
    attribute_probs: Array | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """Matched pairs: row b of `text` is a caption of row b of `image`; or records of a task.

    Records of a task may have no text, no photo or, in `more`, further photos, and have targets.
    """

    text: Text | None
    image: Image | None
    image_ids: Array  # [B] i32: equal where two rows show the same photo
    more: tuple[Image, ...] = ()
    targets: Array | None = None  # [B, A] f32: what each answer is worth; all 0 = not known


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Metric:
    """A mean kept as sum and count, so that it adds up over devices, shards and steps."""

    sum: Array
    count: Array

    @classmethod
    def of(cls, values: Array, mask: Array | None = None) -> Metric:
        """Sums `values` of any shape where `mask` (same shape) is True."""
        if mask is None:
            return cls(values.sum(), jax.numpy.asarray(values.size, values.dtype))
        weights = mask.astype(values.dtype)
        return cls((values * weights).sum(), weights.sum())

    def __add__(self, other: Metric) -> Metric:
        return Metric(self.sum + other.sum, self.count + other.count)

    @property
    def mean(self) -> Array:
        """The mean; 0 where nothing was counted."""
        return self.sum / jax.numpy.maximum(self.count, 1)


Metrics = dict[str, Metric]
