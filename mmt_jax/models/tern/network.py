"""TERN (Messina et al., ICPR 2020, arXiv 2004.09144): captions and regions as one vector each.

Two readings: the original (mesnico/TERN) and its re-implementation for FAISS (kaylode/tern), which
share little but the name. Published parts that no output depends on are not built: both maps of
the original that its shared layers replace, and BERT's pooler.

Padding is read by neither encoder. The re-implementation has no masks, so that its vectors depend
on what else is in a batch: they are equal to ours where nothing is padded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float

from mmt_jax.configs.config import Config
from mmt_jax.models import checks
from mmt_jax.models.base import Encoded, Towers, sizes
from mmt_jax.models.tern.config import TernConfig
from mmt_jax.nn.embed import Tables, TextEncoder
from mmt_jax.nn.heads import Calibration
from mmt_jax.nn.layers import Sizes, Stack
from mmt_jax.nn.primitives import (
    Linear,
    Table,
    average,
    dropout_features,
    even_out,
    split,
    unit,
)
from mmt_jax.nn.vision import with_class
from mmt_jax.typing import Array, Image, Key, Text

BOX = (1, 0, 3, 2, 4)  # of a record's box, in TERN's order: x1, y1, x2, y2, area


class TwoLayers(nnx.Module):
    """Linear, ReLU, Linear."""

    def __init__(self, in_dim: int, hidden: int, out_dim: int):
        self.hidden = Linear(in_dim, hidden)
        self.out = Linear(hidden, out_dim)

    def __call__(self, x: Float[Array, "*b I"]) -> Float[Array, "*b O"]:
        return self.out(jax.nn.relu(self.hidden(x)))


class ConcatEmbed(nnx.Module):
    """Two layers over features and box; a slot of zeros in front stands for the photo."""

    def __init__(self, model: TernConfig):
        width = model.image_width
        self.mlp = TwoLayers(model.feature_dim + len(BOX), width, width)

    def __call__(
        self, features: Float[Array, "B R F"], boxes: Float[Array, "B R 5"]
    ) -> Float[Array, "B R+1 D"]:
        x = jnp.concatenate([features, boxes], axis=-1)
        return self.mlp(jnp.pad(x, ((0, 0), (1, 0), (0, 0))))


class SumEmbed(nnx.Module):
    """Linear(features) + Linear(box); a learned slot in front stands for the photo."""

    def __init__(self, model: TernConfig):
        self.features = Linear(model.feature_dim, model.image_width)
        self.boxes = Linear(len(BOX), model.image_width)
        self.features_cls = Table(1, model.image_width)
        self.boxes_cls = Table(1, model.image_width)

    def __call__(
        self, features: Float[Array, "B R F"], boxes: Float[Array, "B R 5"]
    ) -> Float[Array, "B R+1 D"]:
        x = self.features(features) + self.boxes(boxes)
        cls = (self.features_cls.embedding[...] + self.boxes_cls.embedding[...]).astype(x.dtype)
        return jnp.concatenate([jnp.broadcast_to(cls, (x.shape[0], *cls.shape)), x], axis=1)


class TwoLayerProjection(nnx.Module):
    """Two layers of an encoder's width, as `project_text` and `project_image`."""

    def __init__(self, in_dim: int, out_dim: int):
        self.mlp = TwoLayers(in_dim, in_dim, out_dim)

    def __call__(self, x: Float[Array, "*b I"]) -> Float[Array, "*b O"]:
        return self.mlp(x)


def _stack(sizes: Sizes, depth: int) -> Stack:
    """With a last norm where each layer has its norms in front."""
    return Stack(sizes, depth, last_norm=sizes.pre_norm and depth > 0)


class RegionEncoder(nnx.Module):
    """Regions and the photo's slot, embedded and reasoned about."""

    def __init__(self, embed: Callable[..., Any], model: TernConfig, sizes: Sizes, *, dtype: str):
        self.embed, self.dtype = embed(model), dtype
        self.even_out, self.feature_dropout = model.even_out, model.image_dropout
        self.stack = _stack(sizes, model.image_layers)

    def __call__(self, image: Image, *, key: Key = None) -> list[Float[Array, "B S D"]]:
        """States of `stack`."""
        key_features, key = split(key, 2) if self.feature_dropout else (None, key)
        features = even_out(image.features) if self.even_out else image.features
        features = dropout_features(features, self.feature_dropout, key_features)
        boxes = jnp.take(image.boxes, jnp.array(BOX), axis=-1).astype(self.dtype)
        states = self.embed(features.astype(self.dtype), boxes)
        return self.stack(states, with_class(image.mask), key=key)


