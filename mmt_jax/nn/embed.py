"""From tokens to states."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int

from mmt_jax.nn.layers import Sizes, Stack
from mmt_jax.nn.primitives import LayerNorm, Table, dropout, split
from mmt_jax.typing import Array, Image, Key, Text


@dataclasses.dataclass(frozen=True)
class Tables:
    """The three tables of a text embedding.

    Positions count from 0 from the first slot ("absolute", BERT's), from `pad_id` + 1 from the
    first token that is no padding, which itself is at `pad_id` ("roberta"), or real tokens from 0,
    so that how much padding stands in front changes nothing ("real", the study's, where tokens
    beyond the last position share it; the others' are never longer than their tables). Row `pad_id`
    of the tables in `frozen` is never trained by a look-up, as in the published models, whose code
    declares it padding.
    """

    vocab_size: int
    positions: int  # rows
    segments: int
    pad_id: int = 0
    scheme: str = "absolute"
    frozen: tuple[str, ...] = ("tokens",)

    @classmethod
    def roberta(cls, vocab_size: int, tokens: int, *, pad_id: int, segments: int = 1) -> Tables:
        """RoBERTa's, for captions of that many tokens."""
        rows, frozen = tokens + pad_id + 1, ("tokens", "positions")
        return cls(vocab_size, rows, segments, pad_id=pad_id, scheme="roberta", frozen=frozen)


class TokenEmbed(nnx.Module):
    """LayerNorm(token + position + segment)."""

    def __init__(self, tables: Tables, sizes: Sizes, *, dtype: str):
        self.tables, self.rate, self.dtype = tables, sizes.dropout, dtype
        self.tokens = Table(tables.vocab_size, sizes.width)
        self.positions = Table(tables.positions, sizes.width)
        self.segments = Table(tables.segments, sizes.width)
        self.norm = LayerNorm(sizes.width, sizes.eps)

    def __call__(self, text: Text, *, key: Key = None) -> Float[Array, "B T D"]:
        ids = text.token_ids
        if self.tables.scheme == "roberta":  # tells padding by the ids alone
            real = ids != self.tables.pad_id
            positions = jnp.where(real, jnp.cumsum(real, axis=1), 0) + self.tables.pad_id
        elif self.tables.scheme == "real":
            positions = jnp.clip(jnp.cumsum(text.mask, axis=1) - 1, 0, self.tables.positions - 1)
        else:
            positions = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
        x = self._rows("tokens", ids) + self._rows("segments", text.segment_ids)
        x = self.norm(x + self._rows("positions", positions))
        return dropout(x.astype(self.dtype), self.rate, key)

    def _rows(self, name: str, ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        frozen = self.tables.pad_id if name in self.tables.frozen else None
        return getattr(self, name)(ids, frozen=frozen)


class Encoder(nnx.Module):
    """An embedding of captions or photos, and layers over it."""

    def __init__(self, embed: Any, stack: Stack):
        self.embed, self.stack = embed, stack

    def __call__(self, item: Text | Image, *, key: Key = None) -> list[Float[Array, "B S D"]]:
        """States after the embedding and each layer."""
        key_embed, key_stack = split(key, 2)
        return self.stack(self.embed(item, key=key_embed), item.mask, key=key_stack)


class TextEncoder(Encoder):
    """BERT or RoBERTa without its pooler."""

    def __init__(self, tables: Tables, sizes: Sizes, depth: int, *, dtype: str):
        super().__init__(TokenEmbed(tables, sizes, dtype=dtype), Stack(sizes, depth))
