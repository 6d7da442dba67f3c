"""What is hidden from the model: words of the caption, regions of the photo."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from mmt_jax.typing import Array, Image, Text, record

OVERLAP = 0.4  # IoU above which a hidden region's neighbour would give it away


@record
class WordTargets:
    """The hidden tokens of each caption, at most M of them."""

    positions: Int[Array, "B M"]
    token_ids: Int[Array, "B M"]  # what stood there
    mask: Bool[Array, "B M"]  # False where a caption has fewer


def mask_words(
    text: Text, *, rate: float, vocab_size: int, mask_id: int, key: jax.Array
) -> tuple[Text, WordTargets]:
    """Hides whole words: BERT's masking with the pieces of a word chosen together.

    Of each caption max(1, round(rate · words)) words are chosen; of their tokens 80 % become
    [MASK], 10 % a random piece, 10 % stay. M is twice the expected number of tokens, at least 4;
    tokens beyond it are hidden and not predicted.
    """
    choose, act, replace = jax.random.split(key, 3)
    batch, length = text.token_ids.shape
    is_word = text.mask & (text.word_ids >= 0)
    # One draw a word, which all of its tokens share; the words with the lowest draws are chosen.
    draws = jax.random.uniform(choose, (batch, length))
    words = jnp.max(jnp.where(is_word, text.word_ids, -1), axis=1) + 1
    exists = jnp.arange(length)[None, :] < words[:, None]
    draws = jnp.where(exists, draws, jnp.inf)
    count = jnp.maximum(1, jnp.round(rate * words.astype(jnp.float32)).astype(jnp.int32))
    rank = jnp.argsort(jnp.argsort(draws, axis=1), axis=1)
    chosen_words = exists & (rank < count[:, None])
    word_of = jnp.maximum(text.word_ids, 0)
    chosen = is_word & jnp.take_along_axis(chosen_words, word_of, axis=1)
    limit = min(length, max(4, math.ceil(2 * rate * length)))
    return _hide(text, chosen, limit, vocab_size=vocab_size, mask_id=mask_id, keys=(act, replace))


def mask_tokens(
    text: Text, *, rate: float, vocab_size: int, mask_id: int, key: jax.Array
) -> tuple[Text, WordTargets]:
    """Hides each token with probability `rate`, whatever word it is of, and possibly none.

    As BERT, LXMERT and, with RoBERTa's tokens, BridgeTower do; what is hidden becomes what it does
    in `mask_words`, and all of it is predicted.
    """
    choose, act, replace = jax.random.split(key, 3)
    is_word = text.mask & (text.word_ids >= 0)
    chosen = is_word & (jax.random.uniform(choose, text.token_ids.shape) < rate)
    limit = text.token_ids.shape[1]
    return _hide(text, chosen, limit, vocab_size=vocab_size, mask_id=mask_id, keys=(act, replace))


def _hide(
    text: Text,
    chosen: Bool[Array, "B T"],
    limit: int,
    *,
    vocab_size: int,
    mask_id: int,
    keys: tuple[jax.Array, jax.Array],
) -> tuple[Text, WordTargets]:
    """Of the tokens `chosen` 80 % become [MASK], 10 % random; `limit` are predicted."""
    (act, replace), (batch, length) = keys, text.token_ids.shape
    action = jax.random.uniform(act, (batch, length))
    # Control pieces stand before [MASK], which in RoBERTa's vocabulary is the last piece of all.
    first, stop = (mask_id + 1, vocab_size) if mask_id + 1 < vocab_size else (0, mask_id)
    random_ids = jax.random.randint(replace, (batch, length), first, stop)
    hidden = jnp.where(action < 0.8, mask_id, random_ids)
    hidden = jnp.where(action < 0.9, hidden, text.token_ids)
    corrupted = dataclasses.replace(text, token_ids=jnp.where(chosen, hidden, text.token_ids))

    kept, positions = jax.lax.top_k(chosen.astype(jnp.int32), limit)
    originals = jnp.take_along_axis(text.token_ids, positions, axis=1)
    return corrupted, WordTargets(positions, originals, kept.astype(bool))


def mask_regions(
    image: Image, *, rate: float, global_region: bool, key: jax.Array
) -> tuple[Image, Bool[Array, "B R"]]:
    """Hides regions, never the global one, which where there is one is the last.

    Each region is chosen with probability `rate`; 90 % of those chosen lose their features, and so
    does every region that overlaps one of these by more than OVERLAP. The photo with features
    zeroed, and the chosen regions.
    """
    choose, act = jax.random.split(key)
    is_region, chosen = _chosen(image, rate, global_region, choose)
    zeroed = chosen & (jax.random.uniform(act, chosen.shape) < 0.9)
    near = (iou(image.boxes) > OVERLAP) & zeroed[:, None, :]
    zeroed = zeroed | (is_region & near.any(axis=-1))
    features = jnp.where(zeroed[..., None], 0.0, image.features)
    return dataclasses.replace(image, features=features), chosen


def mask_features(
    image: Image, *, rate: float, global_region: bool, key: jax.Array
) -> tuple[Image, Bool[Array, "B R"]]:
    """Hides regions as LXMERT does: 80 % lose their features, 10 % get another region's, 10 % stay.

    Regions that overlap stay as they are. The photo, and the chosen regions: each with probability
    `rate`.
    """
    choose, act, swap = jax.random.split(key, 3)
    batch, slots = image.mask.shape
    is_region, chosen = _chosen(image, rate, global_region, choose)
    action = jax.random.uniform(act, (batch, slots))
    # Any real region of the batch will do: draws among all slots, padding never the largest.
    draws = jnp.where(is_region.reshape(-1), jax.random.uniform(swap, (batch * slots,)), -1.0)
    others = jnp.argsort(-draws)
    count = jnp.maximum(is_region.sum(), 1)
    other = others[jnp.arange(batch * slots) % count].reshape(batch, slots)
    flat = image.features.reshape(batch * slots, -1)
    features = jnp.where((chosen & (action >= 0.8))[..., None], flat[other], image.features)
    kept = chosen & (action >= 0.9)
    features = jnp.where(kept[..., None], image.features, features)
    features = jnp.where((chosen & (action < 0.8))[..., None], 0.0, features)
    return dataclasses.replace(image, features=features), chosen


def _chosen(
    image: Image, rate: float, global_region: bool, key: jax.Array
) -> tuple[Bool[Array, "B R"], Bool[Array, "B R"]]:
    """The regions, without the global one, and those of them that a rate chooses."""
    shape = image.mask.shape
    is_region = image.mask & (jnp.arange(shape[1])[None, :] < shape[1] - global_region)
    return is_region, is_region & (jax.random.uniform(key, shape) < rate)


def iou(boxes: Float[Array, "B R _"]) -> Float[Array, "B R R"]:
    """Intersection over union of each two boxes of a photo; a fifth value, an area, is unread."""
    low, high = boxes[..., :2], boxes[..., 2:4]
    overlap_low = jnp.maximum(low[:, :, None], low[:, None, :])
    overlap_high = jnp.minimum(high[:, :, None], high[:, None, :])
    inner = jnp.prod(jnp.maximum(overlap_high - overlap_low, 0.0), axis=-1)
    area = jnp.prod(high - low, axis=-1)
    union = area[:, :, None] + area[:, None, :] - inner
    return inner / jnp.maximum(union, 1e-9)