def first(states: Float[Array, "B S D"], mask: Bool[Array, "B S"]) -> Float[Array, "B D"]:
    """[CLS], or the slot that stands for the photo."""
    del mask
    return states[:, 0]


@dataclasses.dataclass(frozen=True)
class Reading:
    """What an implementation of TERN is made of."""

    embed: type[nnx.Module]  # of regions
    norm: dict[str, Any]  # fields of `Sizes`, but for the text encoder
    project: Callable[..., nnx.Module]  # each encoder's states into the common space
    pool: Callable[[Array, Array], Array]


READINGS = {
    "original": Reading(ConcatEmbed, {"eps": 1e-5, "activation": "relu"}, Linear, first),
    "kaylode": Reading(
        SumEmbed,
        {"eps": 1e-6, "pre_norm": True, "sample_norm": True},
        TwoLayerProjection,
        average,
    ),
}


class Tern(Towers):
    """Text encoder, region encoder, projections, shared layers; a score is a cosine."""

    @classmethod
    def check(cls, config: Config) -> None:
        checks.heads(config.model, "", "text", "image")

    def __init__(self, config: Config):
        model = config.model
        assert isinstance(model, TernConfig)
        reading = READINGS[model.reading]
        self.pooling = reading.pool
        self.text = TextEncoder(
            Tables(model.vocab_size, model.max_positions, segments=2, pad_id=model.pad_id),
            sizes(config, model.text_width, model.text_heads, model.text_mlp_dim),
            model.text_layers,
            dtype=config.dtype,
        )
        own = sizes(
            config, model.image_width, model.image_heads, model.image_mlp_dim, **reading.norm
        )
        shared = sizes(config, model.width, model.heads, model.mlp_dim, **reading.norm)
        self.image = RegionEncoder(reading.embed, model, own, dtype=config.dtype)
        self.project_text = reading.project(model.text_width, model.width)
        self.project_image = reading.project(model.image_width, model.width)
        self.shared = _stack(shared, model.shared_layers)
        self.calibration = Calibration()
        self.build_masked(config, table_width=model.text_width)

    @classmethod
    def remembered(cls, config: Config) -> str | None:
        return None if config.objective.mlm or config.task.name else r"text/.*"

    def text_features(self, text: Text) -> Float[Array, "B ..."]:
        return self.text(text)[-1]

    def text_states(self, text: Text, *, key: Key = None) -> list[Array]:
        """States of the text encoder, [B, T, text width], and of the shared layers, [B, T, D].

        Of each part, those before its first layer and after each; `Text.features` in place of the
        first part, where they are given.
        """
        key_encoder, key_shared = split(key, 2)
        states = self.text(text, key=key_encoder) if text.features is None else [text.features]
        return states + self.shared(self.project_text(states[-1]), text.mask, key=key_shared)

    def image_states(self, image: Image, *, key: Key = None) -> list[Array]:
        """States of the region layers, [B, 1 + R, image width], and of the shared ones."""
        key_encoder, key_shared = split(key, 2)
        states, mask = self.image(image, key=key_encoder), with_class(image.mask)
        return states + self.shared(self.project_image(states[-1]), mask, key=key_shared)

    def encode_text(self, text: Text, *, key: Key = None) -> Encoded:
        return self._encoded(self.text_states(text, key=key)[-1], text.mask)

    def encode_image(self, image: Image, *, key: Key = None) -> Encoded:
        return self._encoded(self.image_states(image, key=key)[-1], with_class(image.mask))

    def _encoded(self, states: Float[Array, "B S D"], mask: Bool[Array, "B S"]) -> Encoded:
        return Encoded(states, mask, {}, (unit(self.pooling(states, mask)),))


NETWORK = Tern
