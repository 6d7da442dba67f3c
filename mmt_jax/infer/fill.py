"""What stands at the blanks of a sentence: the words that a model trained on hidden ones expects.

A blank is written `<mask>` or `[MASK]`, whatever the model's own token for it is called.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from scipy import special

from mmt_jax.errors import UsageError
from mmt_jax.infer.predict import Predictor
from mmt_jax.text.base import Tokenizer
from mmt_jax.typing import Image

_BLANK = re.compile(r"<mask>|\[MASK\]")


class Word(NamedTuple):
    """A piece of the vocabulary, without the blank in front of a word, and how likely it is."""

    word: str
    probability: float


def fill(
    predictor: Predictor, tokenizer: Tokenizer, sentence: str, image: Image | None, *, top: int
) -> list[list[Word]]:
    """The `top` likeliest pieces at each blank, best first; no more than the vocabulary has.

    `image` is one photo, with a batch axis of 1, or None for models that read sentences alone.
    UsageError: a model without a head over words or its photo; a sentence without blank, too long.
    """
    config = predictor.model.config
    name = config.tag or "this model"
    if not config.objective.mlm:
        raise UsageError(
            f"{name} has no head over words; ask a model that was trained on hidden words "
            f"(config.objective.mlm)"
        )
    if predictor.model.fuses and image is None:
        raise UsageError(f"{name} reads a photo beside the sentence; give one, or its record")
    if top < 1:
        raise UsageError(f"the number of words is {top}; ask for 1 or more")
    ids, length = _encoded(tokenizer, sentence), config.data.text_length
    if len(ids) > length - 2:
        raise UsageError(
            f"the sentence {sentence!r} has {len(ids)} pieces, but the model reads {length - 2}; "
            f"shorten it"
        )
    text = tokenizer.layout([ids], length=length, layout=config.model.layout)
    hidden = (text.token_ids == tokenizer.mask_id) & (text.word_ids >= 0)
    logits = predictor.words(text, image)[hidden]
    probabilities = special.softmax(logits, axis=1)
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return [
        [Word(tokenizer.piece(index), float(row[index])) for index in indices]
        for row, indices in zip(probabilities, best.tolist(), strict=True)
    ]


def _encoded(tokenizer: Tokenizer, sentence: str) -> list[int]:
    """Token ids of a sentence, each blank as the token that hides a word."""
    if not isinstance(sentence, str):
        raise UsageError(f"the sentence is {sentence!r}; give one string")
    parts = _BLANK.split(sentence)
    if len(parts) == 1:
        raise UsageError(f"the sentence {sentence!r} has no blank; write <mask> for one")
    if tokenizer.mask_takes_space:
        parts = [*(part.rstrip() for part in parts[:-1]), parts[-1]]
    ids: list[int] = []
    for number, part in enumerate(parts):
        ids += [tokenizer.mask_id] * (number > 0)
        if part.strip():
            encoded = tokenizer.encode(part)
            ids += encoded if number == 0 or part[0].isspace() else tokenizer.within(encoded)
    return ids
