"""From states to scores, words, regions and answers; all of it float32."""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Float32

from mmt_jax.nn.primitives import LayerNorm, Linear, beside, dropout, gelu, matmul, split, unit
from mmt_jax.typing import Array, Key

MATCH = 0  # index of "match" among the two logits, as in the release's snippet
F32 = jnp.float32


class Pooler(nnx.Module):
    """ReLU(Linear(state)), ViLBERT's."""

    def __init__(self, width: int, out_dim: int):
        self.dense = Linear(width, out_dim)

    def __call__(self, state: Float[Array, "*b D"]) -> Float32[Array, "*b E"]:
        return jax.nn.relu(self.dense(state, dtype=F32))


class LinearPooler(Linear):
    """Linear(state), of the study's baselines."""

    def __call__(self, state: Float[Array, "*b D"]) -> Float32[Array, "*b E"]:
        return super().__call__(state, dtype=F32)


class DotScore(nnx.Module):
    """⟨text, image⟩ / √E: a dot product that starts at the same scale for every width."""

    def __call__(
        self, text: Float[Array, "P E"], image: Float[Array, "P E"], *, key: Key
    ) -> Float[Array, "P L"]:
        """[P, 1] scores or [P, 2] logits; `key` of dropout."""
        del key
        return (self.text(text) * self.image(image)).sum(-1, keepdims=True)

    def text(self, pooled: Float[Array, "*b E"]) -> Float[Array, "*b E"]:
        """What to multiply with `image` to get the score, up to a constant."""
        return pooled * pooled.shape[-1] ** -0.5

    def image(self, pooled: Float[Array, "*b E"]) -> Float[Array, "*b E"]:
        """The other factor."""
        return pooled


class ProductScore(DotScore):
    """Logits of a pair, linear in the product of its two pooled vectors.

    Linear in the product means that a score is an inner product of two vectors of one item each:
    score = Σ_e w_e · text_e · image_e + bias, so N × M scores are one matrix product.
    """

    def __init__(self, pooled_dim: int, logits: int, *, dropout: float):
        self.rate = dropout
        # A softmax over candidates cancels a bias: only the two-way classification has one.
        self.dense = Linear(pooled_dim, logits, bias=logits == 2)

    def __call__(
        self, text: Float[Array, "P E"], image: Float[Array, "P E"], *, key: Key
    ) -> Float[Array, "P L"]:
        return self.dense(dropout(text * image, self.rate, key))

    def text(self, pooled: Float[Array, "*b E"]) -> Float[Array, "*b E"]:
        kernel = self.dense.kernel[...]
        if kernel.shape[-1] == 1:
            return pooled * beside(kernel[:, 0], pooled)
        return pooled * beside(kernel[:, MATCH] - kernel[:, 1 - MATCH], pooled)


def capped(log_scale: Float32[Array, ""]) -> Float32[Array, ""]:
    """exp(log_scale), at most 100 (Radford et al., 2021, arXiv 2103.00020, section 2.5).

    Beyond that its gradient goes on, so that it can come back.
    """
    lower = jnp.minimum(log_scale, math.log(100.0))
    return jnp.exp(log_scale + jax.lax.stop_gradient(lower - log_scale))


class CosineScore(DotScore):
    """`capped(log_scale)` · cos(text, image), CLIP's; the scale starts at 1 / 0.07."""

    def __init__(self):
        self.log_scale = nnx.Param(jnp.asarray(-math.log(0.07)))

    def text(self, pooled: Float[Array, "*b E"]) -> Float32[Array, "*b E"]:
        return unit(pooled) * capped(self.log_scale[...])

    def image(self, pooled: Float[Array, "*b E"]) -> Float32[Array, "*b E"]:
        return unit(pooled)


class Calibration(nnx.Module):
    """Turns a contrastive score into a match probability: sigmoid(scale · score + bias).

    Platt (1999), fitted while training: its loss reaches these two parameters alone.
    """

    def __init__(self):
        self.scale = nnx.Param(jnp.ones(()))
        self.bias = nnx.Param(jnp.zeros(()))

    def __call__(self, score: Float[Array, "*P"]) -> Float32[Array, "*P 2"]:
        """Logits; no gradient reaches the score."""
        match = self.scale[...] * jax.lax.stop_gradient(score) + self.bias[...]
        return jnp.stack([match, jnp.zeros_like(match)], axis=-1)


