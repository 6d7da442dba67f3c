"""Querybank normalisation: photos that are near every caption are found by fewer of them.

Among many embedded photos some are close to most captions (hubs) and are found in the place of
others. Taking from each photo's score what it scores with captions of other photos, a *querybank*,
makes up for that. These captions are training captions, never those that are asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float32

from mmt_jax import progress
from mmt_jax.data import sources
from mmt_jax.errors import UsageError

if TYPE_CHECKING:
    from mmt_jax.infer.scorer import Scorer

SHARPNESS = 2.0  # of the soft maximum, for scores of standard deviation 1
_BLOCK = 256  # photos whose scores with the bank are in memory at once


def embeddings(scorer: Scorer, source: str, split: str) -> Float32[np.ndarray, "B E"]:
    """Embeds all captions of a split; UsageError: it has none, or the model has no embeddings."""
    said = [c for corpus in sources.outlines(source, split) for c in corpus.all_captions()]
    if not said:
        raise UsageError(f"{source} has no captions in split {split} to normalise by")
    progress.stage(f"embedding {len(said):,} captions of {split} to normalise by")
    return scorer.embed_texts(said, truncate=True)


def offsets(
    bank: Float[np.ndarray, "B E"], images: Float[np.ndarray, "N E"]
) -> Float32[np.ndarray, " N"]:
    """What to take from the scores of each of N photos: a soft maximum of its scores with the bank.

    log mean exp(k · s) / k over the bank's scores s, their inner products, where k is `SHARPNESS`
    over their standard deviation, that of all photos. It is the inverted softmax of Bogolin et al.
    (2022, arXiv 2112.12777), whose temperature here goes with the spread of the scores.
    """
    k = SHARPNESS / (_spread(bank, images) or 1.0)  # 0: all scores are the same
    out = np.empty(len(images), np.float32)
    for start in range(0, len(images), _BLOCK):
        scores = bank @ images[start : start + _BLOCK].T
        top = scores.max(axis=0)
        soft = np.log(np.exp(k * (scores - top)).mean(axis=0)) / k
        out[start : start + _BLOCK] = top + soft
    return out


def _spread(a: np.ndarray, b: np.ndarray) -> float:
    """The standard deviation of all products of rows of `a` and `b`, without making them."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    square = np.sum((a.T @ a / len(a)) * (b.T @ b / len(b)))
    return float(np.sqrt(max(square - (a.mean(axis=0) @ b.mean(axis=0)) ** 2, 0.0)))
