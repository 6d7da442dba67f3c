"""The tests that decide whether runs bear a claim out.

The value of a contrast or a spread is computed within each seed, so that runs which saw the same
order of examples and answer the same queries are paired; over the seeds, Student's t test says on
which side of the claimed range its mean lies (two-sided at each end of the range, at least two
seeds). Where a margin is claimed and no mean score is that far above chance, p is 1: models that
have learned nothing would always count as equal. A correlation of corpora is tested by going
through all orders of the corpora's mean scores, of more than nine 99,999 random ones (Spearman's ρ,
two-sided). p is corrected for the number of comparisons that could be made for the claim (Holm,
1979). A comparison is then

* supported: p ≤ 0.05 and its value is in the range,
* contradicted: p ≤ 0.05 and its value is outside,
* undecided: otherwise.

A claim is contradicted if one of its comparisons is, supported if all of them are (none missing),
and otherwise undecided; a claim that examples prove is supported if one comparison is, contradicted
if all are. Verdicts speak of the runs at hand: their data, sizes and budget.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.stats

from mmt_jax.configs.config import Config
from mmt_jax.study import stats
from mmt_jax.study.claims import Claim, Comparison, Correlation
from mmt_jax.study.corpora import Properties

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
SIGN_OF_WORTH = {"photos": 1, "wrong": -1, "perplexity": -1}  # of a corpus: is more better?


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the runs say of one comparison."""

    says: str
    low: float  # the claimed range
    high: float
    missing: tuple[str, ...] = ()  # tags that were not run
    test: str = ""
    interval: stats.Interval = stats.UNKNOWN  # of the value
    p: float = 1.0  # after Holm's correction
    verdict: str = UNDECIDED
    reason: str = ""  # why it is undecided, and what would decide it


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the runs say of one claim."""

    claim: Claim
    verdict: str
    outcomes: tuple[Outcome, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Tags that would have to be run as well."""
        return tuple(dict.fromkeys(tag for outcome in self.outcomes for tag in outcome.missing))

    @property
    def spoken_to(self) -> bool:
        """Whether the runs can say anything of it."""
        return any(outcome.test for outcome in self.outcomes)


Scores = Mapping[str, Mapping[int, float]]  # tag → seed → score


def judge(
    claim: Claim,
    scores: Scores,
    *,
    configs: Mapping[str, Config],
    corpora: Mapping[str, Properties],
    chance: float = 0.0,
) -> Verdict:
    """Tests a claim by the module's rules.

    `configs`, by tag, tell runs that differ in nothing but their name; `corpora`, by tag, are for
    correlations; `chance` is the score of a model that has learned nothing.
    """
    if claim.not_at and claim.not_at in {config.scale for config in configs.values()}:
        reason = f"at scale={claim.not_at} models are too shallow for it; use scale=tiny"
        outcomes = [Outcome(c.says, c.low, c.high, reason=reason) for c in claim.comparisons]
        return Verdict(claim, UNDECIDED, tuple(outcomes))
    drafts = [_measure(c, scores, configs, corpora, chance) for c in claim.comparisons]
    testable = [i for i, (outcome, _) in enumerate(drafts) if outcome.test]
    adjusted = stats.holm([drafts[i][0].p for i in testable])
    outcomes = [outcome for outcome, _ in drafts]
    for index, p in zip(testable, adjusted, strict=True):
        alpha = stats.ALPHA / len(testable)
        outcomes[index] = _decide(
            dataclasses.replace(outcomes[index], p=p), drafts[index][1], alpha
        )
    return Verdict(claim, _together(claim, outcomes), tuple(outcomes))


def _together(claim: Claim, outcomes: Sequence[Outcome]) -> str:
    """The verdict on a claim, from those on its comparisons."""
    verdicts = {outcome.verdict for outcome in outcomes}
    decides_alone = SUPPORTED if claim.by_example else CONTRADICTED
    if decides_alone in verdicts:
        return decides_alone
    return verdicts.pop() if len(verdicts) == 1 else UNDECIDED


