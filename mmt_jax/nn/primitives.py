"""What layers are built of: products, norms, tables and dropout.

Parameters are float32. A module computes in the dtype of the states that it is given: embeddings
begin in `Config.dtype` and everything after follows. Norms, softmaxes and what a head puts out are
float32 whatever that is. Modules create zeros (scales: ones); `Model.init` draws the values.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Float32, Int

from mmt_jax.typing import Array, Key


def matmul(
    x: Float[Array, "*b I"], matrix: Float[Array, "I O"], *, dtype: Any = None
) -> Float[Array, "*b O"]:
    """In `dtype` (None = that of x); multiplied in the dtype of x and added up in float32."""
    dtype = dtype or x.dtype
    exact = None
    if x.dtype == jnp.bfloat16 and dtype == jnp.float32:
        exact = jax.lax.DotAlgorithmPreset.BF16_BF16_F32  # in the gradient as well
    axes = (((x.ndim - 1,), (0,)), ((), ()))
    matrix = matrix.astype(x.dtype)
    return jax.lax.dot_general(x, matrix, axes, precision=exact, preferred_element_type=dtype)


def beside(row: Float[Array, " D"], x: Float[Array, "*b D"]) -> Float[Array, "*b D"]:
    """The same at each place of x: ranks are never made equal unasked."""
    return jnp.broadcast_to(row, x.shape)


class Linear(nnx.Module):
    """x · kernel + bias."""

    def __init__(self, in_dim: int, out_dim: int, *, bias: bool = True):
        self.kernel = nnx.Param(jnp.zeros((in_dim, out_dim)))
        self.bias = nnx.Param(jnp.zeros(out_dim)) if bias else None

    def __call__(self, x: Float[Array, "*b I"], *, dtype: Any = None) -> Float[Array, "*b O"]:
        """In `dtype`; None = that of x."""
        y = matmul(x, self.kernel[...], dtype=dtype)
        return y if self.bias is None else y + beside(self.bias[...], y).astype(y.dtype)


class LayerNorm(nnx.Module):
    """scale · (x - mean) / √(variance + eps) + bias over the last axis."""

    def __init__(self, width: int, eps: float):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x: Float[Array, "*b D"]) -> Float[Array, "*b D"]:
        centred = x.astype(jnp.float32)
        centred = centred - centred.mean(-1, keepdims=True)
        scaled = self._unit(centred) * beside(self.scale[...], x)
        return (scaled + beside(self.bias[...], x)).astype(x.dtype)

    def _unit(self, centred: Array) -> Array:
        variance = jnp.square(centred).mean(-1, keepdims=True)
        return centred * jax.lax.rsqrt(variance + self.eps)


class SampleNorm(LayerNorm):
    """scale · (x - mean) / (deviation + eps) + bias, with the deviation of a sample (D - 1).

    So normalises "The Annotated Transformer" (Rush, 2018), and what has been made after it.
    """

    def _unit(self, centred: Array) -> Array:
        variance = jnp.square(centred).sum(-1, keepdims=True) / (centred.shape[-1] - 1)
        return centred / (jnp.sqrt(jnp.maximum(variance, 1e-24)) + self.eps)  # √ has no slope at 0


def even_out(features: Float[Array, "*b F"]) -> Float[Array, "*b F"]:
    """Signed square roots, standardised over the features of a region; zeros stay zeros.

    Spatial means of rectified activations are skewed, and their size says more of contrast and
    box than of content: a linear layer learns from them slowly as they are.
    """
    roots = features * jax.lax.rsqrt(jnp.abs(features) + 1e-4)  # smooth at 0
    centred = roots - roots.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-6)


class Table(nnx.Module):
    """Rows of embeddings."""

    def __init__(self, rows: int, width: int):
        self.embedding = nnx.Param(jnp.zeros((rows, width)))

    def __call__(
        self, ids: Int[Array, "*b"], *, frozen: int | None = None
    ) -> Float32[Array, "*b D"]:
        """Rows `ids`; no gradient reaches row `frozen` this way."""
        rows = jnp.take(self.embedding[...], ids, axis=0)
        if frozen is None:
            return rows
        return jnp.where((ids == frozen)[..., None], jax.lax.stop_gradient(rows), rows)


def dropout(x: Float[Array, "*b"], rate: float, key: Key) -> Float[Array, "*b"]:
    """Zeroes entries of `x` with probability `rate`, scales the others; `key` None = identity."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))


def dropout_features(
    features: Float[Array, "B R F"], rate: float, key: Key
) -> Float[Array, "B R F"]:
    """Dropout of the same features of all regions of a photo; `key` None = identity."""
    if key is None or rate == 0.0:
        return features
    return features * dropout(jnp.ones_like(features[:, :1]), rate, key)


def average(states: Float[Array, "B S D"], mask: Bool[Array, "B S"]) -> Float32[Array, "B D"]:
    """The mean over real elements; 0 where none is."""
    states = states.astype(jnp.float32)
    weights = mask[..., None].astype(jnp.float32)
    return (states * weights).sum(axis=1) / jnp.maximum(weights.sum(axis=1), 1)


def split(key: Key, num: int) -> list[Key]:
    """`num` keys of `key`, or as many Nones."""
    return [None] * num if key is None else list(jax.random.split(key, num))


def unit(x: Float[Array, "*b E"]) -> Float32[Array, "*b E"]:
    """x / max(‖x‖, 1e-12)."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-24))


def gelu(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Exact GELU, by the error function."""
    return jax.nn.gelu(x, approximate=False)


def quick_gelu(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """x · σ(1.702 x), CLIP's approximation of GELU."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS = {"gelu": gelu, "quick_gelu": quick_gelu, "relu": jax.nn.relu}
