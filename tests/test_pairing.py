"""Who meets whom in a batch."""

import jax
import numpy as np
import pytest

from mmt_jax.errors import UsageError
from mmt_jax.objectives import pairing

mismatched = jax.jit(pairing.mismatched, static_argnames="rate")
PHOTOS = np.array([7, 7, 3, 5, 3, 9, 1, 7], np.int32)  # with several captions of one photo


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5, 1.0])
def test_that_share_of_captions_meets_a_photo_that_is_not_its_own(rate):
    for seed in range(20):
        pairs = mismatched(PHOTOS, rate=rate, key=jax.random.key(seed))
        wrong = ~np.asarray(pairs.matched)
        assert wrong.sum() == rate * len(PHOTOS)
        np.testing.assert_array_equal(pairs.text, np.arange(8))
        np.testing.assert_array_equal(PHOTOS[pairs.image] != PHOTOS, wrong)
        np.testing.assert_array_equal(np.asarray(pairs.image)[~wrong], np.arange(8)[~wrong])
        np.testing.assert_array_equal(pairs.aligned, np.arange(8))


def test_a_caption_without_another_photo_stays_matched():
    pairs = mismatched(np.array([4, 4, 4]), rate=1.0, key=jax.random.key(0))
    assert np.asarray(pairs.matched).all()
    np.testing.assert_array_equal(pairs.image, np.arange(3))


def test_wrong_captions_and_their_photos_are_drawn_evenly():
    draws = jax.vmap(lambda key: pairing.mismatched(PHOTOS, rate=0.5, key=key))(
        jax.random.split(jax.random.key(0), 2000)
    )
    wrong = ~np.asarray(draws.matched)
    np.testing.assert_allclose(wrong.mean(axis=0), 0.5, atol=5 * np.sqrt(0.25 / 2000))
    # Caption 6 is the only one of its photo: seven others are as likely.
    met = np.bincount(np.asarray(draws.image)[wrong[:, 6], 6], minlength=8) / wrong[:, 6].sum()
    wanted = np.where(np.arange(8) == 6, 0, 1 / 7)
    np.testing.assert_allclose(met, wanted, atol=5 * np.sqrt(1 / 7 * 6 / 7 / 900))


def test_matched_pairs():
    pairs = pairing.matched(3)
    for field in (pairs.text, pairs.image, pairs.aligned):
        np.testing.assert_array_equal(field, [0, 1, 2])
    assert np.asarray(pairs.matched).all()


def test_another_caption_of_the_same_photo_is_no_candidate():
    allowed = pairing.distinct(np.array([7, 7, 3, 5, 3, 5]), num=3)
    wanted = [
        [[True, False, True], [False, True, True], [True, True, True]],
        [[True, True, False], [True, True, True], [False, True, True]],
    ]
    np.testing.assert_array_equal(allowed, wanted)


@pytest.mark.parametrize("num", [1, 4])
def test_candidates_that_do_not_divide_the_batch_are_refused(num):
    message = rf"config\.objective\.candidates={num} .*6 pairs"
    with pytest.raises(UsageError, match=message):
        pairing.distinct(np.arange(6), num=num)
