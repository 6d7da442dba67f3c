"""Scores of every caption with every photo: each item is encoded once, each pair is fused once.

Items are sorted by length and cut into chunks, and a chunk is cut to its own longest item, so that
little padding is computed and few shapes are compiled. Caption chunks stay encoded on the device;
photos pass by, chunk after chunk, and meet them all.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmt_jax import placement
from mmt_jax.models.base import Encoded, Model, take
from mmt_jax.progress import Counter
from mmt_jax.typing import Array, Image, Params, Text

_BUCKET = 8  # lengths are rounded up to a multiple: a shape that is new must be compiled
_EMBEDDED = 256  # items embedded at once


def score_matrix(
    model: Model,
    params: Params,
    texts: Text,
    images: Image,
    *,
    pairs: int = 1024,
    progress: bool = False,
) -> np.ndarray:
    """Scores each of M captions with each of N photos.

    Computed in float32 whatever the config's dtype is, for bfloat16 would tie most scores. On the
    mesh of `params`, the pairs are spread over all devices. Functions are compiled once for each
    model and shape and serve later calls with other parameters.

    Args:
      model: scores pairs. A separable one takes one matrix product of embeddings, and so does one
        that has embeddings and no match head.
      params: its parameters.
      texts: M captions, numpy.
      images: N photos, numpy; class distributions are ignored.
      pairs: how many are fused at once, about; bounds the memory.
      progress: show a line on stderr while it takes more than a few seconds.

    Returns:
      [M, N] f32, higher = better match.

    """
    model = _in_float32(model)
    images = _unlabelled(images)
    params, whole, spread = placement.of(params)
    if model.separable or model.config.objective.itm == "none":
        return embed(model, params, texts) @ embed(model, params, images).T
    return pairwise(
        texts,
        images,
        text_mask=texts.mask,
        image_mask=images.mask,
        encode_text=lambda rows: _encode_text(model, params, placement.put(rows, spread)),
        encode_image=lambda rows: _encode_image(model, params, placement.put(rows, whole)),
        score=lambda text, image: jax.device_put(_fuse(model, params, text, image), whole),
        pairs=pairs,
        multiple=spread.num_devices,
        progress=progress,
    )


def rerank(
    model: Model,
    params: Params,
    texts: Text,
    images: Image,
    *,
    top: int,
    pairs: int = 1024,
    progress: bool = False,
) -> np.ndarray:
    """Scores the pairs that embeddings rank best, for models that embed and score jointly.

    A pair is scored if the photo is among the `top` of the caption or the caption among the `top`
    of the photo, and its score serves both directions (ALBEF, Li et al., 2021, arXiv 2107.07651;
    BridgeTower, Xu et al., 2023, arXiv 2206.08657).

    Args:
      model: one that has embeddings.
      params: its parameters.
      texts: M captions, numpy.
      images: N photos, numpy; class distributions are ignored.
      top: pairs that are kept of each caption and of each photo.
      pairs: the most that are fused at once.
      progress: show a line on stderr while it takes more than a few seconds.

    Returns:
      [M, N] f32, higher = better match; -inf where a pair is not scored.
    """
    chosen = _best(embed(model, params, texts) @ embed(model, params, images).T, top)
    model = _in_float32(model)
    images = _unlabelled(images)
    params, whole, spread = placement.of(params)
    scores = np.full(chosen.shape, -np.inf, np.float32)
    side = min(chosen.shape[1], math.isqrt(max(pairs, 1)))
    captions = [
        (chunk, _encode_text(model, params, placement.put(chunk.take(texts), whole)))
        for chunk in _chunks(texts.mask, max(1, pairs // side))
    ]
    with Counter("pairs", int(chosen.sum()), shown=progress) as counter:
        for photos in _chunks(images.mask, side):
            encoded = _encode_image(model, params, placement.put(photos.take(images), whole))
            places, blocks = [], []
            for chunk, text in captions:
                rows = np.nonzero(chosen[np.ix_(chunk.index, photos.index)])
                if len(rows[0]):
                    places.append((chunk.index[rows[0]], photos.index[rows[1]]))
                    rows = placement.put(_filled(rows, spread.num_devices), spread)
                    blocks.append(_fuse_rows(model, params, text, encoded, *rows))
            for place, block in zip(places, jax.device_get(blocks), strict=True):
                scores[place] = block[: len(place[0])]
            counter.add(sum(len(place[0]) for place in places))
    return scores


def _best(scores: np.ndarray, top: int) -> np.ndarray:
    """[M, N] bool: whether a score is among the `top` of its row or of its column."""
    chosen = np.zeros(scores.shape, bool)
    for axis in (0, 1):
        kept = min(top, scores.shape[axis])
        rows = np.take(np.argpartition(-scores, kept - 1, axis=axis), range(kept), axis=axis)
        np.put_along_axis(chosen, rows, True, axis=axis)
    return chosen


def _filled(rows: tuple[np.ndarray, ...], multiple: int) -> list[np.ndarray]:
    """Row numbers, the last repeated up to one of few lengths: a new length must be compiled."""
    size = multiple * math.ceil((1 << (len(rows[0]) - 1).bit_length()) / multiple)
    return [np.pad(row, (0, size - len(row)), mode="edge") for row in rows]


def embed(model: Model, params: Params, items: Text | Image) -> np.ndarray:
    """Embeddings whose inner products rank pairs; see `Model`.

    Computed in float32, on the mesh of `params`, as `score_matrix` does.

    Args:
      model: one that has embeddings.
      params: its parameters.
      items: n captions or n photos, numpy; class distributions are ignored.

    Returns:
      [n, E] f32.
    """
    model = _in_float32(model)
    params, whole, spread = placement.of(params)
    if isinstance(items, Text):
        function = _embed_text
    else:
        function = _embed_image
        items = _unlabelled(items)
    chunks = list(_chunks(items.mask, _EMBEDDED, spread.num_devices))
    rows = [function(model, params, placement.put(c.take(items), spread)) for c in chunks]
    rows = jax.device_get(jax.device_put(rows, whole))
    out = np.empty((len(items.mask), rows[0].shape[1]), np.float32)
    for chunk, row in zip(chunks, rows, strict=True):
        out[chunk.index] = row[: len(chunk.index)]
    return out


def _unlabelled(images: Image) -> Image:
    """What a model reads of photos."""
    return Image(images.features, images.boxes, images.mask)


def pairwise(
    texts: Any,
    images: Any,
    *,
    text_mask: np.ndarray,
    image_mask: np.ndarray,
    encode_text: Callable[[Any], Any],
    encode_image: Callable[[Any], Any],
    score: Callable[[Any, Any], Array],
    pairs: int,
    multiple: int = 1,
    progress: bool = False,
) -> np.ndarray:
    """The blocks of a score matrix, whatever the scorer is.

    Args:
      texts: tree of numpy arrays [M, T, ...]; all padding is in front, or all is behind.
      images: tree of numpy arrays [N, R, ...]; likewise.
      text_mask: [M, T] bool, True = real.
      image_mask: [N, R] bool.
      encode_text: called once for each chunk of captions; the results are kept.
      encode_image: called once for each chunk of photos.
      score: encoded chunks of A captions and B photos → [A, B].
      pairs: A · B, about.
      multiple: divides A.
      progress: show a line on stderr while it takes more than a few seconds.

    Returns:
      [M, N] f32.

    """
    num_texts, num_images = len(text_mask), len(image_mask)
    scores = np.empty((num_texts, num_images), np.float32)
    side = min(num_images, math.isqrt(max(pairs, 1)))
    captions = [
        (chunk, encode_text(chunk.take(texts)))
        for chunk in _chunks(text_mask, max(1, pairs // side), multiple)
    ]
    with Counter("pairs", scores.size, shown=progress) as counter:
        for photos in _chunks(image_mask, side):
            encoded = encode_image(photos.take(images))
            # Asked for all at once, blocks are computed while later ones are still being sent off.
            blocks = jax.device_get([score(text, encoded) for _, text in captions])
            for (chunk, _), block in zip(captions, blocks, strict=True):
                block = block[: len(chunk.index), : len(photos.index)]
                scores[np.ix_(chunk.index, photos.index)] = block
            counter.add(num_texts * len(photos.index))
    return scores


@dataclasses.dataclass(frozen=True)
class _Chunk:
    """Items of similar length."""

    index: np.ndarray  # [n] which items
    size: int  # ≥ n, the same for each chunk
    kept: slice  # of tokens or regions: the others are padding in every item

    def take(self, items: Any) -> Any:
        """[size, kept, ...] of each leaf; the last item fills the places that are left."""
        rows = np.pad(self.index, (0, self.size - len(self.index)), mode="edge")
        return jax.tree.map(lambda leaf: leaf[rows, self.kept], items)


def _chunks(mask: np.ndarray, size: int, multiple: int = 1) -> Iterator[_Chunk]:
    """Cuts items with `mask` [n, S] into the fewest chunks of at most `size`, shortest first.

    Chunks are made equal, rounded up to `multiple`, so that few places are left over.
    """
    slots, behind = mask.shape[1], bool(mask[:, 0].all())
    lengths = slots - (mask[:, ::-1] if behind else mask).argmax(axis=1)
    order = np.argsort(lengths, kind="stable")
    size = math.ceil(len(order) / math.ceil(len(order) / size))
    size = multiple * math.ceil(size / multiple)
    for start in range(0, len(order), size):
        index = order[start : start + size]
        length = min(slots, _BUCKET * math.ceil(lengths[index[-1]] / _BUCKET))
        yield _Chunk(index, size, slice(length) if behind else slice(slots - length, None))


def _in_float32(model: Model) -> Model:
    return dataclasses.replace(model, config=dataclasses.replace(model.config, dtype="float32"))


@functools.partial(jax.jit, static_argnums=0)
def _encode_text(model: Model, params: Params, texts: Text) -> Encoded:
    return model.encode_text(params, texts)


@functools.partial(jax.jit, static_argnums=0)
def _encode_image(model: Model, params: Params, images: Image) -> Encoded:
    return model.encode_image(params, images)


@functools.partial(jax.jit, static_argnums=0)
def _fuse(model: Model, params: Params, text: Encoded, image: Encoded) -> Array:
    """A captions, B photos → scores [A, B]."""
    a, b = text.mask.shape[0], image.mask.shape[0]
    text = jax.tree.map(lambda leaf: jnp.repeat(leaf, b, axis=0), text)
    image = jax.tree.map(lambda leaf: jnp.tile(leaf, (a,) + (1,) * (leaf.ndim - 1)), image)
    return model.fuse(params, text, image).scores[-1].reshape(a, b)


@functools.partial(jax.jit, static_argnums=0)
def _fuse_rows(
    model: Model, params: Params, text: Encoded, image: Encoded, captions: Array, photos: Array
) -> Array:
    """P rows of encoded captions with P rows of encoded photos → scores [P]."""
    return model.fuse(params, take(text, captions), take(image, photos)).scores[-1]


@functools.partial(jax.jit, static_argnums=0)
def _embed_text(model: Model, params: Params, texts: Text) -> Array:
    return model.embed_text(params, model.encode_text(params, texts))


@functools.partial(jax.jit, static_argnums=0)
def _embed_image(model: Model, params: Params, images: Image) -> Array:
    return model.embed_image(params, model.encode_image(params, images))
