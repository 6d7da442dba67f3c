"""What a score rests on: attention from words to regions, and the score without one of either."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from scipy import special

from mmt_jax.errors import UsageError
from mmt_jax.infer.predict import Predictor
from mmt_jax.text.base import Tokenizer
from mmt_jax.typing import Image

_FLAT = 0.1  # of an even share


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Of one pair; regions are the real slots of the photo, in order."""

    words: tuple[str, ...]  # [W] of the caption, as far as the model reads it
    probability: float  # of a match
    # [W] f32: log odds with the word's pieces replaced by the mask token, minus log odds. Below 0:
    # the word speaks for the match.
    word_changes: np.ndarray
    # [R] f32: the same with nobody reading the region; NaN for the global region, whose state the
    # score is made of.
    region_changes: np.ndarray
    # [W, R] f32, the mean over layers, heads and a word's pieces, or None where the model's words
    # read no regions. What words pay to each other is missing to 1.
    attention: np.ndarray | None

    @property
    def against_even(self) -> np.ndarray | None:
        """[W, R] f32: attention by what each region would get if a word read all of them alike."""
        if self.attention is None:
            return None
        return self.attention / np.maximum(self.attention.mean(axis=1, keepdims=True), 1e-9)

    @property
    def flat(self) -> bool:
        """Whether all words read all regions alike, within a tenth."""
        even = self.against_even
        return even is not None and even.shape[1] > 1 and bool((np.abs(even - 1) < _FLAT).all())


def explain(predictor: Predictor, tokenizer: Tokenizer, caption: str, image: Image) -> Explanation:
    """Explains the score of a caption, cut where it is too long, and a photo [1, R, …]."""
    config, caption = predictor.model.config, " ".join(caption.split())
    text = tokenizer.texts([caption], length=config.data.text_length, layout=config.model.layout)
    words, pieces = _words(tokenizer, caption, np.flatnonzero(text.word_ids[0] >= 0))
    real = np.asarray(image.mask)[0]
    slots = np.flatnonzero(real)
    hidden = slots[slots < len(real) - config.model.global_region]

    # Row 0 is the pair as it is; then each word is hidden, then each region.
    rows = 1 + len(words) + len(hidden)
    texts, images = jax.tree.map(
        lambda leaf: np.broadcast_to(leaf, (rows, *leaf.shape[1:])), (text, image)
    )
    tokens, mask = texts.token_ids.copy(), images.mask.copy()
    for row, places in enumerate(pieces, 1):
        tokens[row, places] = config.model.mask_id
    mask[np.arange(1 + len(words), rows), hidden] = False
    logits = predictor.logits(
        dataclasses.replace(texts, token_ids=tokens), dataclasses.replace(images, mask=mask)
    )
    odds = logits[:, 0] - logits[:, 1]
    regions = np.full(len(real), np.nan, np.float32)
    regions[hidden] = odds[1 + len(words) :] - odds[0]

    shown = attended(predictor, tokenizer, [caption], image)
    return Explanation(
        words=words,
        probability=float(special.expit(odds[0])),
        word_changes=odds[1 : 1 + len(words)] - odds[0],
        region_changes=regions[slots],
        attention=shown[0][1] if shown else None,
    )


def attended(
    predictor: Predictor, tokenizer: Tokenizer, captions: Sequence[str], images: Image
) -> list[tuple[tuple[str, ...], np.ndarray]] | None:
    """`Explanation.words` and `Explanation.attention` of P captions, each with its photo [P, R, …].

    None where the model's words read no regions.
    """
    config = predictor.model.config
    text = tokenizer.texts(captions, length=config.data.text_length, layout=config.model.layout)
    maps = predictor.attention(text, images)
    if not maps:
        return None
    found = []
    for row, caption in enumerate(captions):
        words, pieces = _words(tokenizer, caption, np.flatnonzero(text.word_ids[row] >= 0))
        mean = np.mean([layer.mean(axis=1)[row] for layer in maps], axis=0)  # [T, R]
        by_word = np.stack([mean[places].mean(axis=0) for places in pieces])
        found.append((words, by_word[:, np.asarray(images.mask)[row]]))
    return found


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
