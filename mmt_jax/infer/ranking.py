"""Ranks from scores, numpy only. Ties count against the model: a constant score ranks last."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

from mmt_jax.errors import UsageError

RECALLS = (1, 5, 10)
RSUM = "rsum"  # the six recalls added up, as VSE++ and TERN choose checkpoints: 0..6
BEST = (*(f"{way}_retrieval/r@{k}" for way in ("image", "text") for k in RECALLS), RSUM)


def ranks(
    scores: Float[np.ndarray, "Q I"], relevant: Bool[np.ndarray, "Q I"]
) -> Int[np.ndarray, " Q"]:
    """The rank of each query's best relevant item: 1 is the top.

    Every irrelevant item that scores at least as much stands ahead; other relevant items do not, so
    a rank of at most k means that any relevant item is among the first k. Higher scores match
    better; NaN has no rank (UsageError), nor has a query without a relevant item (ValueError).
    """
    if np.isnan(scores).any():
        query, item = np.argwhere(np.isnan(scores))[0]
        raise UsageError(
            f"the score of query {query} and item {item} is NaN, which cannot be ranked; the "
            f"model's parameters or the item's features are not finite"
        )
    if not relevant.any(axis=1).all():
        query = np.flatnonzero(~relevant.any(axis=1))[0]
        raise ValueError(f"query {query} has no relevant item")
    best = np.max(scores, axis=1, where=relevant, initial=-np.inf, keepdims=True)
    return 1 + np.count_nonzero((scores >= best) & ~relevant, axis=1)


def precision(
    scores: Float[np.ndarray, "Q I"], relevant: Bool[np.ndarray, "Q I"]
) -> tuple[Float[np.ndarray, " Q"], Float[np.ndarray, "Q K"]]:
    """What of all relevant items is found; ties as of `ranks`, which checks the same arguments.

    Average precision of each query (the mean over its relevant items of the share of relevant ones
    down to there; Manning et al., Introduction to Information Retrieval, 8.4), and for each k of
    `RECALLS` the share of its relevant items among the first k.
    """
    average, shares = np.empty(len(scores)), np.empty((len(scores), len(RECALLS)))
    for query, (row, good) in enumerate(zip(scores, relevant, strict=True)):
        wanted = -np.sort(-row[good])
        number = np.arange(1, len(wanted) + 1)
        place = number + (row[~good] >= wanted[:, None]).sum(axis=1)
        average[query] = np.mean(number / place)
        shares[query] = [np.mean(place <= k) for k in RECALLS]
    return average, shares


def recall(ranks: Int[np.ndarray, " Q"], k: int) -> float:
    """R@k: the share (0..1) of queries that find a relevant item among the first k."""
    return float(np.mean(ranks <= k))


def check_best(name: str) -> None:
    """Refuses a `config.eval.best` that no evaluation reports, or of which less is better."""
    if name not in BEST:
        raise UsageError(
            f"config.eval.best={name!r} cannot choose a checkpoint; take one of {', '.join(BEST)}"
        )


def summary(ranks: Int[np.ndarray, " Q"]) -> Mapping[str, float]:
    """`r@1`, `r@5` and `r@10` as shares in 0..1, `median_rank` and `mean_rank` (1 is best)."""
    recalls = {f"r@{k}": recall(ranks, k) for k in RECALLS}
    middle = {"median_rank": float(np.median(ranks)), "mean_rank": float(np.mean(ranks))}
    return {**recalls, **middle}
