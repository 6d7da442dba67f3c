"""The statistics of a study: intervals, tests and the correction for several of them.

Seeds are the unit of replication: one number a seed, and Student's t over them (Student, 1908).
Where one seed is all there is, an interval over the test photos stands in; it says how well this
one model was measured and nothing of how another seed would fare.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

LEVEL = 0.95  # of every interval
ALPHA = 0.05  # of every test, within a claim
ORDERS = 99_999  # of which a p is estimated where all are too many
MOST_SEEDS = 100  # beyond this many, more seeds are no advice


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean and its interval; the ends are NaN where nothing says how wide it is."""

    mean: float
    low: float
    high: float
    method: str  # "t over n seeds", "bootstrap over n photos", or "none"


UNKNOWN = Interval(math.nan, math.nan, math.nan, "none")
Numbers = Sequence[float] | np.ndarray  # [n]


def t_interval(values: Numbers) -> Interval:
    """mean ± t(n - 1) · s / √n over [n] values; no ends for a single one."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Interval(mean, math.nan, math.nan, "none")
    half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * _deviation(values) / math.sqrt(n)
    return Interval(mean, float(mean - half), float(mean + half), f"t over {n} seeds")


def bootstrap_interval(
    hits: np.ndarray, photos: np.ndarray, *, draws: int = 2000, seed: int = 0
) -> Interval:
    """Percentile interval of the mean of `hits` when whole photos are drawn anew (Efron, 1979).

    Captions of one photo succeed and fail together, so they are drawn together: `photos` [Q] int
    are those that the queries, which have `hits` [Q] bool or float, belong to.
    """
    _, group = np.unique(photos, return_inverse=True)
    total, count = np.bincount(group, weights=hits), np.bincount(group)
    n = len(count)
    times = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws)
    low, high = np.quantile((times @ total) / (times @ count), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(np.mean(hits)), float(low), float(high), f"bootstrap over {n} photos")


def t_test(values: Numbers, bound: float) -> float:
    """Two-sided p of the mean of [n] values being `bound`; 1 where they have no spread to judge by.

    Values that are equal to the last digit come of few test queries, not of a process without
    noise, so they count as no evidence.
    """
    if not has_spread(values):
        return 1.0
    return _t_p(abs(float(np.mean(values)) - bound), _deviation(values), len(values))


def has_spread(values: Numbers) -> bool:
    """Whether there are two values or more, and not all equal."""
    return len(values) > 1 and float(np.ptp(values)) > 1e-12


def _deviation(values: Numbers) -> float:
    return float(np.std(values, ddof=1))


def _t_p(distance: float, deviation: float, n: int) -> float:
    return float(2 * stats.t.sf(distance / (deviation / math.sqrt(n)), n - 1))


def range_test(values: Numbers, low: float, high: float) -> float:
    """p of "the mean of [n] values is on the side of `low` and `high` that it seems to be on".

    Inside the range each finite end must be rejected (two one-sided tests, Schuirmann, 1987);
    outside, the end that was overstepped. Each is a two-sided t test at that end.
    """
    mean = np.mean(values)
    if low < mean < high:
        return max(t_test(values, end) for end in (low, high) if math.isfinite(end))
    return t_test(values, low if mean <= low else high)


def seeds_needed(values: Numbers, low: float, high: float, alpha: float) -> int | None:
    """Seeds in all that would decide, if mean and spread stayed; None = more than `MOST_SEEDS`."""
    if not has_spread(values):
        return len(values) + 1
    distance = min(abs(float(np.mean(values)) - end) for end in (low, high) if math.isfinite(end))
    for n in range(len(values) + 1, MOST_SEEDS + 1):
        if _t_p(distance, _deviation(values), n) <= alpha:
            return n
    return None


def holm(p_values: Numbers) -> list[float]:
    """Adjusted p, in the order given: at most `ALPHA` where Holm (1979) rejects."""
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, largest)
    return adjusted


def spearman(x: Numbers, y: Numbers) -> tuple[float, float]:
    """Rank correlation of [n] and [n], ties at their mean rank, and its two-sided p.

    p is the share of all n! orders of `y` that correlate at least as strongly (Pitman, 1937), so it
    asks nothing of how the values are distributed; above nine values, of `ORDERS` random ones and
    the one that was found. A constant correlates with nothing: 0.
    """
    a, b = (stats.rankdata(v) - (len(v) + 1) / 2 for v in (x, y))
    scale = math.sqrt((a @ a) * (b @ b))
    if not scale:
        return 0.0, 1.0
    if len(x) <= 9:
        orders = np.array(list(itertools.permutations(b)))
    else:
        drawn = np.random.default_rng(0).permuted(np.tile(b, (ORDERS, 1)), axis=1)
        orders = np.concatenate([b[None], drawn])
    found = float(a @ b) / scale
    return found, float(np.mean(np.abs(orders @ a) / scale >= abs(found) - 1e-9))
