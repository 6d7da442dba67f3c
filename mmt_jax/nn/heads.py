"""From states to scores, words and regions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from mmt_jax.configs.config import ModelConfig
from mmt_jax.nn.blocks import dropout, layer_norm, linear, split
from mmt_jax.typing import Array

MATCH = 0  # index of "match" among the two logits, as in the release's snippet


def unit(x: Array) -> Array:
    """x / max(‖x‖, 1e-12), in float32: [..., E] → [..., E]."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-24))


class Pooler(nnx.Module):
    """ReLU(Linear(state)), ViLBERT's."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.dense = linear(config.width, config.pooled_dim, rngs)

    def __call__(self, state: Array) -> Array:
        """[..., D] → [..., E]."""
        return jax.nn.relu(self.dense(state))


class ProductScore(nnx.Module):
    """Logits of a pair, linear in the product of its two pooled vectors.

    Linear in the product means that a score is an inner product of two vectors of one item each:
    score = Σ_e w_e · text_e · image_e + bias, so N × M scores are one matrix product.
    """

    def __init__(self, config: ModelConfig, logits: int, rngs: nnx.Rngs):
        self.rate = config.dropout
        # A softmax over candidates cancels a bias: only the two-way classification has one.
        self.dense = linear(config.pooled_dim, logits, rngs, bias=logits == 2)

    def __call__(self, text: Array, image: Array, *, key: jax.Array | None) -> Array:
        """[P, E] and [P, E] → [P] score if one logit, else [P, 2] logits."""
        logits = self.dense(dropout(text * image, self.rate, key))
        return logits[..., 0] if logits.shape[-1] == 1 else logits

    def text(self, pooled: Array) -> Array:
        """[..., E] → what to multiply with `image` to get the score, up to a constant."""
        kernel = self.dense.kernel[...]
        if kernel.shape[-1] == 1:
            return pooled * kernel[:, 0]
        return pooled * (kernel[:, MATCH] - kernel[:, 1 - MATCH])

    def image(self, pooled: Array) -> Array:
        """[..., E] → the other factor."""
        return pooled


class DotScore(nnx.Module):
    """⟨text, image⟩ / √E: a dot product that starts at the same scale for every width."""

    def __call__(self, text: Array, image: Array, *, key: jax.Array | None) -> Array:
        """[P, E] and [P, E] → [P]."""
        del key
        return (self.text(text) * self.image(image)).sum(-1)

    def text(self, pooled: Array) -> Array:
        """As `ProductScore.text`."""
        return pooled * pooled.shape[-1] ** -0.5

    def image(self, pooled: Array) -> Array:
        """As `ProductScore.image`."""
        return pooled


class Calibration(nnx.Module):
    """Turns a contrastive score into a match probability: sigmoid(scale · score + bias).

    Platt (1999), fitted while training: its loss reaches these two parameters alone.
    """

    def __init__(self):
        self.scale = nnx.Param(jnp.ones(()))
        self.bias = nnx.Param(jnp.zeros(()))

    def __call__(self, score: Array) -> Array:
        """[...] → [..., 2] logits; no gradient reaches the score."""
        score = jax.lax.stop_gradient(score).astype(jnp.float32)
        match = self.scale[...] * score + self.bias[...]
        return jnp.stack([match, jnp.zeros_like(match)], axis=-1)


class WordHead(nnx.Module):
    """Logits over the vocabulary: Linear, GELU, LayerNorm, then the tied token table and a bias."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.dense = linear(config.width, config.width, rngs)
        self.norm = layer_norm(config, rngs)
        self.bias = nnx.Param(jnp.zeros(config.vocab_size))

    def __call__(self, states: Array, table: Array) -> Array:
        """[..., D] and the token table [V, D] → [..., V]."""
        x = self.norm(jax.nn.gelu(self.dense(states), approximate=False))
        return x @ table.T + self.bias[...]


class RegionHead(nnx.Module):
    """Detector classes of a region, and its features where the data has regions without classes."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.dense = linear(config.width, config.width, rngs)
        self.norm = layer_norm(config, rngs)
        self.out = linear(config.width, config.num_classes + config.regressed, rngs)

    def __call__(self, states: Array) -> Array:
        """[..., D] → [..., C], [..., F] or [..., C + F]: see `ModelConfig.regressed`."""
        return self.out(self.norm(jax.nn.gelu(self.dense(states), approximate=False)))


class AnswerHead(nnx.Module):
    """Logits over the answers of a task: Linear, GELU and LayerNorm, Linear.

    LayerNorm follows GELU in LXMERT and ViLBERT, and precedes it in BridgeTower.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        answers: int,
        rngs: nnx.Rngs,
        *,
        eps: float,
        norm_first: bool = False,
        dropout: float = 0.0,
    ):
        self.norm_first, self.rate = norm_first, dropout
        self.dense = linear(width, hidden, rngs)
        self.norm = nnx.LayerNorm(hidden, epsilon=eps, use_fast_variance=False, rngs=rngs)
        self.out = linear(hidden, answers, rngs)

    def __call__(self, pooled: Array, *, key: jax.Array | None = None) -> Array:
        """[..., E] → [..., A]; `key`: dropout of what is read."""
        x = self.dense(dropout(pooled, self.rate, key))
        if self.norm_first:
            return self.out(jax.nn.gelu(self.norm(x), approximate=False))
        return self.out(self.norm(jax.nn.gelu(x, approximate=False)))


class SentenceHead(nnx.Module):
    """BERT's pooler and RoBERTa's classification head: Linear and tanh, then Linear."""

    def __init__(self, width: int, answers: int, rngs: nnx.Rngs, *, dropout: float):
        self.rate = dropout
        self.dense = linear(width, width, rngs)
        self.out = linear(width, answers, rngs)

    def __call__(self, pooled: Array, *, key: jax.Array | None = None) -> Array:
        """[..., D] of the first token → [..., A]; `key`: dropout before both."""
        keys = split(key, 2)
        x = jnp.tanh(self.dense(dropout(pooled, self.rate, keys[0])))
        return self.out(dropout(x, self.rate, keys[1]))


class LinearHead(nnx.Module):
    """A linear map, CLIP's probe."""

    def __init__(self, width: int, answers: int, rngs: nnx.Rngs):
        self.out = linear(width, answers, rngs)

    def __call__(self, pooled: Array, *, key: jax.Array | None = None) -> Array:
        """[..., D] → [..., A]."""
        del key
        return self.out(pooled)
