"""Regions in their slots, in both readings, and patches of pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import export

from mmt_jax import photo
from mmt_jax.corpus import Corpus
from mmt_jax.data import regions, schema
from mmt_jax.errors import UsageError


def corpus(counts, *, scores=None, width=3):
    """Photos of count + 1 rows; row r has the feature [r, r + 0.5, …] and its own box."""
    rows = len(counts) + sum(counts)
    features = np.arange(rows, dtype=np.float32)[:, None] + np.linspace(0, 1, width)
    offsets = np.cumsum([0, *(count + 1 for count in counts)])
    side = np.linspace(0.1, 0.9, rows)
    boxes = np.stack([side * 0, side * 0, side, side / 2], axis=1).astype(np.float32)
    boxes[offsets[1:] - 1] = [0, 0, 1, 1]
    return Corpus(
        name="test",
        image_ids=np.arange(len(counts)),
        offsets=offsets,
        captions=(("a dog",),) * len(counts),
        rows=photo.rows(
            features.astype(np.float32),
            boxes,
            scores=None if scores is None else np.array(scores, np.float32),
            class_ids=np.arange(rows, dtype=np.int32)[:, None] + 1,
            class_probs=np.full((rows, 1), 0.5, np.float32),
        ),
        num_classes=rows + 1,
    )


def image(c, **reads):
    """All photos of a corpus as one batch."""
    keys = (photo.FEATURES, photo.BOXES, photo.IDS["class"], photo.PROBS["class"])
    shapes, reading = {key: c.shapes[key] for key in keys}, regions.Reading(**reads)
    parts = [(np.arange(len(c)), c)]
    return schema.to_image(reading.batch(parts, shapes, reading.width(c.offsets)))


def slots(offsets, scores=None, **reads):
    return regions.Reading(**reads).slots(offsets, scores)


def test_companded_features_by_hand():
    stored = np.array([[0, 8, 16, 255]], np.uint8)
    scale = 0.0058821
    expected = [[0, scale, 4 * scale, (255 / 8) ** 2 * scale]]
    np.testing.assert_allclose(regions.decode(stored), expected, rtol=1e-6)
    assert regions.decode(stored).dtype == np.float32
    half = np.array([[0.5, -2]], np.float16)
    np.testing.assert_array_equal(regions.decode(half), [[0.5, -2]])


def test_companding_inverts_itself():
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(regions.encode(regions.decode(every)), every)
    np.testing.assert_array_equal(regions.encode(np.array([-1.0, 1e9])), [0, 255])


def test_area_column():
    boxes = np.array([[0.1, 0.2, 0.6, 0.4], [0, 0, 1, 1]], np.float32)
    np.testing.assert_allclose(photo.with_area(boxes)[:, 4], [0.1, 1.0], rtol=1e-6)


def test_plain_slots_by_hand():
    # Photo 0: regions 0..2, whole 3. Photo 1: whole 4 alone. Photo 2: region 5, whole 6.
    offsets = np.array([0, 4, 5, 7])
    scores = np.array([0.2, 0.9, 0.5, 9, 9, 0.1, 9])
    np.testing.assert_array_equal(
        slots(offsets, scores, max_regions=100),
        [[1, 2, 0, 3], [-1, -1, -1, 4], [-1, -1, 5, 6]],
    )
    np.testing.assert_array_equal(
        slots(offsets, scores, max_regions=2), [[1, 2, 3], [-1, -1, 4], [-1, 5, 6]]
    )


def test_without_scores_and_with_equal_ones_the_order_stays():
    offsets = np.array([0, 5])
    for scores in (None, np.ones(5)):
        np.testing.assert_array_equal(slots(offsets, scores, max_regions=3), [[0, 1, 2, 4]])


def test_release_slots_lose_the_lowest_score():
    offsets = np.array([0, 4])
    scores = np.array([0.2, 0.9, 0.5, 9])
    for cap, expected in (
        (100, [[1, 2, 3]]),  # no more than fit: the last is overwritten
        (3, [[1, 2, 3]]),
        (2, [[1, 2, 3]]),  # more than fit: the best ones, none is lost
        (1, [[1, 3]]),
    ):
        table = slots(offsets, scores, max_regions=cap, reading="release")
        np.testing.assert_array_equal(table, expected)


def test_release_like_the_notebook_does_it():
    """Writes n ≤ 100 detections into the last n of 101 slots, the global region over the last."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 99, 100, 101, 130):
        scores = rng.permutation(n + 1) / (n + 1)
        c = corpus([n], scores=scores, width=4)
        best = np.argsort(-scores[:-1])[:100]
        rows = c.rows[photo.FEATURES]
        features, boxes = np.zeros((101, 4)), np.zeros((101, 5))
        padding = np.ones(101, int)
        if n > 100:
            features[:100], boxes[:100] = rows[best], c.rows[photo.BOXES][best]
            padding[:] = 0
        else:
            features[101 - n :], boxes[101 - n :] = rows[best], c.rows[photo.BOXES][best]
            padding[101 - n :] = 0
        real = padding[:-1] == 0
        features[-1] = features[:-1][real].mean(0) if real.any() else rows[-1]
        boxes[-1] = [0, 0, 1, 1, 1]

        ours = regions.record(c, 0, regions.Reading(max_regions=100, reading="release"))
        count = n if n <= 100 else 101
        np.testing.assert_allclose(
            ours[schema.FEATURES], features[-count:], rtol=1e-5, err_msg=f"{n} detections"
        )
        np.testing.assert_array_equal(ours[schema.BOXES], boxes[-count:].astype(np.float32))
        np.testing.assert_array_equal(ours[schema.IMAGE_PADDING], padding[-count:])


