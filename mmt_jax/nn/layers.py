"""Attention, MLP and the layer they make, of every family.

The LayerNorm stands after the sum with the input (post-LN: BERT, Devlin et al. 2019) or before the
attention or MLP (pre-LN: CLIP, Radford et al. 2021).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Float32

from mmt_jax.nn import trace
from mmt_jax.nn.primitives import ACTIVATIONS, LayerNorm, Linear, SampleNorm, dropout, split
from mmt_jax.typing import Array, Key, KeysValues

# Of what is read, or of that by reader; True = real.
Mask = Bool[Array, "B _"] | Bool[Array, "B _ _"]
Read = tuple[KeysValues, Mask]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What the layers of one stack have in common."""

    width: int  # D
    heads: int  # N
    mlp_dim: int
    head_dim: int | None = None  # H; None = width / heads
    eps: float = 1e-12  # of every norm
    dropout: float = 0.0
    attention_dropout: float = 0.0  # of the attention weights
    activation: str = "gelu"  # a name in `primitives.ACTIVATIONS`
    pre_norm: bool = False
    sample_norm: bool = False  # `SampleNorm` in place of LayerNorm
    attention: str = "auto"  # `Config.attention`
    remat: bool = False  # compute a layer again for its gradient, rather than keep what is inside

    def norm(self) -> LayerNorm:
        """A new norm of the stack's kind."""
        return (SampleNorm if self.sample_norm else LayerNorm)(self.width, self.eps)


class Attention(nnx.Module):
    """Multi-head attention to any states, with its residual and norm.

    Keys and values belong to the module of the states that they are made of, whoever reads them:
    a module of states that are read by others alone has no queries, and the other way round.
    """

    def __init__(
        self, sizes: Sizes, *, reads: bool = True, is_read: bool = True, key_bias: bool = True
    ):
        head_dim = sizes.head_dim or sizes.width // sizes.heads
        inner = sizes.heads * head_dim
        self.heads, self.pre_norm = sizes.heads, sizes.pre_norm
        self.implementation = sizes.attention
        self.rate, self.weights_rate = sizes.dropout, sizes.attention_dropout
        if reads:
            self.query = Linear(sizes.width, inner)
            self.out = Linear(inner, sizes.width)
            self.norm = sizes.norm()
        if is_read:
            self.key = Linear(sizes.width, inner, bias=key_bias)
            self.value = Linear(sizes.width, inner)

    def _split(self, x: Float[Array, "B S NH"]) -> Float[Array, "B S N H"]:
        return x.reshape(*x.shape[:-1], self.heads, -1)

    def keys_values(self, x: Float[Array, "B U D"]) -> KeysValues:
        """Keys and values of states."""
        return self._split(self.key(x)), self._split(self.value(x))

    @staticmethod
    def _weights(
        queries: Float[Array, "B S N H"], keys: Float[Array, "B U N H"], mask: Mask
    ) -> Float32[Array, "B N S U"]:
        """Without a real key, all weigh the same."""
        scale = queries.shape[-1] ** -0.5
        logits = jnp.einsum("bsnh,bunh->bnsu", queries, keys, preferred_element_type=jnp.float32)
        lowest = jnp.finfo(jnp.float32).min
        return jax.nn.softmax(jnp.where(_over_heads(mask), logits * scale, lowest))

    def __call__(
        self, x: Float[Array, "B S D"], read: Sequence[Read] | Mask, *, key: Key = None
    ) -> Float[Array, "B S D"]:
        """States after attention.

        `read` has keys and values of all that is read, and their masks, under one softmax; or it is
        the mask of `x` itself, which then is what is read.
        """
        key_weights, key_update = split(key, 2)
        inner = self.norm(x) if self.pre_norm else x
        if not isinstance(read, Sequence):
            read = [(self.keys_values(inner), read)]
        keys, values, mask = (
            parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=axis)
            for parts, axis in (
                ([keys for (keys, _), _ in read], 1),
                ([values for (_, values), _ in read], 1),
                ([mask for _, mask in read], -1),
            )
        )
        queries = self._split(self.query(inner))
        trace.attention(lambda: self._weights(queries, keys, mask))
        update = self._attend(queries, keys, values, mask, key_weights)
        update = self.out(update.reshape(*x.shape[:-1], -1))
        x = x + dropout(update, self.rate, key_update)
        return x if self.pre_norm else self.norm(x)

    def _attend(
        self,
        queries: Float[Array, "B S N H"],
        keys: Float[Array, "B U N H"],
        values: Float[Array, "B U N H"],
        mask: Mask,
        key: Key,
    ) -> Float[Array, "B S N H"]:
        if key is not None and self.weights_rate:  # which jax's function cannot drop
            weights = dropout(self._weights(queries, keys, mask), self.weights_rate, key)
            return jnp.einsum("bnsu,bunh->bsnh", weights.astype(values.dtype), values)
        # Weights that learned with it answer elsewhere too, and in float32, which it cannot do.
        gpu = jax.default_backend() == "gpu"
        if self.implementation == "cudnn" and gpu and queries.dtype != jnp.float32:
            return _by_cudnn(queries, keys, values, _over_heads(mask))
        implementation: Any = "xla" if self.implementation == "xla" else None
        with jax.numpy_dtype_promotion("standard"):  # jax's function relies on it in 16 bits
            return jax.nn.dot_product_attention(
                queries, keys, values, mask=_over_heads(mask), implementation=implementation
            )


