"""The records that the library's parts hand to each other, and the letters of their shapes.

Letters: B batch, T text tokens, R regions (the global region is the last), D model width, F
detector feature width, N heads, H head dim, V vocabulary, C detector classes, K candidates of a
contrastive softmax, P pairs.

Inside the library `mask` is True for a real element. On disk and in the exported signature the
convention is the opposite (1 = padding); `mmt_jax.data.schema` holds the one conversion.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

Array = jax.Array | np.ndarray
Params = dict[str, Any]  # nested dicts with string keys; leaves are arrays
Key = jax.Array | None  # of what is random; None switches dropout off

_Type = TypeVar("_Type")


@dataclass_transform(frozen_default=True)
def record(cls: type[_Type]) -> type[_Type]:
    """A frozen dataclass that jax takes for a tree of its fields.

    Its constructor takes arrays as annotated, which tests check. jax goes past it, for it puts
    anything in the place of arrays: their shardings, their shapes, None.
    """
    made = dataclasses.dataclass(frozen=True)(cls)
    names = [field.name for field in dataclasses.fields(made)]  # pyright: ignore[reportArgumentType]
    keys = [jax.tree_util.GetAttrKey(name) for name in names]

    def fields(node: Any) -> tuple[list[Any], None]:
        return [getattr(node, name) for name in names], None

    def with_keys(node: Any) -> tuple[list[Any], None]:
        return list(zip(keys, fields(node)[0])), None

    def build(_: None, values: Any) -> Any:
        node = object.__new__(made)
        node.__dict__.update(zip(names, values))
        return node

    jax.tree_util.register_pytree_with_keys(made, with_keys, build, fields)
    return made


@record
class Text:
    """Captions as tokens; the study's are laid out `[pad…] [SEP] w1 … wn [CLS]`.

    Other families' stand as their own tokenizers have them, padding behind.
    """

    token_ids: Int[Array, "B T"]
    segment_ids: Int[Array, "B T"]  # the study's: 0, and 2 at [CLS]
    word_ids: Int[Array, "B T"]  # 0, 1, … for words, -1 for special tokens, -2 for padding
    mask: Bool[Array, "B T"]  # True = real
    # What a frozen encoder made of captions (`train.text_features`), read in their place.
    features: Float[Array, "B ..."] | None = None


@record
class Image:
    """Photos as regions, of a detector or patches of pixels.

    Models that read a global region have it in the last slot, which is always real.
    """

    features: Float[Array, "B R F"]
    boxes: Float[Array, "B R 5"]  # ymin, xmin, ymax, xmax in 0..1, then area
    mask: Bool[Array, "B R"]  # True = real
    class_ids: Int[Array, "B R k"] | None = None  # the k likeliest detector classes
    class_probs: Float[Array, "B R k"] | None = None  # their probabilities; all 0 = unknown
    attribute_ids: Int[Array, "B R l"] | None = None  # attributes likewise
    attribute_probs: Float[Array, "B R l"] | None = None


KeysValues = tuple[Float[Array, "B _ N H"], Float[Array, "B _ N H"]]  # of an attention


@record
class Encoded:
    """What one item's own modality says of it. Every leaf has the items as first axis."""

    states: Float[Array, "B S D"]  # after the layers in which the stream reads itself alone
    mask: Bool[Array, "B S"]
    keys_values: dict[str, KeysValues]  # by layer, for later readers
    heads: tuple[Float[Array, "B _"], ...]  # [CLS] or global region, after each of those layers
    taps: tuple[Float[Array, "B S _"], ...] = ()  # what later layers add to their states


@record
class Batch:
    """Matched pairs: row b of `text` is a caption of row b of `image`; or records of a task.

    Records of a task may have no text, no photo or, in `more`, further photos, and have targets.
    """

    text: Text | None
    image: Image | None
    image_ids: Int[Array, " B"]  # equal where two rows show the same photo
    more: tuple[Image, ...] = ()
    targets: Float[Array, "B A"] | None = None  # what each answer is worth; all 0 = not known


@record
class Metric:
    """A mean kept as sum and count, so that it adds up over devices, shards and steps."""

    sum: Float[Array, ""]
    count: Float[Array, ""]

    @classmethod
    def of(
        cls, values: Float[Array, "*shape"], mask: Bool[Array, "*shape"] | None = None
    ) -> Metric:
        """Sums `values` where `mask` is True."""
        if mask is None:
            return cls(values.sum(), jax.numpy.asarray(values.size, values.dtype))
        weights = mask.astype(values.dtype)
        return cls((values * weights).sum(), weights.sum())

    def __add__(self, other: Metric) -> Metric:
        return Metric(self.sum + other.sum, self.count + other.count)

    @property
    def mean(self) -> Float[Array, ""]:
        """The mean; 0 where nothing was counted."""
        return self.sum / jax.numpy.maximum(self.count, 1)


Metrics = dict[str, Metric]