def test_without_a_global_region_by_hand():
    c = corpus([2, 0, 3], scores=[1, 2, 9, 9, 1, 3, 2, 9])
    reads = {"max_regions": 2, "global_region": False}
    # Rows 2, 3 and 7 are the whole photos; one that has no region stands for itself.
    table = slots(c.offsets, c.rows[photo.SCORES], **reads)
    np.testing.assert_array_equal(table, [[1, 0], [-1, 3], [5, 6]])
    found, features = image(c, **reads), c.rows[photo.FEATURES]
    np.testing.assert_array_equal(found.features[[0, 1], 1], features[[0, 3]])
    np.testing.assert_array_equal(found.boxes[0, 1], c.rows[photo.BOXES][0])
    record = regions.record(c, 2, regions.Reading(**reads))
    np.testing.assert_array_equal(record[schema.FEATURES], features[[5, 6]])
    schema.validate_record(record, max_regions=2, global_region=False)
    only = slots(np.array([0, 1, 2]), max_regions=5, global_region=False)
    np.testing.assert_array_equal(only, [[0], [1]])


def test_plain_image_by_hand():
    c = corpus([2, 0], scores=[0.1, 0.8, 9, 9])
    found, features = image(c, max_regions=10), c.rows[photo.FEATURES]
    np.testing.assert_array_equal(found.mask, [[True, True, True], [False, False, True]])
    np.testing.assert_array_equal(found.features[0], features[[1, 0, 2]])
    np.testing.assert_array_equal(found.features[1], [[0] * 3, [0] * 3, features[3]])
    np.testing.assert_array_equal(found.boxes[:, -1], [[0, 0, 1, 1, 1]] * 2)
    np.testing.assert_array_equal(found.boxes[0, :2], c.rows[photo.BOXES][[1, 0]])
    np.testing.assert_array_equal(found.class_ids[..., 0], [[2, 1, 3], [0, 0, 4]])
    np.testing.assert_array_equal(found.class_probs[..., 0], [[0.5] * 3, [0, 0, 0.5]])


def test_release_image_by_hand():
    c = corpus([3, 1], scores=[0.1, 0.8, 0.5, 9, 0.5, 9])
    found = image(c, max_regions=10, reading="release")
    features = c.rows[photo.FEATURES]
    np.testing.assert_array_equal(found.features[0], [*features[[1, 2]], features[[1, 2]].mean(0)])
    np.testing.assert_array_equal(found.class_probs[..., 0], [[0.5, 0.5, 0], [0, 0, 0]])
    np.testing.assert_array_equal(found.features[1, -1], features[5])
    np.testing.assert_array_equal(found.mask[1], [False, False, True])


