"""Statistics against values worked by hand, and verdicts on scores whose answer is known."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats

from mmt_jax.configs import variants
from mmt_jax.configs.config import DataConfig
from mmt_jax.study import corpora, stats
from mmt_jax.study.claims import (
    CLAIMS,
    MARGIN,
    Claim,
    Correlation,
    Spread,
    better,
    equal,
    gains_more,
    rises,
)
from mmt_jax.study.corpora import Properties
from mmt_jax.study.verdicts import CONTRADICTED, SUPPORTED, UNDECIDED, judge

TAGS = ("data_cc", "data_sbu", "data_vg", "data_mscoco")
A, B, C, D = TAGS
CONFIGS = {tag: variants.get_config(tag, scale="tiny") for tag in variants.VARIANTS}


def seeds(mean, *offsets):
    """Scores of seeds 0, 1, … around a mean, by hundredths."""
    return {seed: mean + offset / 100 for seed, offset in enumerate(offsets)}


def verdict_on(*comparisons, configs=CONFIGS, properties=None, chance=0.0, **scores):
    claim = Claim("X", "a statement", "Q", comparisons)
    by_tag = {f"data_{name}": values for name, values in scores.items()}
    return judge(claim, by_tag, configs=configs, corpora=properties or {}, chance=chance)


def test_t_interval_of_three_numbers():
    # mean 2, s = 1, t(2, 0.975) = 4.3027: 2 ± 4.3027 / √3
    found = stats.t_interval([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-5)
    assert found.high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-5)
    assert "3 seeds" in found.method


def test_one_seed_has_no_interval():
    found = stats.t_interval([0.4])
    assert found.mean == 0.4
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_t_test_of_two_numbers():
    # With one degree of freedom t is Cauchy: mean 2, s/√2 = 1, so p = 1 - 2/π · atan(2)
    assert stats.t_test([1.0, 3.0], 0) == pytest.approx(1 - 2 / math.pi * math.atan(2))
    assert stats.t_test([1.0, 3.0], 2) == pytest.approx(1)


def test_numbers_without_spread_prove_nothing():
    assert stats.t_test([0.3, 0.3, 0.3], 0) == 1
    assert stats.t_test([0.3], 0) == 1


def test_bootstrap_draws_photos_not_captions():
    hits = np.repeat([1, 0, 1, 0], 100)
    together = stats.bootstrap_interval(hits, np.repeat(np.arange(4), 100))
    apart = stats.bootstrap_interval(hits, np.arange(400))
    assert together.mean == apart.mean == 0.5
    # Of four photos none are hits in (1/2)^4 = 6 % of the draws, and all as often: 0 and 1.
    assert (together.low, together.high) == (0, 1)
    half = 1.96 * math.sqrt(0.25 / 400)
    assert apart.high - apart.low == pytest.approx(2 * half, rel=0.1)
    assert apart.method == "bootstrap over 400 photos"


def test_holm():
    # Sorted .01 ·3, .02 ·2, .04 ·1; each at least what came before.
    assert stats.holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert stats.holm([0.9, 0.9]) == [1, 1]
    assert stats.holm([]) == []


def test_spearman_by_hand():
    assert stats.spearman([1, 2, 3, 4], [10, 20, 30, 40]) == (pytest.approx(1), 2 / 24)
    rho, p = stats.spearman([1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1])
    assert rho == pytest.approx(-1)
    assert p == pytest.approx(2 / 720)
    # Ranks 1, 2.5, 2.5, 4: deviations -1.5, 0, 0, 1.5 against -1.5, -.5, .5, 1.5
    rho, p = stats.spearman([1, 2, 2, 4], [1, 2, 3, 4])
    assert rho == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert p == pytest.approx(4 / 24)  # the middle two may swap, and the whole order turn
    assert stats.spearman([1, 1, 1], [1, 2, 3]) == (0, 1)


def test_spearman_of_many():
    """scipy's p for ten and more is of Student's t, which is close by then."""
    rng = np.random.default_rng(0)
    for n in (10, 13):
        x = rng.random(n)
        for y in (x + 0.4 * rng.random(n), rng.random(n)):
            rho, p = stats.spearman(x, y)
            theirs = scipy.stats.spearmanr(x, y)
            assert rho == pytest.approx(theirs.statistic)
            assert p == pytest.approx(theirs.pvalue, abs=0.02)


def test_seeds_needed_are_enough_and_not_too_many():
    values = [0.01, 0.05]
    needed = stats.seeds_needed(values, 0, math.inf, 0.05)
    deviation, distance = np.std(values, ddof=1), np.mean(values)

    def p_with(n):
        # n numbers with that very mean and deviation
        spread = np.resize([-1.0, 1.0], n)
        spread -= spread.mean()
        return stats.t_test(distance + spread / spread.std(ddof=1) * deviation, 0)

    assert p_with(needed) <= 0.05 < p_with(needed - 1)
    assert stats.seeds_needed([-0.1, 0.1001], 0, math.inf, 0.05) is None


@pytest.mark.parametrize(
    ("difference", "verdict"), [(10, SUPPORTED), (-10, CONTRADICTED), (0.5, UNDECIDED)]
)
def test_a_beats_b(difference, verdict):
    found = verdict_on(
        better(A, B), cc=seeds(0.3, 0, 1, 2), sbu=seeds(0.3 - difference / 100, 1, 1, 1)
    )
    assert found.verdict == verdict
    (outcome,) = found.outcomes
    assert outcome.interval.mean == pytest.approx(difference / 100)
    assert ("more seed" in outcome.reason) == (verdict == UNDECIDED)


def test_seeds_are_paired():
    """Seeds differ by far more than the variants do, but always alike."""
    scores = {"cc": seeds(0.3, 0, 20, -20), "sbu": seeds(0.25, 0.1, 19.9, -20)}
    assert verdict_on(better(A, B), **scores).verdict == SUPPORTED
    shuffled = dict(zip(scores["sbu"], reversed(scores["sbu"].values())))
    assert verdict_on(better(A, B), cc=scores["cc"], sbu=shuffled).verdict == UNDECIDED


def test_only_seeds_that_both_have_are_compared():
    found = verdict_on(better(A, B), cc=seeds(0.3, 0, 1, 2, 50), sbu={1: 0.1, 2: 0.2})
    assert found.outcomes[0].interval.mean == pytest.approx((0.21 + 0.12) / 2)
    assert "2 seeds" in found.outcomes[0].test


def test_equality_within_a_margin():
    claim = equal(A, B, within=0.05)
    near = {"cc": seeds(0.3, 0, 1, 2, 1), "sbu": seeds(0.3, 1, 0, 1, 2)}
    assert verdict_on(claim, **near).verdict == SUPPORTED
    far = near | {"sbu": seeds(0.1, 1, 0, 1, 2)}
    assert verdict_on(claim, **far).verdict == CONTRADICTED
    noisy = near | {"sbu": seeds(0.3, 20, -20, 10, -10)}
    assert verdict_on(claim, **noisy).verdict == UNDECIDED


@pytest.mark.parametrize(
    "claim", [equal(A, B, within=0.05), better(A, B, by=-0.05), better(A, B, by=0.05)]
)
def test_a_margin_says_nothing_of_models_that_have_learned_nothing(claim):
    scores = {"cc": seeds(0.06, 0, 0.1, 0.2), "sbu": seeds(0.062, 0, 0.1, 0.3)}
    found = verdict_on(claim, chance=1 / 20, **scores)
    assert found.verdict == UNDECIDED
    (outcome,) = found.outcomes
    assert "no score is 0.05 above chance" in outcome.reason
    assert outcome.p == 1
    assert outcome.interval.mean == pytest.approx(-0.00233, abs=1e-5)
    assert verdict_on(claim, chance=1 / 100, **scores).verdict != UNDECIDED


def test_a_margin_that_says_nothing_is_still_counted():
    """Or what another comparison needs would depend on how this one came out."""
    low = {"sbu": seeds(0.01, 0, 1, 2), "vg": seeds(0.01, 1, 0, 2)}
    alone = verdict_on(better(A, B), cc=seeds(0.3, 2, 0, 1), **low)
    both = verdict_on(better(A, B), equal(B, C), cc=seeds(0.3, 2, 0, 1), **low)
    assert alone.outcomes[0].p < 0.01
    assert both.outcomes[0].p == pytest.approx(2 * alone.outcomes[0].p)


def test_a_small_loss_is_not_a_contradiction_of_costs_at_most():
    scores = {"cc": seeds(0.30, 0, 1, 2), "sbu": seeds(0.32, 0.1, 0.9, 2)}
    assert verdict_on(better(A, B), **scores).verdict == CONTRADICTED
    assert verdict_on(better(A, B, by=-MARGIN), **scores).verdict == SUPPORTED
    assert verdict_on(better(B, A, by=MARGIN), **scores).verdict == CONTRADICTED


def test_one_seed_is_undecided_and_says_what_is_lacking():
    found = verdict_on(better(A, B), cc={0: 0.9}, sbu={0: 0.1})
    assert found.verdict == UNDECIDED
    assert "at least 1 more seed" in found.outcomes[0].reason


def test_a_claim_is_as_good_as_its_worst_part():
    scores = {
        "cc": seeds(0.5, 0, 1, 2),
        "sbu": seeds(0.3, 0.1, 0.9, 2),
        "vg": seeds(0.1, 0.2, 1, 2),
        "mscoco": seeds(0.3, 1, 0, 2.1),
    }
    good, bad, open_ = better(A, B), better(C, A), better(B, D)
    assert verdict_on(good, better(B, C), **scores).verdict == SUPPORTED
    assert verdict_on(good, bad, open_, **scores).verdict == CONTRADICTED
    assert verdict_on(good, open_, **scores).verdict == UNDECIDED


def test_one_example_proves_a_claim_that_examples_prove():
    scores = {
        "cc": seeds(0.5, 0, 1, 2),
        "sbu": seeds(0.3, 0.1, 0.9, 2),
        "vg": seeds(0.3, 1, 0, 2.1),
    }
    good, bad, open_ = better(A, B), better(B, A), better(B, C)

    def verdict(*comparisons):
        claim = Claim("X", "some do", "Q", comparisons, by_example=True)
        by_tag = {f"data_{name}": values for name, values in scores.items()}
        return judge(claim, by_tag, configs=CONFIGS, corpora={}).verdict

    assert verdict(good, bad) == verdict(good, open_) == SUPPORTED
    assert verdict(bad, better(C, A)) == CONTRADICTED
    assert verdict(bad, open_) == UNDECIDED


def test_several_comparisons_are_corrected_for():
    scores = {
        "cc": seeds(0.3, 0, 1, 2),
        "sbu": seeds(0.28, 0.3, 0.9, 1.8),
        "vg": seeds(0.3, 1, 2, 0),
    }
    alone = verdict_on(better(A, B), **scores)
    together = verdict_on(better(A, B), better(A, C), better(C, A), **scores)
    assert alone.verdict == SUPPORTED
    assert together.outcomes[0].p == pytest.approx(3 * alone.outcomes[0].p)


def test_depth_is_not_judged_where_models_are_shallow():
    every = {tag: seeds(0.3, 0, 1, 2) for tag in variants.VARIANTS}
    pilots = {tag: variants.get_config(tag, scale="pilot") for tag in every}
    found = judge(CLAIMS["C7"], every, configs=pilots, corpora={})
    assert not found.spoken_to
    assert "scale=tiny" in found.outcomes[0].reason
    assert judge(CLAIMS["C9"], every, configs=pilots, corpora={}).spoken_to


def test_missing_tags_are_named_and_do_not_support():
    scores = {"cc": seeds(0.5, 0, 1, 2), "sbu": seeds(0.3, 0.1, 0.9, 2)}
    found = verdict_on(better(A, B), better(A, D), **scores)
    assert found.verdict == UNDECIDED
    assert found.missing == (D,)
    assert found.spoken_to
    nothing = verdict_on(better(C, D), **scores)
    assert not nothing.spoken_to
    assert nothing.missing == (C, D)


def test_runs_that_differ_in_name_alone_are_not_compared():
    """As when every data row is trained on the same folder."""
    configs = {
        tag: dataclasses.replace(config, data=DataConfig(source="regions:photos"))
        for tag, config in CONFIGS.items()
    }
    scores = {"cc": seeds(0.5, 0, 1, 2), "sbu": seeds(0.3, 0.1, 0.9, 2)}
    found = verdict_on(better(A, B), configs=configs, **scores)
    assert not found.spoken_to
    assert "the same model and data" in found.outcomes[0].reason


def test_gain_of_gains():
    # cc - sbu = .2, vg - mscoco = .05
    contrast = gains_more("a gains more", (A, B), (C, D))
    assert contrast.value({A: 0.5, B: 0.3, C: 0.25, D: 0.2}) == pytest.approx(0.15)


def test_slope_of_a_line():
    contrast = rises("rises", {A: 1, B: 2, C: 6})
    assert contrast.value({A: 0.1, B: 0.13, C: 0.25}) == pytest.approx(0.03)


def test_spread_of_groups():
    comparison = Spread("kinds differ more", (A, B), (C, D))
    # Two numbers deviate by their distance / √2.
    value = comparison.value({A: 0.5, B: 0.1, C: 0.3, D: 0.2})
    assert value == pytest.approx((0.4 - 0.1) / math.sqrt(2))


SIX = CLAIMS["C1"].comparisons[0].tags
PROPERTIES = {
    tag: Properties(photos=1000, wrong=wrong, perplexity=value)
    for tag, wrong, value in zip(SIX, (0.1, 0.4, 0, 0, 0, 0), (97, 270, 90, 64, 104, 111))
}


def correlation(scores, tags=SIX):
    by_tag = dict(zip(tags, ({0: score} for score in scores)))
    return judge(CLAIMS["C1"], by_tag, configs=CONFIGS, corpora=PROPERTIES)


def test_corpora_that_score_as_their_properties_say():
    # Mean ranks (wrong; perplexity): cc 4, sbu 6, vg 2.25, mscoco 1.75, narratives 3.25 and 3.75
    found = correlation([0.2, 0.1, 0.5, 0.6, 0.4, 0.3])
    assert found.verdict == SUPPORTED
    assert found.outcomes[0].interval.mean == pytest.approx(1)
    assert found.outcomes[0].p == pytest.approx(2 / 720)


def test_corpora_that_score_the_other_way_round_or_anyhow():
    assert correlation([0.5, 0.6, 0.2, 0.1, 0.3, 0.4]).verdict == CONTRADICTED
    found = correlation([0.3, 0.4, 0.1, 0.2, 0.6, 0.5])
    assert found.verdict == UNDECIDED
    assert "more corpora" in found.outcomes[0].reason


def test_correlation_needs_all_corpora():
    found = correlation([0.2, 0.1], SIX[:2])
    assert not found.spoken_to
    assert found.missing == SIX[2:]


def test_corpora_whose_dials_were_turned_count_where_they_were_run():
    dialled = [variants.parse(row).tag for row in variants.DIALLED]
    wrong = (0.1, 0.2, 0.4, 0.0, 0.0, 0.0, 0.2)
    far = (64, 64, 64, 90, 120, 200, 120)
    known = PROPERTIES | {
        tag: Properties(photos=1000, wrong=a, perplexity=b)
        for tag, a, b in zip(dialled, wrong, far, strict=True)
    }
    scores = dict(zip(SIX, ({0: s} for s in (0.2, 0.1, 0.5, 0.6, 0.4, 0.3))))
    more = dict(zip(dialled, ({0: s} for s in (0.3, 0.25, 0.2, 0.5, 0.4, 0.3, 0.15))))
    found = judge(CLAIMS["C1"], scores | more, configs=CONFIGS, corpora=known)
    assert "over 13 corpora" in found.outcomes[0].test
    assert found.verdict == SUPPORTED
    some = judge(CLAIMS["C1"], scores | {dialled[0]: {0: 0.3}}, configs=CONFIGS, corpora=known)
    assert "over 7 corpora" in some.outcomes[0].test


def test_every_claim_is_about_known_tags():
    assert list(CLAIMS) == [f"C{n}" for n in range(1, 12)]
    for claim in CLAIMS.values():
        for comparison in claim.comparisons:
            assert set(comparison.tags) <= set(variants.VARIANTS)
            if not isinstance(comparison, Spread | Correlation):
                weights = comparison.weights.values()
                assert sum(weights) == pytest.approx(0)  # a constant added to all changes nothing


def test_no_claim_compares_equal_configs():
    every = {tag: seeds(0.3, 0, 1, 2) for tag in variants.VARIANTS}
    for claim in CLAIMS.values():
        found = judge(claim, every, configs=CONFIGS, corpora=PROPERTIES)
        assert all(outcome.test for outcome in found.outcomes), claim.id


def test_generated_corpora_have_the_properties_ascribed_to_them(monkeypatch):
    monkeypatch.setattr(corpora, "PHOTOS", 256)
    tags = ("data_cc", "data_sbu", "data_mscoco", "data_combined-dataset")
    found = corpora.properties({tag: CONFIGS[tag] for tag in tags}, target="scenes", split="val")
    assert set(found) == set(tags[:3])  # a mixture is no corpus of its own
    assert found["data_sbu"].wrong > found["data_cc"].wrong > found["data_mscoco"].wrong == 0
    near, far = found["data_mscoco"].perplexity, found["data_sbu"].perplexity
    assert near < found["data_cc"].perplexity < far