def scored(
    out: Float32[Array, "*P L"], calibration: Calibration | None
) -> tuple[Float32[Array, "*P"], Float32[Array, "*P 2"]]:
    """Scores (higher = better match) and logits of [..., 2] logits, or of scores, calibrated."""
    if calibration is not None:
        return out[..., 0], calibration(out[..., 0])
    return out[..., MATCH] - out[..., 1 - MATCH], out


class WordHead(nnx.Module):
    """Logits over the vocabulary: Linear, GELU, LayerNorm, then a matrix and a bias."""

    def __init__(
        self,
        width: int,
        vocab_size: int,
        *,
        eps: float = 1e-12,
        table_width: int | None = None,
        tied: bool = True,
    ):
        """Reads states of `width`; tied, the matrix is the token table, of `table_width`."""
        inner = table_width or width
        self.dense = Linear(width, inner)
        self.norm = LayerNorm(inner, eps)
        self.decoder = None if tied else Linear(inner, vocab_size, bias=False)
        self.bias = nnx.Param(jnp.zeros(vocab_size))

    def __call__(
        self, states: Float[Array, "*S D"], table: Float[Array, "V W"]
    ) -> Float32[Array, "*S V"]:
        """`table`: of tokens, unread where not tied."""
        x = self.norm(gelu(self.dense(states)))
        matrix = table.T if self.decoder is None else self.decoder.kernel[...]
        logits = matmul(x, matrix, dtype=F32)
        return logits + beside(self.bias[...], logits)


class RegionHead(nnx.Module):
    """What a detector says of a region: Linear, GELU, LayerNorm, then a linear map for each part.

    Parts are "classes" and "attributes", whose logits are predicted, and "features".
    """

    def __init__(self, width: int, parts: Mapping[str, int], *, eps: float = 1e-12):
        """`parts`: numbers of outputs by name; parts of 0 are not built."""
        self.dense = Linear(width, width)
        self.norm = LayerNorm(width, eps)
        self.outs = nnx.Dict({name: Linear(width, dim) for name, dim in parts.items() if dim})

    def __call__(self, states: Float[Array, "*S D"], *parts: str) -> Float32[Array, "*S O"]:
        """Those of `parts` that there are, side by side."""
        x = self.norm(gelu(self.dense(states)))
        outs = [self.outs[name](x, dtype=F32) for name in parts if name in self.outs]
        return jnp.concatenate(outs, axis=-1)


class AnswerHead(nnx.Module):
    """Logits over the answers of a task: Linear, GELU and LayerNorm, Linear.

    LayerNorm follows GELU in LXMERT and ViLBERT, and precedes it in BridgeTower.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        answers: int,
        *,
        eps: float,
        norm_first: bool = False,
        dropout: float = 0.0,
    ):
        self.norm_first, self.rate = norm_first, dropout
        self.dense = Linear(width, hidden)
        self.norm = LayerNorm(hidden, eps)
        self.out = Linear(hidden, answers)

    def __call__(self, pooled: Float[Array, "*b E"], *, key: Key = None) -> Float32[Array, "*b A"]:
        """`key`: dropout of what is read."""
        x = self.dense(dropout(pooled, self.rate, key), dtype=F32)
        return self.out(gelu(self.norm(x)) if self.norm_first else self.norm(gelu(x)))


class SentenceHead(nnx.Module):
    """BERT's pooler and RoBERTa's classification head: Linear and tanh, then Linear."""

    def __init__(self, width: int, answers: int, *, dropout: float):
        self.rate = dropout
        self.dense = Linear(width, width)
        self.out = Linear(width, answers)

    def __call__(self, pooled: Float[Array, "*b D"], *, key: Key = None) -> Float32[Array, "*b A"]:
        """`pooled`: of the first token; `key`: dropout before both."""
        keys = split(key, 2)
        x = jnp.tanh(self.dense(dropout(pooled, self.rate, keys[0]), dtype=F32))
        return self.out(dropout(x, self.rate, keys[1]))


class LinearHead(nnx.Module):
    """A linear map, CLIP's probe."""

    def __init__(self, width: int, answers: int):
        self.out = Linear(width, answers)

    def __call__(self, pooled: Float[Array, "*b D"], *, key: Key = None) -> Float32[Array, "*b A"]:
        del key
        return self.out(pooled, dtype=F32)