@settings(deadline=None, max_examples=50)
@given(
    counts=st.lists(st.integers(0, 6), min_size=1, max_size=5),
    cap=st.integers(1, 7),
    reading=st.sampled_from(regions.READINGS),
    seed=st.integers(0, 100),
)
def test_slots_hold_the_best_regions_of_the_right_photo(counts, cap, reading, seed):
    c = corpus(counts)
    scores = np.random.default_rng(seed).integers(0, 4, c.offsets[-1]).astype(np.float32)
    table = slots(c.offsets, scores, max_regions=cap, reading=reading)
    for i, count in enumerate(counts):
        row = table[i]
        mine = range(c.offsets[i], c.offsets[i + 1] - 1)
        keep = min(count, cap) if reading == "plain" or count > cap else max(count - 1, 0)
        expected = sorted(mine, key=lambda r: -scores[r])[:keep]
        assert row[row >= 0].tolist() == [*expected, c.offsets[i + 1] - 1]
        assert (row[: len(row) - keep - 1] == -1).all()


def test_a_record_is_sound():
    c = corpus([4, 2], scores=np.arange(8))
    for index in (0, 1):
        for reading in regions.READINGS:
            fields = regions.record(c, index, regions.Reading(reading=reading))
            schema.validate_record(fields, feature_dim=3)
    found = regions.record(c, 1)[schema.FEATURES]
    np.testing.assert_array_equal(found, c.rows[photo.FEATURES][[6, 5, 7]])


def test_the_release_reading_needs_a_global_region():
    with pytest.raises(UsageError, match=r"config\.data\.regions='release'.*regions='plain'"):
        slots(np.array([0, 2]), max_regions=2, reading="release", global_region=False)


def test_wrong_arguments():
    with pytest.raises(UsageError, match="unknown reading of regions 'notebook'"):
        slots(np.array([0, 2]), max_regions=3, reading="notebook")
    with pytest.raises(UsageError, match="max_regions is 0"):
        slots(np.array([0, 2]), max_regions=0)


def test_patches_by_hand():
    # Two rows and three columns of 2 × 2 patches, each of one colour: 10 · row + column.
    colours = np.array([[0, 1, 2], [10, 11, 12]], np.float32)
    pixels = np.repeat(np.repeat(colours, 2, axis=0), 2, axis=1)[..., None].repeat(3, axis=-1)
    features, boxes = regions.patches(pixels, 2)
    assert features.shape == (7, 12)
    np.testing.assert_allclose(features[:, 0], [0, 1, 2, 10, 11, 12, 6])
    assert (features == features[:, :1]).all()
    np.testing.assert_allclose(boxes[4], [0.5, 1 / 3, 1, 2 / 3, 1 / 6], rtol=1e-6)
    np.testing.assert_array_equal(boxes[-1], [0, 0, 1, 1, 1])
    for whole, part in zip((features, boxes), regions.patches(pixels, 2, global_region=False)):
        np.testing.assert_array_equal(whole[:-1], part)
    assert features.dtype == boxes.dtype == np.float32


def test_a_patch_is_its_pixels_row_by_row():
    pixels = np.arange(4 * 6 * 3, dtype=np.float32).reshape(4, 6, 3)
    features, _ = regions.patches(pixels, 2)
    np.testing.assert_array_equal(features[5], pixels[2:4, 4:6].reshape(-1))


def test_patches_are_the_same_on_jax():
    pixels = np.random.default_rng(0).random((2, 4, 8, 3), np.float32)
    expected = regions.pixel_image(pixels, 4)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        traced = jax.jit(lambda p: regions.pixel_image(p, 4))(jnp.asarray(pixels))
    for ours, theirs in zip(jax.tree.leaves(expected), jax.tree.leaves(traced), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert isinstance(expected.features, np.ndarray)
    assert expected.mask.all()


def test_patches_of_symbolic_sizes():
    args = export.symbolic_args_specs(np.zeros((1, 2, 2, 3), np.float32), "b, 2*h, 2*w, 3")
    exported = export.export(jax.jit(lambda pixels: regions.patches(pixels, 2)))(args)
    pixels = np.random.default_rng(0).random((3, 4, 6, 3), np.float32)
    for ours, theirs in zip(regions.patches(pixels, 2), exported.call(pixels), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_patches_that_do_not_fit():
    with pytest.raises(UsageError, match="4 × 6 cannot be cut into patches of 4"):
        regions.patches(np.zeros((4, 6, 3), np.float32), 4)
