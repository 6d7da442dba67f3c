import jaxtyping
import numpy as np
import pytest

from mmt_jax.errors import UsageError
from mmt_jax.infer import ranking


def one_relevant(*columns, items):
    return np.array(columns)[:, None] == np.arange(items)


def test_ranks_by_hand():
    scores = np.array([[0.9, 0.1, 0.5], [0.9, 0.1, 0.5], [0.9, 0.1, 0.5]])
    ranks = ranking.ranks(scores, one_relevant(0, 1, 2, items=3))
    np.testing.assert_array_equal(ranks, [1, 3, 2])


def test_ties_count_against_the_model():
    scores = np.array([[2.0, 2.0, 1.0, 2.0]])
    np.testing.assert_array_equal(ranking.ranks(scores, one_relevant(0, items=4)), [3])
    constant = np.zeros((5, 5))
    np.testing.assert_array_equal(ranking.ranks(constant, np.eye(5, dtype=bool)), [5] * 5)


def test_best_of_several_relevant_items_counts_and_their_ties_do_not_hurt():
    scores = np.array([[0.2, 0.7, 0.7, 0.8], [0.9, 0.9, 0.1, 0.3], [0.5, 0.1, 0.5, 0.2]])
    relevant = np.array(
        [[True, True, True, False], [True, True, False, False], [True, True, False, False]]
    )
    # First: one irrelevant item above the two tied best. Third: tied with an irrelevant one.
    np.testing.assert_array_equal(ranking.ranks(scores, relevant), [2, 1, 2])


def test_infinite_scores_rank():
    scores = np.array([[-np.inf, 0.0], [np.inf, 0.0], [-np.inf, -np.inf]])
    np.testing.assert_array_equal(ranking.ranks(scores, one_relevant(0, 0, 0, items=2)), [2, 1, 2])


def test_nan_is_refused():
    scores = np.ones((2, 3))
    scores[1, 2] = np.nan
    with pytest.raises(UsageError, match="query 1 and item 2 is NaN"):
        ranking.ranks(scores, one_relevant(0, 1, items=3))


def test_a_query_without_relevant_item_is_refused():
    with pytest.raises(ValueError, match="query 1"):
        ranking.ranks(np.ones((2, 2)), np.array([[True, False], [False, False]]))


def test_shapes_must_agree():
    with pytest.raises(jaxtyping.TypeCheckError, match="relevant"):
        ranking.ranks(np.ones((2, 3)), np.ones((3, 2), bool))


@pytest.mark.parametrize("seed", range(5))
def test_ranks_equal_a_pessimistic_sort(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, (20, 12)).astype(np.float32)  # many ties
    relevant = rng.random((20, 12)) < 0.2
    relevant[np.arange(20), rng.integers(0, 12, 20)] = True
    expected = []
    for row, good in zip(scores, relevant):
        # Irrelevant items first among equals; the rank is where the first relevant one stands, less
        # nothing, for no relevant item can stand ahead of it.
        order = sorted(range(12), key=lambda item: (-row[item], good[item]))
        expected.append(1 + next(place for place, item in enumerate(order) if good[item]))
    np.testing.assert_array_equal(ranking.ranks(scores, relevant), expected)


def test_ranks_are_unmoved_by_monotone_maps_and_by_order():
    rng = np.random.default_rng(0)
    scores, relevant = rng.normal(size=(8, 9)), np.eye(8, 9, dtype=bool)
    ranks = ranking.ranks(scores, relevant)
    np.testing.assert_array_equal(ranking.ranks(np.exp(scores), relevant), ranks)
    shuffled = rng.permutation(9)
    moved = ranking.ranks(scores[:, shuffled], relevant[:, shuffled])
    np.testing.assert_array_equal(moved, ranks)


def test_precision_by_hand():
    scores = np.array([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [0.5, 0.5, 0.5, 0.1, 0.0, 0.9]])
    relevant = np.array([[True, False, True, False, False, True], [True, False] + [False] * 4])
    average, shares = ranking.precision(scores, relevant)
    # First: at places 1, 3 and 6. Second: behind .9 and two that are tied with it.
    np.testing.assert_allclose(average, [(1 / 1 + 2 / 3 + 3 / 6) / 3, 1 / 4])
    np.testing.assert_allclose(shares, [[1 / 3, 2 / 3, 1], [0, 1, 1]])


def test_average_precision_is_the_mean_precision_at_what_is_relevant():
    rng = np.random.default_rng(0)
    scores, relevant = rng.normal(size=(9, 30)), rng.random((9, 30)) < 0.2
    relevant[:, 0] = True
    expected = []
    for row, wanted in zip(scores, relevant, strict=True):
        shown = [wanted[row >= score] for score in row[wanted]]  # as far as each that is relevant
        expected.append(np.mean([found.mean() for found in shown]))
    np.testing.assert_allclose(ranking.precision(scores, relevant)[0], expected)


def test_summary_by_hand():
    ranks = np.array([1, 2, 5, 6, 10, 11])
    assert ranking.recall(ranks, 2) == pytest.approx(2 / 6)
    assert ranking.summary(ranks) == pytest.approx(
        {"r@1": 1 / 6, "r@5": 3 / 6, "r@10": 5 / 6, "median_rank": 5.5, "mean_rank": 35 / 6}
    )