def _by_cudnn(
    queries: Float[Array, "B S N H"],
    keys: Float[Array, "B U N H"],
    values: Float[Array, "B U N H"],
    mask: Bool[Array, "B 1 _ U"],
) -> Float[Array, "B S N H"]:
    """As `jax.nn.dot_product_attention`; cuDNN wants a row of the mask a query, and even lengths.

    A query more repeats the last one's mask and is cut off again; a key more is padding.
    """
    batch, length, num_keys = len(queries), queries.shape[1], keys.shape[1]
    mask = jnp.broadcast_to(mask, (batch, 1, length, num_keys))
    mask = jnp.pad(mask, ((0, 0), (0, 0), (0, length % 2), (0, 0)), mode="edge")
    mask = jnp.pad(mask, ((0, 0), (0, 0), (0, 0), (0, num_keys % 2)))
    queries, keys, values = (
        jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (queries, keys, values)
    )
    with jax.numpy_dtype_promotion("standard"):
        found = jax.nn.dot_product_attention(
            queries, keys, values, mask=mask, implementation="cudnn"
        )
    return found[:, :length]


def _over_heads(mask: Mask) -> Bool[Array, "B 1 _ _"]:
    return mask[:, None, None] if mask.ndim == 2 else mask[:, None]


class Mlp(nnx.Module):
    """One hidden layer, its residual and its norm."""

    def __init__(self, sizes: Sizes):
        self.activation = ACTIVATIONS[sizes.activation]
        self.rate, self.pre_norm = sizes.dropout, sizes.pre_norm
        self.hidden = Linear(sizes.width, sizes.mlp_dim)
        self.out = Linear(sizes.mlp_dim, sizes.width)
        self.norm = sizes.norm()

    def __call__(self, x: Float[Array, "*b D"], *, key: Key = None) -> Float[Array, "*b D"]:
        inner = self.norm(x) if self.pre_norm else x
        x = x + dropout(self.out(self.activation(self.hidden(inner))), self.rate, key)
        return x if self.pre_norm else self.norm(x)


class Layer(nnx.Module):
    """Attention, then the MLP; without either where its states are only read by others."""

    def __init__(
        self, sizes: Sizes, *, reads: bool = True, is_read: bool = True, key_bias: bool = True
    ):
        self.attention = Attention(sizes, reads=reads, is_read=is_read, key_bias=key_bias)
        if reads:
            self.mlp = Mlp(sizes)

    def __call__(
        self, x: Float[Array, "B S D"], read: Sequence[Read] | Mask, *, key: Key = None
    ) -> Float[Array, "B S D"]:
        """Arguments as of `Attention`."""
        key_attention, key_mlp = split(key, 2)
        return trace.states(self.mlp(self.attention(x, read, key=key_attention), key=key_mlp))


def numbered(layers: Mapping[str, Any]) -> list[Any]:
    """Entries "0", "1", … of a dict of layers, by number.

    Parameters pass through nested dicts, whose keys are sorted as text: "10" comes before "2".
    """
    return [layers[str(i)] for i in range(len(layers))]


class Stack(nnx.Module):
    """Layers one after the other; a last norm if asked for, where norms stand in front."""

    def __init__(self, sizes: Sizes, depth: int, *, last_norm: bool = False):
        self.remat = sizes.remat
        self.layers = nnx.Dict({str(i): Layer(sizes) for i in range(depth)})
        self.last_norm = sizes.norm() if last_norm else None

    def __call__(
        self, x: Float[Array, "B S D"], mask: Mask, *, key: Key = None
    ) -> list[Float[Array, "B S D"]]:
        """States before the first layer, after each, and after the last norm."""
        states = [trace.states(x)]
        for layer_key, layer in zip(split(key, len(self.layers)), numbered(self.layers)):
            states.append(recomputed(layer, self.remat)(states[-1], mask, key=layer_key))
        if self.last_norm is not None:
            states.append(trace.states(self.last_norm(states[-1])))
        return states


def recomputed(function: Callable[..., Any], remat: bool) -> Callable[..., Any]:
    """`function`, computed again for its gradient in place of being kept if `remat`."""
    return jax.checkpoint(function) if remat else function
