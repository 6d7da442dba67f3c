"""Batches: what is gathered, in which order, and how the order goes on."""

import collections
import dataclasses
import itertools

import jax
import numpy as np
import pytest
import tiny

from mmt_jax.configs.config import Config, DataConfig, MMTConfig
from mmt_jax.corpus import Corpus
from mmt_jax.data import feed, pipeline, regions
from mmt_jax.errors import UsageError
from mmt_jax.objectives import losses, per_example
from mmt_jax.photo import FEATURES, rows
from mmt_jax.text import vocabulary

SENTENCE = "a red dog runs over two green hills near some old trees and a lake"


def corpus(
    photos,
    *,
    name="one",
    seed=0,
    captions=2,
    first_id=0,
    dtype=np.float32,
    classes=9,
    pixels=None,
):
    """Photos of 0 to 4 regions beside the whole photo, captions of 1 to 7 words."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 6, photos)
    count, offsets = int(counts.sum()), np.concatenate([[0], np.cumsum(counts)])
    corners = np.sort(rng.random((count, 2, 2), np.float32), axis=1).reshape(count, 4)
    corners[offsets[1:] - 1] = [0, 0, 1, 1]
    features = (rng.random((count, 6)) * 255).astype(dtype)
    texts = tuple(
        tuple(" ".join(rng.choice(SENTENCE.split(), 1 + (i + j) % 7)) for j in range(captions))
        for i in range(photos)
    )
    labels = {
        "scores": rng.random(count, np.float32),
        "class_ids": rng.integers(0, 9, (count, 2)).astype(np.int32),
        "class_probs": np.full((count, 2), 0.4, np.float32),
    }
    if not classes:
        del labels["class_ids"], labels["class_probs"]
    return Corpus(
        name=name,
        image_ids=first_id + np.arange(photos),
        offsets=offsets,
        captions=texts,
        rows=rows(features, corners, **labels),
        num_classes=classes,
        pixels=pixels,
    )


def with_rows(data, **changed):
    """The corpus with other rows, by the last part of their keys."""
    named = {f"image/{name}": values for name, values in changed.items()}
    return dataclasses.replace(data, rows=data.rows | named)


@pytest.fixture(scope="module")
def tokenizer():
    return vocabulary.train([SENTENCE] * 20, 60)


@pytest.fixture(scope="module")
def examples(tokenizer):
    return pipeline.Examples([corpus(11)], tokenizer)


def _same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_batch_is_what_one_at_a_time_gives(tokenizer, examples):
    data = corpus(11)
    photos, captions = np.array([3, 10, 3]), np.array([7, 20, 6])
    batch = examples.batch(photos, captions)
    for row, photo in enumerate(photos):
        alone = regions.record(data, int(photo))
        mask = batch.image.mask[row]
        assert mask.sum() == len(alone["image/padding_mask"])
        np.testing.assert_array_equal(
            batch.image.features[row][mask], alone["image/detection_features"]
        )
        np.testing.assert_array_equal(batch.image.boxes[row][mask], alone["image/bboxes"])
        assert not batch.image.features[row][~mask].any()
        caption = data.captions[photo][captions[row] - 2 * photo]
        expected = tokenizer.texts([caption], length=batch.text.token_ids.shape[1])
        _same(jax.tree.map(lambda value, row=row: value[row : row + 1], batch.text), expected)
    np.testing.assert_array_equal(batch.image_ids, photos)


def test_shapes_dtypes_and_host_memory(examples):
    batch = examples.batch(np.arange(5), np.arange(0, 10, 2))
    image, words = batch.image, batch.text
    counts = np.diff(corpus(11).offsets)
    assert image.features.shape == (5, counts.max(), 6)
    assert image.boxes.shape == (5, counts.max(), 5)
    assert image.class_ids.shape == image.class_probs.shape == (5, counts.max(), 2)
    for leaf in jax.tree.leaves(batch):
        assert isinstance(leaf, np.ndarray)
    dtypes = {
        "f": (image.features, image.boxes, image.class_probs),
        "i": (words.token_ids, words.segment_ids, words.word_ids, image.class_ids, batch.image_ids),
        "b": (words.mask, image.mask),
    }
    for kind, arrays in dtypes.items():
        for array in arrays:
            assert array.dtype == {"f": np.float32, "i": np.int32, "b": bool}[kind]


def test_length_is_that_of_the_longest_caption_up_to_the_cap(tokenizer):
    data = dataclasses.replace(corpus(2), captions=(("a red dog",), ("a",)))
    longest = len(tokenizer.encode("a red dog")) + 2
    for cap, length in ((25, longest), (longest - 1, longest - 1), (3, 3)):
        examples = pipeline.Examples([data], tokenizer, text_length=cap)
        assert examples.texts(np.array([0])).token_ids.shape == (1, length)


def test_regions_up_to_the_cap(tokenizer):
    examples = pipeline.Examples([corpus(11)], tokenizer, max_regions=2)
    assert examples.images(np.arange(3)).features.shape == (3, 3, 6)


def test_release_reading(tokenizer):
    data = corpus(11)
    examples = pipeline.Examples([data], tokenizer, reading="release")
    image = examples.images(np.arange(11))
    for photo in range(11):
        alone = regions.record(data, photo, regions.Reading(reading="release"))
        mask = image.mask[photo]
        expected = alone["image/detection_features"]
        np.testing.assert_allclose(image.features[photo][mask], expected, rtol=1e-5)


def test_a_mixture_is_its_parts_side_by_side(tokenizer):
    """Also where one stores uint8 and has no classes, and the other has more regions."""
    parts = [
        corpus(4),
        corpus(5, seed=1, first_id=4, dtype=np.uint8, classes=0),
        corpus(3, seed=2, first_id=9, dtype=np.float16, captions=1),
    ]
    mixed = pipeline.Examples(parts, tokenizer)
    assert mixed.sizes == (4, 5, 3)
    assert mixed.num_classes == 9
    order = np.array([11, 0, 8, 4, 3])
    image = mixed.images(order)
    for row, (part, photo) in enumerate([(2, 2), (0, 0), (1, 4), (1, 0), (0, 3)]):
        alone = pipeline.Examples([parts[part]], tokenizer).images(np.array([photo]))
        real, mask = image.mask[row], alone.mask[0]
        for name in ("features", "boxes", "class_ids", "class_probs"):
            expected = getattr(alone, name)
            actual = getattr(image, name)[row][real]
            np.testing.assert_array_equal(actual, 0 if expected is None else expected[0][mask])
    assert mixed.captions == tuple(c for part in parts for photo in part.captions for c in photo)
    np.testing.assert_array_equal(mixed.caption_to_image[-4:], [8, 9, 10, 11])


def test_a_shorter_list_of_classes_means_the_same_in_a_mixture(tokenizer):
    short = corpus(4)
    count = short.offsets[-1]
    ids = np.stack([np.arange(count) % 9, np.arange(1, count + 1) % 9], axis=1).astype(np.int32)
    short = with_rows(short, class_ids=ids)
    wide = {"class_ids": np.zeros((count, 4), np.int32), "class_probs": np.zeros((count, 4))}
    other = dataclasses.replace(short, image_ids=short.image_ids + 4)
    parts = [short, with_rows(other, **wide)]
    found = []
    for corpora in (parts, parts[:1]):
        image = pipeline.Examples(corpora, tokenizer).images(np.arange(4))
        logits = np.tile(np.linspace(-2, 2, 9), (image.mask.sum(), 1))
        divergence = per_example.class_divergence(
            logits, image.class_ids[image.mask], image.class_probs[image.mask]
        )
        found.append((image.class_ids.shape[-1], divergence))
    assert [width for width, _ in found] == [4, 2]
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-5)


def test_equal_ids_are_the_same_photo(tokenizer):
    parts = [corpus(3, first_id=2**40), corpus(3, first_id=2**40 + 2)]
    examples = pipeline.Examples(parts, tokenizer)
    ids = examples.batch(np.arange(6), np.arange(0, 12, 2)).image_ids
    assert ids.dtype == np.int32
    assert ids[2] == ids[3]
    assert len(set(ids.tolist())) == 5


def test_everything_once(examples):
    np.testing.assert_array_equal(examples.masks, examples.images(np.arange(11)).mask)
    np.testing.assert_array_equal(examples.caption_to_image, np.repeat(np.arange(11), 2))
    assert len(examples) == 11
    assert len(examples.captions) == 22


def test_pixels(tokenizer):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), np.uint8)
    data = corpus(3, pixels=pixels)
    config = Config(model=MMTConfig(pixels=True, patch_size=2))
    examples = pipeline.Examples.of(config, [data], tokenizer)
    image = examples.images(np.array([2, 0]))
    np.testing.assert_array_equal(examples.masks, examples.images(np.arange(3)).mask)
    expected = pixels[[2, 0]] / np.float32(255)
    np.testing.assert_array_equal(examples.pixels(np.array([2, 0])), expected)
    features, boxes = regions.patches(pixels[[2, 0]].astype(np.float32) / 255, 2)
    np.testing.assert_array_equal(image.features, features)
    np.testing.assert_array_equal(image.boxes, boxes)
    assert image.features.shape == (2, 7, 12)
    assert image.mask.all()
    assert image.class_ids is None
    assert examples.num_classes == 0
    both = pipeline.Examples([data, data], tokenizer, patch_size=2)
    np.testing.assert_array_equal(both.images(np.array([5])).features, features[:1])


# Order.


def _photos(examples, steps, **arguments):
    stream = feed.batches(examples, **{"seed": 0, "batch_size": 4} | arguments)
    return [
        photo for batch in itertools.islice(stream, steps) for photo in batch.image_ids.tolist()
    ]


def test_each_epoch_shows_each_photo_once_in_a_new_order(examples):
    drawn = _photos(examples, 11)
    epochs = [drawn[start : start + 11] for start in range(0, 44, 11)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(11))
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_pairs_are_matched(examples):
    stream = feed.batches(examples, seed=3, batch_size=5)
    for batch in itertools.islice(stream, 6):
        for row, photo in enumerate(batch.image_ids):
            mine = examples.texts(np.array([2 * photo, 2 * photo + 1])).token_ids
            assert (mine == batch.text.token_ids[row]).all(axis=1).any()


def test_each_caption_is_as_likely_as_the_other(tokenizer):
    data = corpus(1, captions=4)
    data = dataclasses.replace(data, captions=(("a", "a red", "a red dog", "a red dog runs"),))
    stream = feed.batches(pipeline.Examples([data], tokenizer), seed=0, batch_size=400)
    counts = collections.Counter(next(stream).text.mask.sum(axis=1).tolist())
    assert len(counts) == 4
    assert all(70 <= count <= 130 for count in counts.values())  # 100 ± 3.5 standard deviations
    one, other = itertools.islice(stream, 2)
    assert (one.text.mask != other.text.mask).any()


def test_order_is_a_function_of_seed_and_step(examples):
    first, again, other = (
        list(itertools.islice(feed.batches(examples, seed=seed, batch_size=3), 6))
        for seed in (5, 5, 6)
    )
    _same(first, again)
    assert [b.image_ids.tolist() for b in first] != [b.image_ids.tolist() for b in other]
    for step in (0, 1, 5):
        stream = feed.batches(examples, seed=5, batch_size=3)
        stream.set_state({"next_index": step})
        _same(next(stream), first[step])


def test_neighbouring_seeds_share_no_epoch(examples):
    """grain's shuffle adds the epoch to the seed; ours must not repeat itself that way."""
    one, other = (_photos(examples, 11, seed=seed, batch_size=11) for seed in (0, 1))
    epochs = [{tuple(order[i : i + 11]) for i in range(0, 121, 11)} for order in (one, other)]
    assert not epochs[0] & epochs[1]


