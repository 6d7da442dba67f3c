"""Querybank normalisation: photos that are near every caption are found by fewer of them.

Among many embedded photos some are close to most captions (hubs) and are found in the place of
others. What each photo scores with captions of other photos, the *querybank*, is taken from its
scores by an inverted softmax (Smith et al., 2017, arXiv 1702.03859), as Bogolin et al. (2022,
arXiv 2112.12777) do with training captions. They leave a query alone whose best photo is not the
best for any caption of the bank; this does not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from mmt_jax import progress
from mmt_jax.data import source as source_lib
from mmt_jax.data import sources
from mmt_jax.errors import UsageError

if TYPE_CHECKING:
    from mmt_jax.infer.scorer import Scorer

SHARPNESS = 2.0  # of the soft maximum, for scores of standard deviation 1
_SCORES = 2**24  # in memory at once


class Bank(NamedTuple):
    """Captions that scores are normalised by."""

    split: str  # theirs
    embed: Callable[[], Float32[np.ndarray, "B E"]]  # by the model that ranks; when it is called


def of(scorer: Scorer, source: str, split: str | None, *, asked: str) -> Bank | None:
    """The captions of a split, of which none is of a photo that is ranked; of no split None.

    Args:
      scorer: whose model embeds them.
      source, split: where they are.
      asked: the split of the same source whose photos are ranked.

    Raises:
      UsageError: the splits overlap; when it is embedded, there are no captions or no embeddings.
    """
    if split is None:
        return None
    (name, part), (other, others) = source_lib.portion(split), source_lib.portion(asked)
    if name == other and set(part) & set(others):
        raise UsageError(
            f"--querybank={split} has captions of the photos of --split={asked} themselves; give "
            f"another split, such as that of training"
        )

    @functools.cache
    def embedded() -> Float32[np.ndarray, "B E"]:
        said = [c for corpus in sources.outlines(source, split) for c in corpus.all_captions()]
        if not said:
            raise UsageError(f"{source} has no captions in split {split} to normalise by")
        progress.stage(f"embedding {len(said):,} captions of {split} to normalise by")
        return scorer.embed_texts(said, truncate=True)

    return Bank(split, embedded)


def offsets(
    bank: Float[np.ndarray, "B E"], images: Float[np.ndarray, "N E"]
) -> Float32[np.ndarray, " N"]:
    """What to take from the scores of each of N photos: a soft maximum of its scores with the bank.

    log mean exp(k · s) / k over the bank's scores s, its inner products with the photo, where k is
    `SHARPNESS` over the standard deviation of all B · N of them. Scores s less these rank photos as
    exp(k · s) does over the bank's sum of exp(k · s). UsageError: an embedding is not finite.
    """
    for what, rows in (("caption of the querybank", bank), ("photo", images)):
        if not np.isfinite(rows).all():
            place = np.flatnonzero(~np.isfinite(rows).all(axis=1))[0]
            raise UsageError(f"the embedding of {what} {place} is not finite")
    k = SHARPNESS / (_spread(bank, images) or 1.0)
    out, block = np.empty(len(images), np.float32), max(1, _SCORES // len(bank))
    for start in range(0, len(images), block):
        scores = bank @ images[start : start + block].T
        top = scores.max(axis=0)
        soft = np.log(np.exp(k * (scores - top)).mean(axis=0)) / k
        out[start : start + block] = top + soft
    return out


def _spread(a: np.ndarray, b: np.ndarray) -> float:
    """The standard deviation of all products of rows of `a` and `b`, without making them."""
    (mean, square), (other, others) = _moments(a), _moments(b)
    return float(np.sqrt(max(np.sum(square * others) - (mean @ other) ** 2, 0.0)))


def _moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean [E] f64 and the second moments [E, E] f64 of rows [n, E]."""
    total = np.zeros((rows.shape[1],) * 2)
    for start in range(0, len(rows), 1 << 14):
        part = rows[start : start + (1 << 14)].astype(np.float64)
        total += part.T @ part
    return rows.mean(axis=0, dtype=np.float64), total / len(rows)
