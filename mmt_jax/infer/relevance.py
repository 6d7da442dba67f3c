"""Graded retrieval: NDCG@k, where a photo is the more relevant the more its captions say the same.

As TERN evaluates (Messina et al., 2020, arXiv 2004.09144): relevance is ROUGE-L between the query
and the photo's captions, k is 25.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Int, Int32

_WORD = re.compile(r"[\w']+")
_BETA = 1.2  # weighs recall, as in the evaluation of COCO captions (Chen et al., 2015, 1504.00325)


def rouge_l(
    queries: Sequence[str], captions: Sequence[Sequence[str]]
) -> Float32[np.ndarray, "Q N"]:
    """ROUGE-L (Lin, 2004) of each query with each photo's captions.

    F = (1 + β²) · P · R / (R + β² · P) with β = 1.2, where P and R are the length of the longest
    common subsequence of words over that of the query and of the caption, each the largest of the
    photo's captions, one or more. Each in 0..1.
    """
    words = [[_words(text) for text in photo] for photo in captions]
    flat = [text for photo in words for text in photo]
    starts = np.cumsum([0, *map(len, words[:-1])])
    numbers = {word: number for number, word in enumerate({w for text in flat for w in text})}
    lengths = np.array([len(text) for text in flat])
    table = np.full((lengths.max(initial=1), len(flat)), -1)
    for column, text in enumerate(flat):
        table[: len(text), column] = [numbers[word] for word in text]

    scores = np.zeros((len(queries), len(captions)), np.float32)
    for row, query in zip(scores, queries, strict=True):
        tokens = [numbers.get(word, -2) for word in _words(query)]
        common = _common(tokens, table)
        precision = np.maximum.reduceat(common, starts) / max(len(tokens), 1)
        recall = np.maximum.reduceat(common / np.maximum(lengths, 1), starts)
        below = recall + _BETA**2 * precision
        np.divide((1 + _BETA**2) * precision * recall, below, out=row, where=below > 0)
    return scores


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _common(tokens: Sequence[int], table: Int[np.ndarray, "L C"]) -> Int32[np.ndarray, " C"]:
    """Length of the longest common subsequence of `tokens` and each column of `table`.

    One row of the usual table at a time, for all columns at once: its running maximum stands for
    the step to the left.
    """
    longest = np.zeros((len(table) + 1, table.shape[1]), np.int32)
    for token in tokens:
        longer = np.maximum(longest[:-1] + (table == token), longest[1:])
        longest[1:] = np.maximum.accumulate(longer, axis=0)
    return longest[-1]


def ndcg(
    scores: Float[np.ndarray, "Q I"], relevance: Float[np.ndarray, "Q I"], k: int = 25
) -> Float[np.ndarray, " Q"]:
    """Normalised discounted cumulative gain among the first k (Järvelin and Kekäläinen, 2002).

    DCG = Σ (2^relevance - 1) / log2(rank + 1), over that of the best order. Ties count against the
    model, as in `ranking`. In 0..1, and 0 for a query to which nothing is relevant.
    """
    gain = np.exp2(relevance.astype(np.float64)) - 1
    found = np.lexsort((gain, -scores), axis=1)[:, :k]
    discount = 1 / np.log2(np.arange(found.shape[1]) + 2)
    best = -np.sort(-gain, axis=1)[:, :k] @ discount
    reached = np.take_along_axis(gain, found, axis=1) @ discount
    return np.divide(reached, best, out=np.zeros_like(best), where=best > 0)
