"""What a score rests on: attention from words to regions, and the score without one of either."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np

from mmt_jax.errors import UsageError
from mmt_jax.models.base import Model
from mmt_jax.text.base import Tokenizer
from mmt_jax.typing import Image, Params, Text

_ROWS = 64  # variants of the pair that are computed at once


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Of one pair; regions are the real slots of the photo, in order.

    Attributes:
      words: [W] of the caption, as far as the model reads it.
      probability: of a match.
      word_changes: [W] f32: log odds with the word's pieces replaced by the mask token, minus log
        odds. Below 0: the word speaks for the match.
      region_changes: [R] f32: the same with nobody reading the region; NaN for the global region,
        whose state the score is made of.
      attention: [W, R] f32, the mean over layers, heads and a word's pieces, or None where the
        model's words read no regions. What words pay to each other is missing to 1.
    """

    words: tuple[str, ...]
    probability: float
    word_changes: np.ndarray
    region_changes: np.ndarray
    attention: np.ndarray | None


def explain(
    model: Model, params: Params, tokenizer: Tokenizer, caption: str, image: Image
) -> Explanation:
    """Explains the score of a caption and a photo.

    Args:
      model: that scores pairs, in float32.
      params: its parameters.
      tokenizer: its tokenizer.
      caption: cut where it is too long, as in training.
      image: one photo, with a batch axis of 1.
    """
    config, caption = model.config, " ".join(caption.split())
    text = tokenizer.texts([caption], length=config.data.text_length, layout=config.model.layout)
    words, pieces = _words(tokenizer, caption, np.flatnonzero(text.word_ids[0] >= 0))
    slots = np.flatnonzero(np.asarray(image.mask)[0]).tolist()
    hidden = [slot for slot in slots if not _is_global(model, image, slot)]

    tokens = np.repeat(text.token_ids, 1 + len(words) + len(hidden), axis=0)
    mask = np.repeat(np.asarray(image.mask), len(tokens), axis=0)
    for row, places in enumerate(pieces, 1):
        tokens[row, places] = config.model.mask_id
    for row, slot in enumerate(hidden, 1 + len(words)):
        mask[row, slot] = False
    odds = _log_odds(model, params, text, image, tokens, mask)
    regions = np.full(mask.shape[1], np.nan, np.float32)
    regions[hidden] = odds[1 + len(words) :] - odds[0]

    attention = None
    if maps := _attention(model, params, text, image):
        mean = np.mean([layer.mean(axis=1)[0] for layer in maps], axis=0)
        attention = np.stack([mean[places].mean(axis=0) for places in pieces])[:, slots]
    return Explanation(
        words=words,
        probability=float(1 / (1 + np.exp(-odds[0]))),
        word_changes=odds[1 : 1 + len(words)] - odds[0],
        region_changes=regions[slots],
        attention=attention,
    )


def _words(
    tokenizer: Tokenizer, caption: str, places: np.ndarray
) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """Words between white space, and the places of each one's pieces among the tokens.

    No vocabulary has pieces across white space, so a caption's first words have the same pieces
    without those that follow.
    """
    words = caption.split()
    ends = [_count(tokenizer, " ".join(words[: n + 1])) for n in range(len(words))]
    spans = [places[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    kept = [(word, span) for word, span in zip(words, spans, strict=True) if len(span)]
    return tuple(word for word, _ in kept), [span for _, span in kept]


def _count(tokenizer: Tokenizer, text: str) -> int:
    """How many pieces a text has; a lone accent has none."""
    try:
        return len(tokenizer.encode(text))
    except UsageError:
        return 0


def _is_global(model: Model, image: Image, slot: int) -> bool:
    return model.config.model.global_region and slot == image.mask.shape[1] - 1


def _log_odds(
    model: Model, params: Params, text: Text, image: Image, tokens: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """Log odds [P] of the pair with other tokens [P, T] and regions [P, R]."""
    found = []
    for start in range(0, len(tokens), _ROWS):
        part = [
            np.resize(values[start : start + _ROWS], (_ROWS, values.shape[1]))
            for values in (tokens, mask)
        ]
        found.append(np.asarray(_variants(model, params, text, image, *part)))
    return np.concatenate(found)[: len(tokens)]


@functools.partial(jax.jit, static_argnums=0)
def _variants(model, params, text, image, tokens, mask):
    def repeat(item):
        return jax.tree.map(lambda x: jax.numpy.repeat(x, _ROWS, axis=0), item)

    texts = dataclasses.replace(repeat(text), token_ids=tokens)
    images = dataclasses.replace(repeat(image), mask=mask)
    encoded = model.encode_text(params, texts), model.encode_image(params, images)
    logits = model.fuse(params, *encoded).logits[-1]
    return logits[:, 0] - logits[:, 1]


@functools.partial(jax.jit, static_argnums=0)
def _attention(model, params, text, image):
    encoded = model.encode_text(params, text), model.encode_image(params, image)
    return model.attention(params, *encoded)
