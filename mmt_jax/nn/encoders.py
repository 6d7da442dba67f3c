"""Encoders that other systems are built of: BERT's and RoBERTa's layers, CLIP's vision transformer.

One layer serves them all: attention and MLP, each added to its input, with the LayerNorm after the
sum (post-LN: BERT, Devlin et al. 2019; RoBERTa, Liu et al. 2019) or before the attention or MLP
(pre-LN: CLIP, Radford et al. 2021). Keys have their bias, though the softmax cancels it: parameters
are those of the published checkpoints, one for one.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from mmt_jax.nn.blocks import dropout, linear, split
from mmt_jax.typing import Array

KeysValues = tuple[Array, Array]  # [B, U, N, H] each

# Mean and deviation of red, green and blue, of the photos that CLIP was trained on.
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


def quick_gelu(x: Array) -> Array:
    """x · σ(1.702 x), CLIP's approximation of GELU."""
    return x * jax.nn.sigmoid(1.702 * x)


def gelu(x: Array) -> Array:
    """Exact GELU, by the error function."""
    return jax.nn.gelu(x, approximate=False)


ACTIVATIONS = {"gelu": gelu, "quick_gelu": quick_gelu, "relu": jax.nn.relu}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What the layers of one stack have in common."""

    width: int  # D
    heads: int  # N, divides the width
    mlp_dim: int
    eps: float = 1e-12  # of every LayerNorm
    dropout: float = 0.0
    activation: str = "gelu"  # a name in ACTIVATIONS
    pre_norm: bool = False
    sample_norm: bool = False  # `SampleNorm` in place of LayerNorm

    def norm(self, rngs: nnx.Rngs) -> nnx.LayerNorm | SampleNorm:
        """A new norm of the stack's kind."""
        kind = SampleNorm if self.sample_norm else layer_norm
        return kind(self.width, self.eps, rngs)


