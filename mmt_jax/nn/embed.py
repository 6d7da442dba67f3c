"""From tokens and regions to states of the model's width."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from mmt_jax.configs.config import ModelConfig
from mmt_jax.nn.blocks import dropout, layer_norm, linear
from mmt_jax.typing import Array, Image, Text

SEGMENTS = 3  # the release uses 0, and 2 at [CLS]


def table(size: int, config: ModelConfig, rngs: nnx.Rngs) -> nnx.Embed:
    """An embedding table; `Model.init` draws it."""
    return nnx.Embed(size, config.width, embedding_init=nnx.initializers.zeros, rngs=rngs)


def lookup(table: nnx.Embed, ids: Array) -> Array:
    """[...] i32 → [..., D] in the table's dtype; calling it would give that of its construction."""
    return jnp.take(table.embedding[...], ids, axis=0)


class TextEmbed(nnx.Module):
    """LayerNorm(token + position + segment).

    Positions count real tokens, so how much padding stands in front changes nothing. Tokens beyond
    the last position share it.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.rate = config.dropout
        self.tokens = table(config.vocab_size, config, rngs)
        self.positions = table(config.max_positions, config, rngs)
        self.segments = table(SEGMENTS, config, rngs)
        self.norm = layer_norm(config, rngs)

    def __call__(self, text: Text, *, key: jax.Array | None) -> Array:
        """[B, T] → [B, T, D]."""
        last = self.positions.num_embeddings - 1
        position = jnp.clip(jnp.cumsum(text.mask, axis=1) - 1, 0, last)
        x = lookup(self.tokens, text.token_ids) + lookup(self.segments, text.segment_ids)
        x += lookup(self.positions, position)
        return dropout(self.norm(x), self.rate, key)


def even_out(features: Array) -> Array:
    """Signed square roots, standardised over the F features of a region; zeros stay zeros.

    Spatial means of rectified activations are skewed, and their size says more of contrast and
    box than of content: a linear layer learns from them slowly as they are.
    """
    roots = features * jax.lax.rsqrt(jnp.abs(features) + 1e-4)  # smooth at 0
    centred = roots - roots.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-6)


class ImageEmbed(nnx.Module):
    """LayerNorm(Linear(features) + Linear(box)); a detector's features are evened out first."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.rate = config.dropout
        self.pixels = config.pixels
        self.features = linear(config.feature_dim, config.width, rngs)
        self.boxes = linear(5, config.width, rngs, bias=False)
        self.norm = layer_norm(config, rngs)

    def __call__(self, image: Image, *, key: jax.Array | None) -> Array:
        """[B, R, F] and [B, R, 5] → [B, R, D]."""
        dtype = self.features.kernel.dtype  # that of the computation; records are float32
        # Standardised, patches that differ in brightness alone would be one.
        features = image.features if self.pixels else even_out(image.features)
        x = self.features(features.astype(dtype)) + self.boxes(image.boxes.astype(dtype))
        return dropout(self.norm(x), self.rate, key)
