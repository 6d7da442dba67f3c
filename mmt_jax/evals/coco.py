"""Retrieval as it is reported on COCO's 5,000 test photos: all of them, or folds of 1,000.

Karpathy and Fei-Fei (2015, arXiv 1412.2306) set both: "1k" is the mean over five consecutive folds.
"""

from __future__ import annotations

import numpy as np

from mmt_jax.config import UsageError
from mmt_jax.evals import ranking


def evaluate(
    scores: np.ndarray, caption_to_image: np.ndarray, *, fold: int = 1000
) -> dict[str, float]:
    """Image and text retrieval within folds of consecutive photos, averaged over the folds.

    Args:
      scores: [M, N] of captions with photos, higher = better match.
      caption_to_image: [M] photo of each caption.
      fold: photos of a fold; N = one fold, COCO's "5k".

    Returns:
      Metrics by path, such as `image_retrieval/r@1`, as `ranking.summary` has them.

    Raises:
      UsageError: the photos cannot be cut into such folds.
    """
    photos = scores.shape[1]
    if fold < 1 or photos % fold:
        raise UsageError(
            f"{photos} photos cannot be cut into folds of {fold}; COCO's test split has 5,000"
        )
    found: dict[str, list[float]] = {}
    for start in range(0, photos, fold):
        captions = np.flatnonzero(caption_to_image // fold == start // fold)
        part = scores[captions, start : start + fold]
        relevant = caption_to_image[captions, None] - start == np.arange(fold)
        for way, ranks in (
            ("image_retrieval", ranking.ranks(part, relevant)),
            ("text_retrieval", ranking.ranks(part.T, relevant.T)),
        ):
            for name, value in ranking.summary(ranks).items():
                found.setdefault(f"{way}/{name}", []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}