def layer_norm(width: int, eps: float, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm whose variance is not the difference of two means, which loses digits."""
    return nnx.LayerNorm(width, epsilon=eps, use_fast_variance=False, rngs=rngs)


class SampleNorm(nnx.Module):
    """scale · (x - mean) / (deviation + eps) + bias, with the deviation of a sample (D - 1).

    So normalises "The Annotated Transformer" (Rush, 2018), and what has been made after it.
    """

    def __init__(self, width: int, eps: float, rngs: nnx.Rngs):
        del rngs
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x: Array) -> Array:
        """[..., D] → [..., D]."""
        centred = x - x.mean(-1, keepdims=True)
        variance = jnp.square(centred).sum(-1, keepdims=True) / (x.shape[-1] - 1)
        deviation = jnp.sqrt(jnp.maximum(variance, 1e-24))  # the root has no gradient at 0
        return self.scale[...] * centred / (deviation + self.eps) + self.bias[...]


def table(rows: int, width: int, rngs: nnx.Rngs) -> nnx.Embed:
    """An embedding table; `Model.init` draws it."""
    return nnx.Embed(rows, width, embedding_init=nnx.initializers.zeros, rngs=rngs)


def lookup(table: nnx.Embed, ids: Array, *, frozen: int | None = None) -> Array:
    """Rows `ids` [...] of a table → [..., D]; no gradient reaches row `frozen` this way."""
    rows = jnp.take(table.embedding[...], ids, axis=0)
    if frozen is None:
        return rows
    return jnp.where((ids == frozen)[..., None], jax.lax.stop_gradient(rows), rows)


class Attention(nnx.Module):
    """Multi-head attention, its residual and its LayerNorm, to itself or to other states."""

    def __init__(self, sizes: Sizes, rngs: nnx.Rngs):
        self.heads, self.rate, self.pre_norm = sizes.heads, sizes.dropout, sizes.pre_norm
        self.query = linear(sizes.width, sizes.width, rngs)
        self.key = linear(sizes.width, sizes.width, rngs)
        self.value = linear(sizes.width, sizes.width, rngs)
        self.out = linear(sizes.width, sizes.width, rngs)
        self.norm = sizes.norm(rngs)

    def _split(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], self.heads, -1)

    def keys_values(self, x: Array) -> KeysValues:
        """[B, U, D] → keys and values, [B, U, N, H] each."""
        return self._split(self.key(x)), self._split(self.value(x))

    def weights(self, x: Array, keys: Array, mask: Array) -> Array:
        """Queries of `x` [B, S, D] over keys where `mask` is True → [B, N, S, U] f32.

        `mask` is [B, U], or [B, S, U] where queries read different keys. Without a real key, all
        weigh the same.
        """
        mask = mask[:, None, None] if mask.ndim == 2 else mask[:, None]
        queries = self._split(self.query(x))
        scale = queries.shape[-1] ** -0.5
        logits = jnp.einsum("bsnh,bunh->bnsu", queries * scale, keys).astype(jnp.float32)
        lowest = jnp.finfo(jnp.float32).min
        return jax.nn.softmax(jnp.where(mask, logits, lowest))

    def __call__(
        self,
        x: Array,
        mask: Array,
        *,
        read: KeysValues | None = None,
        key: jax.Array | None = None,
    ) -> Array:
        """States after attention.

        Args:
          x: [B, S, D].
          mask: [B, U] or [B, S, U] bool of what is read, True = real.
          read: keys and values of other states; None = of `x` itself.
          key: switches dropout on, of the attention weights and of the update.

        Returns:
          [B, S, D].
        """
        key_weights, key_update = split(key, 2)
        inner = self.norm(x) if self.pre_norm else x
        keys, values = self.keys_values(inner) if read is None else read
        weights = dropout(self.weights(inner, keys, mask), self.rate, key_weights)
        heads = jnp.einsum("bnsu,bunh->bsnh", weights.astype(values.dtype), values)
        x = x + dropout(self.out(heads.reshape(x.shape)), self.rate, key_update)
        return x if self.pre_norm else self.norm(x)


class Mlp(nnx.Module):
    """One hidden layer, its residual and its LayerNorm."""

    def __init__(self, sizes: Sizes, rngs: nnx.Rngs):
        self.activation = ACTIVATIONS[sizes.activation]
        self.rate, self.pre_norm = sizes.dropout, sizes.pre_norm
        self.hidden = linear(sizes.width, sizes.mlp_dim, rngs)
        self.out = linear(sizes.mlp_dim, sizes.width, rngs)
        self.norm = sizes.norm(rngs)

    def __call__(self, x: Array, *, key: jax.Array | None = None) -> Array:
        """[..., D] → [..., D]; `key` switches dropout on."""
        inner = self.norm(x) if self.pre_norm else x
        x = x + dropout(self.out(self.activation(self.hidden(inner))), self.rate, key)
        return x if self.pre_norm else self.norm(x)


class Layer(nnx.Module):
    """Attention to itself, then the MLP."""

    def __init__(self, sizes: Sizes, rngs: nnx.Rngs):
        self.attention = Attention(sizes, rngs)
        self.mlp = Mlp(sizes, rngs)

    def __call__(self, x: Array, mask: Array, *, key: jax.Array | None = None) -> Array:
        """[B, S, D] and [B, S] or [B, S, S] bool → [B, S, D]; `key` switches dropout on."""
        key_attention, key_mlp = split(key, 2)
        return self.mlp(self.attention(x, mask, key=key_attention), key=key_mlp)


def numbered(layers: nnx.Dict) -> list:
    """Entries "0", "1", … of a dict of layers, by number.

    Parameters pass through nested dicts, whose keys are sorted as text: "10" comes before "2".
    """
    return [layers[str(i)] for i in range(len(layers))]


class Stack(nnx.Module):
    """Layers one after the other."""

    def __init__(self, sizes: Sizes, depth: int, rngs: nnx.Rngs):
        self.layers = nnx.Dict({str(i): Layer(sizes, rngs) for i in range(depth)})

    def __call__(self, x: Array, mask: Array, *, key: jax.Array | None = None) -> list[Array]:
        """The states before the first layer and after each, [B, S, D]; `key`: dropout."""
        states = [x]
        for layer_key, layer in zip(split(key, len(self.layers)), numbered(self.layers)):
            states.append(layer(states[-1], mask, key=layer_key))
        return states


@dataclasses.dataclass(frozen=True)
class Tables:
    """The three tables of a text embedding.

    Row `pad_id` of those in `frozen` is never trained by a look-up, as in the published models,
    whose code declares it padding.
    """

    vocab_size: int
    positions: int  # rows
    segments: int
    pad_id: int = 0
    scheme: str = "absolute"  # or "roberta": tokens count from pad_id + 1, padding is at pad_id
    frozen: tuple[str, ...] = ("tokens",)

    @classmethod
    def roberta(cls, vocab_size: int, tokens: int, *, pad_id: int, segments: int = 1) -> Tables:
        """RoBERTa's, for captions of that many tokens."""
        rows, frozen = tokens + pad_id + 1, ("tokens", "positions")
        return cls(vocab_size, rows, segments, pad_id=pad_id, scheme="roberta", frozen=frozen)


class TokenEmbed(nnx.Module):
    """LayerNorm(token + position + segment), of BERT, RoBERTa and LXMERT."""

    def __init__(self, tables: Tables, sizes: Sizes, rngs: nnx.Rngs):
        self.tables, self.rate = tables, sizes.dropout
        self.tokens = table(tables.vocab_size, sizes.width, rngs)
        self.positions = table(tables.positions, sizes.width, rngs)
        self.segments = table(tables.segments, sizes.width, rngs)
        self.norm = layer_norm(sizes.width, sizes.eps, rngs)

    def __call__(
        self, token_ids: Array, segment_ids: Array, *, key: jax.Array | None = None
    ) -> Array:
        """[B, T] i32 twice → [B, T, D]; `key` switches dropout on.

        Which tokens RoBERTa's positions count is told by their ids alone, whatever the mask says.
        """
        if self.tables.scheme == "roberta":
            real = token_ids != self.tables.pad_id
            positions = jnp.cumsum(real, axis=1) * real + self.tables.pad_id
        else:
            positions = jnp.broadcast_to(jnp.arange(token_ids.shape[1]), token_ids.shape)
        x = self._rows("tokens", token_ids) + self._rows("segments", segment_ids)
        return dropout(self.norm(x + self._rows("positions", positions)), self.rate, key)

    def _rows(self, name: str, ids: Array) -> Array:
        frozen = self.tables.pad_id if name in self.tables.frozen else None
        return lookup(getattr(self, name), ids, frozen=frozen)


class TextEncoder(nnx.Module):
    """BERT or RoBERTa without its pooler."""

    def __init__(self, tables: Tables, sizes: Sizes, depth: int, rngs: nnx.Rngs):
        self.embed = TokenEmbed(tables, sizes, rngs)
        self.stack = Stack(sizes, depth, rngs)

    def __call__(
        self, token_ids: Array, segment_ids: Array, mask: Array, *, key: jax.Array | None = None
    ) -> list[Array]:
        """[B, T] i32 twice and bool → states after the embedding and each layer, [B, T, D]."""
        key_embed, key_stack = split(key, 2)
        x = self.embed(token_ids, segment_ids, key=key_embed)
        return self.stack(x, mask, key=key_stack)


class WordHead(nnx.Module):
    """Logits over the vocabulary: Linear, GELU, LayerNorm, then a matrix and a bias."""

    def __init__(
        self, width: int, vocab_size: int, eps: float, rngs: nnx.Rngs, *, tied: bool = True
    ):
        """Reads states of that width; tied, the matrix is the token table."""
        self.dense = linear(width, width, rngs)
        self.norm = layer_norm(width, eps, rngs)
        self.decoder = None if tied else linear(width, vocab_size, rngs, bias=False)
        self.bias = nnx.Param(jnp.zeros(vocab_size))

    def __call__(self, states: Array, table: Array) -> Array:
        """[..., D] and the token table [V, D], unread where not tied → [..., V]."""
        x = self.norm(gelu(self.dense(states)))
        return (x @ table.T if self.decoder is None else self.decoder(x)) + self.bias[...]


def cubic_weights(centres: Array, size: int) -> Array:
    """How much each of `size` cells in a row counts at given places: cubic convolution, a = -0.75.

    Keys (1981, eq. 4) with PyTorch's coefficient; places beyond the border read its cells again.
    On the centres of a row of n equal cells this is `interpolate(mode="bicubic")` from `size` to n
    cells, with neither aligned corners nor antialiasing.

    Args:
      centres: [...] f32 in 0..1, along the whole row.
      size: number of cells.

    Returns:
      [..., size] f32, summing to 1 over the last axis.
    """
    a = -0.75
    place = centres * size - 0.5
    first = jnp.floor(place)
    weights = jnp.zeros((*centres.shape, size), jnp.float32)
    for step in (-1, 0, 1, 2):
        x = jnp.abs(place - first - step)
        near = ((a + 2) * x - (a + 3)) * x**2 + 1
        far = a * (((x - 5) * x + 8) * x - 4)
        cell = jnp.clip(first + step, 0, size - 1).astype(jnp.int32)
        weights += jnp.where(x <= 1, near, far)[..., None] * jax.nn.one_hot(cell, size)
    return weights


def with_class(mask: Array) -> Array:
    """[B, P] of patches → [B, 1 + P]: the class in front is always real."""
    return jnp.concatenate([jnp.ones_like(mask[:, :1]), mask], axis=1)


class VisionEncoder(nnx.Module):
    """CLIP's vision transformer: class embedding, patches, positions, LayerNorm, layers, LayerNorm.

    Positions are a learned grid, read by bicubic interpolation at the centre of each patch, so that
    photos may have another size and shape than the grid.
    """

    def __init__(self, sizes: Sizes, depth: int, *, patch_dim: int, grid: int, rngs: nnx.Rngs):
        """A stack of `depth` layers over patches of `patch_dim` values and `grid`² positions."""
        self.grid = grid
        self.patches = linear(patch_dim, sizes.width, rngs, bias=False)
        self.cls = table(1, sizes.width, rngs)
        self.positions = table(1 + grid**2, sizes.width, rngs)  # the class comes first
        self.first_norm = layer_norm(sizes.width, sizes.eps, rngs)
        self.stack = Stack(sizes, depth, rngs)
        self.last_norm = layer_norm(sizes.width, sizes.eps, rngs)

    def embed(self, patches: Array, boxes: Array) -> Array:
        """[B, P, F] and [B, P, 5] (ymin, xmin, ymax, xmax, area) → [B, 1 + P, D]."""
        pixels = patches.reshape(*patches.shape[:-1], -1, 3)
        patches = (pixels - jnp.asarray(PIXEL_MEAN)) / jnp.asarray(PIXEL_STD)
        rows = cubic_weights((boxes[..., 0] + boxes[..., 2]) / 2, self.grid)
        columns = cubic_weights((boxes[..., 1] + boxes[..., 3]) / 2, self.grid)
        positions = self.positions.embedding[...]
        cells = positions[1:].reshape(self.grid, self.grid, -1)
        dtype, exact = positions.dtype, jax.lax.Precision.HIGHEST
        at_patch = jnp.einsum(
            "bpi,bpj,ijd->bpd", rows.astype(dtype), columns.astype(dtype), cells, precision=exact
        )
        x = self.patches(patches.reshape(*pixels.shape[:-2], -1).astype(dtype)) + at_patch
        cls = jnp.broadcast_to(self.cls.embedding[...] + positions[0], (x.shape[0], 1, x.shape[-1]))
        return self.first_norm(jnp.concatenate([cls, x], axis=1))

    def __call__(
        self, patches: Array, boxes: Array, mask: Array, *, key: jax.Array | None = None
    ) -> list[Array]:
        """States after the embedding and each layer, without the last LayerNorm.

        Args:
          patches: [B, P, F] f32: pixels of each patch, row by row; red, green and blue in 0..1.
          boxes: [B, P, 5] f32: ymin, xmin, ymax, xmax in 0..1, then area.
          mask: [B, 1 + P] bool, True = real; the class comes first.
          key: switches dropout on.

        Returns:
          [B, 1 + P, D] each.
        """
        return self.stack(self.embed(patches, boxes), mask, key=key)
