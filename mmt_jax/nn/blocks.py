"""Attention of the two streams: which states each stream's queries read, layer by layer.

A layer is post-LN, as BERT's: attention, residual, LayerNorm; MLP, residual, LayerNorm. Keys and
values belong to the stream whose states they are made of, whoever reads them, so that a stream that
has read nothing of the other has keys and values that can be computed once per item.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from mmt_jax.configs.config import ModelConfig
from mmt_jax.errors import UsageError
from mmt_jax.typing import Array

STREAMS = ("text", "image")


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a layer's queries read, by stream. A stream that reads nothing passes through."""

    text: tuple[str, ...] = ()
    image: tuple[str, ...] = ()
    tied: bool = False  # both streams use one set of weights

    def reads(self, stream: str) -> tuple[str, ...]:
        """The streams that `stream` reads."""
        return self.text if stream == "text" else self.image

    def is_read(self, stream: str) -> bool:
        """Whether any stream reads `stream`."""
        return stream in self.text or stream in self.image

    @property
    def multimodal(self) -> bool:
        """Whether both streams take part."""
        return {*self.text, *self.image} == {*STREAMS}

    def needs_key_bias(self, stream: str) -> bool:
        """Whether a bias on the keys of `stream` can change any attention.

        It adds the same to each score that a query has with this stream: the softmax cancels it
        unless the query also reads keys with another bias.
        """
        return not self.tied and any(stream in r and len(r) > 1 for r in (self.text, self.image))


KINDS = {
    "text": Kind(text=("text",)),
    "image": Kind(image=("image",)),
    "single": Kind(text=("text",), image=("image",)),
    "merged": Kind(text=STREAMS, image=STREAMS),
    "coattention": Kind(text=("image",), image=("text",)),
    "language_query": Kind(text=STREAMS),
    "language_query_self": Kind(text=STREAMS, image=("image",)),
    "image_query": Kind(image=STREAMS),
    "image_query_self": Kind(image=STREAMS, text=("text",)),
    "single_stream": Kind(text=STREAMS, image=STREAMS, tied=True),
}


def kinds(layers: tuple[str, ...]) -> tuple[Kind, ...]:
    """The rows of KINDS that `layers` names.

    Raises:
      UsageError: a name is not in the table.
    """
    for name in layers:
        if name not in KINDS:
            raise UsageError(
                f"config.model.layers has {name!r}, which is no kind of layer; "
                f"there are {', '.join(KINDS)}"
            )
    return tuple(KINDS[name] for name in layers)


def dropout(x: Array, rate: float, key: jax.Array | None) -> Array:
    """Zeroes entries of `x` with probability `rate`, scales the others; `key` None = identity."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))


def split(key: jax.Array | None, num: int) -> list[jax.Array | None]:
    """`num` keys of `key`, or as many Nones."""
    return [None] * num if key is None else list(jax.random.split(key, num))


def layer_norm(config: ModelConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm over the model width with BERT's epsilon."""
    return nnx.LayerNorm(config.width, epsilon=1e-12, rngs=rngs)


def linear(in_dim: int, out_dim: int, rngs: nnx.Rngs, *, bias: bool = True) -> nnx.Linear:
    """A dense layer; `Model.init` draws its kernel."""
    init = nnx.initializers.zeros
    return nnx.Linear(in_dim, out_dim, use_bias=bias, kernel_init=init, rngs=rngs)


class Attention(nnx.Module):
    """Projections of one stream: keys and values if it is read, queries and output if it reads."""

    def __init__(self, config: ModelConfig, kind: Kind, stream: str, rngs: nnx.Rngs):
        inner = config.heads * config.head_dim
        self.heads = config.heads
        if kind.reads(stream):
            self.query = linear(config.width, inner, rngs)
            self.out = linear(inner, config.width, rngs)
        if kind.is_read(stream):
            self.key = linear(config.width, inner, rngs, bias=kind.needs_key_bias(stream))
            self.value = linear(config.width, inner, rngs)

    def _split(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], self.heads, -1)

    def keys_values(self, x: Array) -> tuple[Array, Array]:
        """[B, S, D] → keys and values, [B, S, N, H] each."""
        return self._split(self.key(x)), self._split(self.value(x))

    def weights(self, x: Array, keys: Array, mask: Array) -> Array:
        """With which weights `x` [B, S, D] reads keys [B, U, N, H] where True → [B, N, S, U] f32.

        `__call__` computes them inside; this is for looking at them.
        """
        queries = self._split(self.query(x))
        logits = jnp.einsum("bsnh,bunh->bnsu", queries, keys).astype(jnp.float32)
        logits *= queries.shape[-1] ** -0.5
        return jax.nn.softmax(logits, where=mask[:, None, None, :])

    def __call__(self, x: Array, keys: Array, values: Array, mask: Array) -> Array:
        """Queries of `x` [B, S, D] over keys, values [B, U, N, H] where `mask` [B, U] is True."""
        heads = jax.nn.dot_product_attention(
            self._split(self.query(x)), keys, values, mask=mask[:, None, None, :]
        )
        return self.out(heads.reshape(*x.shape[:-1], -1))


class StreamBlock(nnx.Module):
    """One layer's weights for one stream."""

    def __init__(self, config: ModelConfig, kind: Kind, stream: str, rngs: nnx.Rngs):
        self.rate = config.dropout
        self.attention = Attention(config, kind, stream, rngs)
        if kind.reads(stream):
            self.attention_norm = layer_norm(config, rngs)
            self.mlp_in = linear(config.width, config.mlp_dim, rngs)
            self.mlp_out = linear(config.mlp_dim, config.width, rngs)
            self.mlp_norm = layer_norm(config, rngs)

    def __call__(
        self, x: Array, keys: Array, values: Array, mask: Array, *, key: jax.Array | None
    ) -> Array:
        """States [B, S, D] after attention over `keys`, `values` and the MLP."""
        key_attention, key_mlp = split(key, 2)
        update = self.attention(x, keys, values, mask)
        x = self.attention_norm(x + dropout(update, self.rate, key_attention))
        update = self.mlp_out(jax.nn.gelu(self.mlp_in(x), approximate=False))
        return self.mlp_norm(x + dropout(update, self.rate, key_mlp))


class Layer(nnx.Module):
    """One layer of both streams; parts that no output depends on are not built."""

    def __init__(self, config: ModelConfig, kind: Kind, rngs: nnx.Rngs):
        self.kind = kind
        if kind.tied:
            self.shared = StreamBlock(config, kind, "text", rngs)
            return
        for stream in STREAMS:
            if kind.reads(stream) or kind.is_read(stream):
                setattr(self, stream, StreamBlock(config, kind, stream, rngs))

    def block(self, stream: str) -> StreamBlock:
        """The weights that `stream` uses."""
        return self.shared if self.kind.tied else getattr(self, stream)

    def keys_values(self, stream: str, x: Array) -> tuple[Array, Array]:
        """Keys and values of the states `x` [B, S, D] of `stream`."""
        return self.block(stream).attention.keys_values(x)

    def update(
        self,
        stream: str,
        x: Array,
        read: list[tuple[tuple[Array, Array], Array]],
        *,
        key: jax.Array | None,
    ) -> Array:
        """States of `stream` after one softmax over all of `read`: ((keys, values), mask) each."""
        keys = jnp.concatenate([kv[0] for kv, _ in read], axis=1)
        values = jnp.concatenate([kv[1] for kv, _ in read], axis=1)
        mask = jnp.concatenate([mask for _, mask in read], axis=1)
        return self.block(stream)(x, keys, values, mask, key=key)