def test_state_resumes_bit_for_bit(examples):
    stream = feed.batches(examples, seed=1, batch_size=3)
    for _ in range(4):
        next(stream)
    state = stream.get_state()
    expected = list(itertools.islice(stream, 5))
    stream.set_state(state)
    _same(list(itertools.islice(stream, 5)), expected)
    fresh = feed.batches(examples, seed=1, batch_size=3)
    fresh.set_state(state)
    _same(list(itertools.islice(fresh, 5)), expected)


def test_mixture_by_instance_follows_size(tokenizer):
    parts = [corpus(2), corpus(6, seed=1, first_id=2)]
    drawn = _photos(pipeline.Examples(parts, tokenizer), 6)
    for epoch in (drawn[:8], drawn[8:16], drawn[16:]):
        assert sorted(epoch) == list(range(8))


def test_mixture_by_dataset_is_uniform(tokenizer):
    parts = [corpus(2), corpus(6, seed=1, first_id=2), corpus(3, seed=2, first_id=8)]
    examples = pipeline.Examples(parts, tokenizer)
    drawn = _photos(examples, 9, sampling="dataset")
    owner = np.searchsorted([2, 8], drawn, side="right")
    np.testing.assert_array_equal(np.bincount(owner), [12, 12, 12])
    second = [photo for photo in drawn if 2 <= photo < 8]
    assert sorted(second[:6]) == sorted(second[6:]) == list(range(2, 8))
    assert second[:6] != second[6:]