def _measure(
    comparison: Comparison,
    scores: Scores,
    configs: Mapping[str, Config],
    corpora: Mapping[str, Properties],
    chance: float,
) -> tuple[Outcome, Sequence[float]]:
    """The comparison with its uncorrected p, and its value in each seed."""
    missing = tuple(tag for tag in comparison.tags if tag not in scores)
    outcome = Outcome(comparison.says, comparison.low, comparison.high, missing)
    seeds = sorted(set.intersection(*(set(scores.get(tag, ())) for tag in comparison.tags)))
    reason = ""
    if missing:
        reason = f"not run: {', '.join(missing)}"
    elif same := _same(comparison.tags, configs):
        reason = f"{same[0]} and {same[1]} are the same model and data under these settings"
    elif not seeds and not isinstance(comparison, Correlation):
        reason = "no seed was run for all of its tags"
    if reason:
        return dataclasses.replace(outcome, reason=reason), ()
    if isinstance(comparison, Correlation):
        return _correlate(comparison, outcome, scores, corpora), ()
    values = [
        comparison.value({tag: scores[tag][seed] for tag in comparison.tags}) for seed in seeds
    ]
    outcome = dataclasses.replace(
        outcome,
        test=f"paired t over {len(seeds)} seed{'s' * (len(seeds) > 1)}",
        interval=stats.t_interval(values),
    )
    best = max(float(np.mean([scores[tag][seed] for seed in seeds])) for tag in comparison.tags)
    margin = max(abs(end) for end in (outcome.low, outcome.high) if math.isfinite(end))
    if margin and best - chance < margin:
        reason = f"no score is {margin:g} above chance, so none can differ by it: train more"
        return dataclasses.replace(outcome, reason=reason), ()
    p = stats.range_test(values, outcome.low, outcome.high)
    return dataclasses.replace(outcome, p=p), values


def _same(tags: Sequence[str], configs: Mapping[str, Config]) -> tuple[str, str] | None:
    """Two tags whose runs differ in nothing but name and seed."""
    seen: dict[Config, str] = {}
    for tag in tags:
        config = dataclasses.replace(configs[tag], tag="", seed=0)
        if config in seen:
            return seen[config], tag
        seen[config] = tag
    return None


def _correlate(
    comparison: Correlation,
    outcome: Outcome,
    scores: Scores,
    corpora: Mapping[str, Properties],
) -> Outcome:
    tags = [*comparison.tags, *(tag for tag in comparison.more if tag in scores)]
    unknown = [tag for tag in tags if tag not in corpora]
    if unknown:
        return dataclasses.replace(
            outcome, reason=f"the properties of {unknown[0]}'s corpus are not known"
        )
    worth = rank_worth([corpora[tag] for tag in tags], comparison.names)
    means = [float(np.mean(list(scores[tag].values()))) for tag in tags]
    rho, p = stats.spearman(worth, means)
    test = f"permutation of Spearman's ρ over {len(means)} corpora"
    return dataclasses.replace(
        outcome, test=test, interval=stats.Interval(rho, math.nan, math.nan, "none"), p=p
    )


def rank_worth(corpora: Sequence[Properties], names: Sequence[str]) -> list[float]:
    """[n] corpora by their mean rank in the named properties; more = expected to be better."""
    ranks = [
        SIGN_OF_WORTH[name] * scipy.stats.rankdata([getattr(corpus, name) for corpus in corpora])
        for name in names
    ]
    return np.mean(ranks, axis=0).tolist()


def _decide(outcome: Outcome, values: Sequence[float], alpha: float) -> Outcome:
    """The verdict by the corrected p; `alpha` is the level that would do for this one alone."""
    if outcome.p <= stats.ALPHA:
        inside = outcome.low < outcome.interval.mean < outcome.high
        return dataclasses.replace(outcome, verdict=SUPPORTED if inside else CONTRADICTED)
    if outcome.reason:
        return outcome
    if not values:
        return dataclasses.replace(outcome, reason="more corpora would be needed, not more seeds")
    needed = stats.seeds_needed(values, outcome.low, outcome.high, alpha)
    return dataclasses.replace(outcome, reason=_advice(values, needed))


def _advice(values: Sequence[float], needed: int | None) -> str:
    if needed is None:
        return f"too close to call: even {stats.MOST_SEEDS} seeds would not decide it"
    more = needed - len(values)
    seeds = f"{more} more seed{'s' * (more > 1)}"
    if len(values) == 1:
        return f"one seed has no spread to judge by; at least {seeds}"
    if not stats.has_spread(values):
        return f"the seeds are equal, which leaves no spread to judge by; at least {seeds}"
    return f"about {seeds} would do if mean and spread stay"
