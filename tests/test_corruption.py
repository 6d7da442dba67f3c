"""What is hidden: words of captions and regions of photos."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from mmt_jax.objectives import corruption
from mmt_jax.typing import Image, Text

CLS, SEP, PAD, MASK = 3, 4, 6, 6
VOCAB = 40
mask_words = jax.jit(corruption.mask_words, static_argnames=("rate", "vocab_size", "mask_id"))
mask_regions = jax.jit(corruption.mask_regions, static_argnames=("rate", "global_region"))


def captions(pieces, *, rows=1, length=None):
    """`rows` times one caption, whose words have these numbers of pieces, with random ids."""
    tokens = sum(pieces)
    length = length or tokens + 2
    word_ids = np.full((rows, length), -2)
    word_ids[:, length - tokens - 2 :] = [-1, *np.repeat(np.arange(len(pieces)), pieces), -1]
    token_ids = np.random.default_rng(0).integers(7, VOCAB, (rows, length))
    token_ids[word_ids == -2] = PAD
    token_ids[:, length - tokens - 2] = SEP
    token_ids[:, -1] = CLS
    segment_ids = np.zeros_like(token_ids)
    segment_ids[:, -1] = 2
    return Text(token_ids.astype(np.int32), segment_ids, word_ids, word_ids != -2)


def photos(boxes, *, rows=1, padding=1):
    """`rows` times a photo with regions at `boxes`, padding in front, the global region last."""
    boxes = np.array([[0, 0, 0, 0]] * padding + [*boxes, [0, 0, 1, 1]], np.float32)
    boxes = np.broadcast_to(boxes, (rows, *boxes.shape))
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    mask = np.broadcast_to(np.arange(boxes.shape[1]) >= padding, boxes.shape[:2])
    features = np.random.default_rng(0).uniform(1, 2, (*boxes.shape[:2], 3)).astype(np.float32)
    return Image(features, np.concatenate([boxes, area[..., None]], axis=-1), mask)


def within(frequency, probability, draws):
    """Whether a frequency is within five standard errors of its probability."""
    return abs(frequency - probability) < 5 * np.sqrt(probability * (1 - probability) / draws)


# --- Words ---

PIECES, ROWS, PADDING = (1, 2, 1, 1, 2, 2, 1, 2, 1, 2), 3000, 3


@functools.cache
def hidden_words():
    """Many captions of ten words, their corruption, and [rows, T] bool: what was chosen."""
    text = captions(PIECES, rows=ROWS, length=sum(PIECES) + 2 + PADDING)
    hidden, targets = mask_words(
        text, rate=0.2, vocab_size=VOCAB, mask_id=MASK, key=jax.random.key(0)
    )
    chosen = np.zeros(text.mask.shape, bool)
    rows, slots = np.nonzero(targets.mask)
    chosen[rows, np.asarray(targets.positions)[rows, slots]] = True
    return text, jax.tree.map(np.asarray, hidden), jax.tree.map(np.asarray, targets), chosen


def test_that_share_of_words_is_chosen_each_word_as_often():
    text, _, _, chosen = hidden_words()
    words = np.stack([(chosen & (text.word_ids == word)).any(axis=1) for word in range(10)])
    np.testing.assert_array_equal(words.sum(axis=0), 2)
    assert all(within(share, 0.2, ROWS) for share in words.mean(axis=1))


def test_pieces_of_a_word_are_chosen_together():
    text, _, _, chosen = hidden_words()
    for word, pieces in enumerate(PIECES):
        count = (chosen & (text.word_ids == word)).sum(axis=1)
        assert set(np.unique(count)) == {0, pieces}


def test_specials_and_padding_are_never_chosen_and_the_rest_stays():
    text, hidden, _, chosen = hidden_words()
    assert not chosen[text.word_ids < 0].any()
    np.testing.assert_array_equal(hidden.token_ids[~chosen], text.token_ids[~chosen])
    for field in ("segment_ids", "word_ids", "mask"):
        np.testing.assert_array_equal(getattr(hidden, field), getattr(text, field))


def test_of_the_chosen_80_percent_are_masked_10_replaced_10_kept():
    text, hidden, _, chosen = hidden_words()
    before, after = text.token_ids[chosen], hidden.token_ids[chosen]
    masked, kept = after == MASK, after == before
    replaced = after[~masked & ~kept]
    words = VOCAB - 7  # a random piece is the same by chance once in that many times
    assert within(masked.mean(), 0.8, chosen.sum())
    assert within(kept.mean(), 0.1 + 0.1 / words, chosen.sum())
    assert set(np.unique(replaced)) == set(range(7, VOCAB))


def test_targets_are_what_stood_there():
    text, _, targets, chosen = hidden_words()
    originals = np.take_along_axis(text.token_ids, targets.positions, axis=1)
    np.testing.assert_array_equal(targets.token_ids, originals)
    np.testing.assert_array_equal(targets.mask.sum(axis=1), chosen.sum(axis=1))


@pytest.mark.parametrize(("words", "chosen"), [(0, 0), (1, 1), (3, 1), (9, 1), (10, 2), (17, 3)])
def test_at_least_one_word_is_chosen_where_there_is_one(words, chosen):
    text = captions([1] * words, rows=5, length=20)
    _, targets = mask_words(text, rate=0.15, vocab_size=VOCAB, mask_id=MASK, key=jax.random.key(1))
    np.testing.assert_array_equal(targets.mask.sum(axis=1), chosen)


def test_tokens_beyond_the_limit_are_hidden_and_not_predicted():
    text = captions([12], rows=50)
    hidden, targets = mask_words(
        text, rate=0.15, vocab_size=VOCAB, mask_id=MASK, key=jax.random.key(0)
    )
    assert targets.mask.shape == (50, 5)  # twice 15 % of 14 tokens
    assert np.asarray(targets.mask).all()
    changed = np.asarray(hidden.token_ids != text.token_ids)[:, 1:-1]
    assert within(changed.mean(), 0.9 - 0.1 / (VOCAB - 7), changed.size)


def test_what_is_hidden_is_a_function_of_the_key():
    text = captions([1] * 10, rows=4)
    first, same, other = (
        mask_words(text, rate=0.3, vocab_size=VOCAB, mask_id=MASK, key=jax.random.key(seed))[1]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.positions, same.positions)
    assert not np.array_equal(first.positions, other.positions)


@pytest.mark.parametrize(("mask_id", "pieces"), [(4, range(5, 40)), (39, range(39))])
def test_random_pieces_are_those_behind_the_mask_or_before_it_if_it_is_the_last(mask_id, pieces):
    text = captions([1] * 10, rows=400)
    text = dataclasses.replace(text, token_ids=np.full_like(text.token_ids, 1000))
    arguments = {"rate": 0.9, "vocab_size": VOCAB, "mask_id": mask_id}
    hidden, _ = mask_words(text, **arguments, key=jax.random.key(0))
    changed = np.asarray(hidden.token_ids)[hidden.token_ids != 1000]
    drawn = changed[changed != mask_id]
    assert within(len(drawn) / len(changed), 1 / 9, len(changed))
    assert set(drawn.tolist()) == set(pieces)


# --- Regions ---

STRIPES = [[0, x / 5, 1, (x + 1) / 5] for x in range(5)]  # side by side, none overlaps another


def hide_regions(image, *, rate, seed=0):
    """[B, R] bool twice: the chosen regions, and those whose features are gone."""
    hidden, chosen = mask_regions(image, rate=rate, global_region=True, key=jax.random.key(seed))
    zeroed = (np.asarray(hidden.features) == 0).all(axis=-1)
    np.testing.assert_array_equal(hidden.features[~zeroed], image.features[~zeroed])
    np.testing.assert_array_equal(hidden.boxes, image.boxes)
    return np.asarray(chosen), zeroed


def test_that_share_of_regions_is_chosen_and_90_percent_of_them_zeroed():
    chosen, zeroed = hide_regions(photos(STRIPES, rows=2000), rate=0.15)
    regions = slice(1, 6)
    assert all(within(share, 0.15, 2000) for share in chosen[:, regions].mean(axis=0))
    assert within(zeroed[chosen].mean(), 0.9, chosen.sum())
    assert not zeroed[~chosen].any()


def test_padding_and_the_global_region_are_never_chosen():
    chosen, zeroed = hide_regions(photos(STRIPES, rows=20, padding=3), rate=1.0)
    np.testing.assert_array_equal(chosen, [[False] * 3 + [True] * 5 + [False]] * 20)
    assert not zeroed[:, [0, 1, 2, -1]].any()


def test_without_a_global_region_every_region_can_be_chosen():
    image = photos(STRIPES, rows=20, padding=3)
    _, chosen = mask_regions(image, rate=1.0, global_region=False, key=jax.random.key(0))
    np.testing.assert_array_equal(chosen, image.mask)


def test_what_overlaps_a_zeroed_region_is_zeroed_with_it():
    # IoU with the first: .53, .39; the second and third: .74; the last is nearly the whole photo.
    boxes = [[0, 0, 0.4, 0.5], [0, 0, 0.38, 1], [0, 0, 0.512, 1], [0, 0, 1, 0.999]]
    image = photos(boxes, rows=3000)
    near = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]], bool)
    np.testing.assert_array_equal(corruption.iou(image.boxes)[0, 1:5, 1:5] > 0.4, near)
    chosen, zeroed = (x[:, 1:] for x in hide_regions(image, rate=0.15))
    assert not zeroed[:, -1].any()  # the global region, though the last region covers it
    zeroed, chosen = zeroed[:, :-1], chosen[:, :-1]
    only = chosen & (chosen.sum(axis=1) == 1)[:, None]
    for region in range(4):
        rows = zeroed[only[:, region]]
        assert within(rows[:, region].mean(), 0.9, len(rows))
        np.testing.assert_array_equal(rows, rows[:, [region]] & near[region])


def test_iou_by_hand():
    boxes = np.array(
        [
            [0, 0, 0.4, 0.4],
            [0.2, 0.2, 0.6, 0.6],  # a quarter of each: .04 / .28
            [0, 0, 0.4, 0.8],  # half of it; .08 of .16 + .32 - .08 with the second
            [0.8, 0.8, 1, 1],  # apart
            [0.4, 0, 0.8, 0.4],  # touches the first; .04 with the second
            [0, 0, 0, 0],  # padding
        ],
        np.float32,
    )
    wanted = np.zeros((6, 6))
    wanted[[0, 0, 1, 1], [1, 2, 2, 4]] = [1 / 7, 1 / 2, 0.08 / 0.40, 1 / 7]
    wanted += wanted.T + np.diag([1, 1, 1, 1, 1, 0])
    np.testing.assert_allclose(corruption.iou(boxes[None])[0], wanted, atol=1e-6)