@pytest.mark.parametrize("sampling", ["instance", "dataset"])
def test_smallest_corpus_and_batch(tokenizer, sampling):
    examples = pipeline.Examples([corpus(1)], tokenizer)
    assert _photos(examples, 3, batch_size=1, sampling=sampling) == [0] * 3
    assert _photos(examples, 1, batch_size=3, sampling=sampling) == [0] * 3


# Bad input.


def test_corpora_that_do_not_fit(tokenizer):
    wide = corpus(2, name="two")
    wide = with_rows(wide, detection_features=np.zeros((wide.offsets[-1], 8), np.float32))
    with pytest.raises(UsageError, match="different feature widths: one 6, two 8"):
        pipeline.Examples([corpus(2), wide], tokenizer)
    with pytest.raises(UsageError, match="different numbers of classes: one 9, two 10"):
        pipeline.Examples([corpus(2), corpus(2, name="two", classes=10)], tokenizer)
    with pytest.raises(UsageError, match="one has no pixels"):
        pipeline.Examples([corpus(2)], tokenizer, patch_size=2)
    small = corpus(1, pixels=np.zeros((1, 4, 4, 3), np.uint8))
    large = corpus(1, pixels=np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(UsageError, match="different sizes"):
        pipeline.Examples([small, large], tokenizer, patch_size=2)
    with pytest.raises(UsageError, match="4 × 4 cannot be cut into patches of 3"):
        pipeline.Examples([small], tokenizer, patch_size=3)


def test_captions_that_are_not_there(tokenizer):
    for second, message in (((), "photo 1 has no caption"), ((" ",), "is empty")):
        data = dataclasses.replace(corpus(2), captions=(("a",), second))
        with pytest.raises(UsageError, match=message):
            pipeline.Examples([data], tokenizer)


def test_more_tokens_than_positions(tokenizer):
    config = Config(data=DataConfig(text_length=30), model=MMTConfig(max_positions=24))
    with pytest.raises(UsageError, match=r"text_length is 30.*only 24 positions"):
        pipeline.Examples.of(config, [corpus(2)], tokenizer)


# At size: hosts, processes, buckets.


def test_hosts_read_the_rows_of_one_batch(examples):
    whole = itertools.islice(feed.batches(examples, seed=1, batch_size=6), 3)
    parts = [
        feed.batches(examples, seed=1, batch_size=6, rows=slice(start, start + 2))
        for start in (0, 2, 4)
    ]
    for batch in whole:
        mine = [next(part) for part in parts]
        assert all(len(part.image_ids) == 2 for part in mine)
        _same(jax.tree.map(lambda *rows: np.concatenate(rows), *mine), batch)


def test_keys_are_seed_step_and_row_of_the_whole_batch(examples, monkeypatch):
    monkeypatch.setattr(examples, "batch", lambda images, captions, keys: keys)
    batches = feed.batches(examples, seed=7, batch_size=4, rows=slice(1, 3))
    found = [next(batches) for _ in range(2)]
    batches.close()
    for step, keys in enumerate(found):
        assert keys.dtype == np.int64
        assert keys.tolist() == [[7, step, 1, 1], [7, step, 2, 1]]


BUCKETS = ((6, 3), (8, 4))


def _bucketed(examples, **options):
    return feed.batches(examples, **{"seed": 2, "batch_size": 3, "buckets": BUCKETS} | options)


def _pairs(batches):
    return [
        jax.tree.map(lambda leaf, row=row: leaf[row], batch)
        for batch in batches
        for row in range(len(batch.image_ids))
    ]


def _real(pair):
    """What of a pair is no padding, in an order."""
    words, photo = pair.text, pair.image
    named = {field.name: getattr(photo, field.name) for field in dataclasses.fields(photo)}
    rows = {name: value[photo.mask].tolist() for name, value in named.items() if value is not None}
    return int(pair.image_ids), words.token_ids[words.mask].tolist(), sorted(rows.items())


def test_buckets_hold_the_pairs_of_their_window(tokenizer):
    """The pairs of 16 batches are those of 16 batches without buckets, cut but otherwise equal."""
    examples = pipeline.Examples([corpus(70)], tokenizer)
    cut = list(itertools.islice(_bucketed(examples), 16))
    plain = itertools.islice(feed.batches(examples, seed=2, batch_size=3), 16)
    assert sorted(map(_real, _pairs(cut))) == sorted(map(_real, _pairs(plain)))
    seen = set()
    for batch in cut:
        needed = batch.text.mask.sum(axis=1).max(), batch.image.mask.sum(axis=1).max()
        holding = [s for s in (*BUCKETS, examples.size) if s[0] >= needed[0] and s[1] >= needed[1]]
        seen.add((batch.text.mask.shape[1], batch.image.mask.shape[1]))
        assert (batch.text.mask.shape[1], batch.image.mask.shape[1]) == holding[0]
    assert len(seen) > 1


def test_buckets_are_a_function_of_seed_and_step(tokenizer):
    examples = pipeline.Examples([corpus(70)], tokenizer, layout="cls_first")
    first = list(itertools.islice(_bucketed(examples), 20))
    _same(first, list(itertools.islice(_bucketed(examples), 20)))
    for step in (0, 7, 16, 19):
        stream = _bucketed(examples)
        stream.set_state({"next_index": step})
        _same(next(stream), first[step])
    assert all(batch.text.mask[:, 0].all() for batch in first)  # its padding is behind
    assert any(not (a.image_ids == b.image_ids).all() for a, b in itertools.pairwise(first))


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["release", "cls_first"])
def test_a_cut_batch_has_the_loss_and_gradient_of_the_whole_one(layout):
    model = tiny.model(("merged",), objective={"mlm": 0.0, "mrm": 0.0}, dropout=0.0, layout=layout)
    tokenizer = vocabulary.train([SENTENCE] * 20, tiny.SPEC.vocab_size)
    data = corpus(30, classes=0)
    data = with_rows(data, detection_features=data.rows[FEATURES] / 255)
    examples = pipeline.Examples([data], tokenizer, text_length=16, layout=layout)
    size = (12, 4)
    pairs = np.arange(30), np.arange(0, 60, 2)
    short = (examples.needed(*pairs) <= size).all(axis=1)
    assert short.sum() > 3
    whole = examples.batch(pairs[0][short], pairs[1][short])
    cut = examples.cut(whole, size)
    assert (cut.text.mask.shape[1], cut.image.mask.shape[1]) == size < examples.size

    @jax.value_and_grad
    def loss(params, batch):
        return losses.compute(model, params, batch, key=jax.random.key(0))[0]

    found = [jax.jit(loss)(tiny.params(model), batch) for batch in (whole, cut)]
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_buckets_without_room(examples):
    with pytest.raises(UsageError, match=r"\(2, 5\).*3 tokens or more"):
        _bucketed(examples, buckets=((2, 5),))
