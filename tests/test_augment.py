"""Photos changed at random: which operations, how strong, and what they leave alone."""

import collections
import math

import numpy as np
import pytest
from PIL import Image

from mmt_jax.configs.config import AUGMENTS
from mmt_jax.photos.augment import OPERATIONS, RECIPES, drawn
from mmt_jax.photos.augment import changed as changed_by
from mmt_jax.photos.processors import Processor

SIDE = 32
COUNT = 4000


def rng(seed=0):
    return np.random.default_rng(seed)


def changed(kind, name, level, values):
    picture = np.broadcast_to(np.uint8(values)[..., None], (*np.shape(values), 3))
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(changed_by(image, kind, name, level, rng()))[..., 0]


def test_each_name_of_the_config_is_a_recipe():
    assert {*AUGMENTS} == {*RECIPES}
    assert [len(OPERATIONS[kind]) for kind in ("plain", "colour")] == [10, 14]


@pytest.mark.parametrize(("kind", "likely"), [("plain", 0.5), ("colour", 1.0)])
def test_operations_are_drawn_uniformly_and_done_as_often_as_published(kind, likely):
    generator, names = rng(), collections.Counter()
    lengths = collections.Counter()
    for _ in range(COUNT):
        done = drawn(kind, generator)
        names.update(done)
        lengths[len(done)] += 1
    for number in range(3):  # binomial, of two
        share = math.comb(2, number) * likely**number * (1 - likely) ** (2 - number)
        assert lengths[number] / COUNT == pytest.approx(share, abs=0.04)
    expected = 2 * COUNT * likely / len(OPERATIONS[kind])
    assert names.keys() == {*OPERATIONS[kind]}
    for name, count in names.items():
        assert count == pytest.approx(expected, abs=5 * math.sqrt(expected)), name


RAMP = [[0, 50, 60, 100, 200, 255]]


@pytest.mark.parametrize(
    ("kind", "name", "level", "expected"),
    [
        ("plain", "Identity", 5, RAMP[0]),
        ("plain", "Brightness", 5, RAMP[0]),  # 0.1 + 1.8 / 2 = 1
        ("plain", "Sharpness", 5, RAMP[0]),
        ("plain", "AutoContrast", 5, RAMP[0]),
        ("colour", "Brightness", 10, [0, 35, 42, 70, 140, 178]),  # 0.1 + 1.8 / 3 = 0.7
        ("colour", "Posterize", 9, [0, 0, 0, 0, 128, 128]),  # 4 · 9 / 30, one bit
        ("colour", "Posterize", 15, [0, 0, 0, 64, 192, 192]),  # two
        ("colour", "Solarize", 7, [0, 50, 195, 155, 55, 0]),  # from 59.7 on
        ("colour", "SolarizeAdd", 9, [33, 83, 93, 122, 22, 0]),  # 33 more, from 128 on inverted
    ],
)
def test_values_are_those_of_the_published_strengths(kind, name, level, expected):
    np.testing.assert_allclose(changed(kind, name, level, RAMP)[0], expected, atol=1)


@pytest.mark.parametrize(
    ("kind", "level", "pixels", "edge"), [("plain", 5, 5, 128), ("colour", 9, 30, 0)]
)
@pytest.mark.parametrize("name", ["TranslateX", "TranslateY"])
def test_shifts_are_in_pixels_and_show_what_comes_in(kind, level, pixels, edge, name):
    values = rng(1).integers(0, 256, (40, 40))
    found = changed(kind, name, level, values)
    if name == "TranslateY":
        found, values = found.T, values.T
    if (found[:, 0] == edge).all():
        found, values = found[:, ::-1], values[:, ::-1]
    assert (found[:, -pixels:] == edge).all()
    np.testing.assert_array_equal(found[:, :-pixels], values[:, pixels:])


@pytest.mark.parametrize(
    ("kind", "level", "share"), [("plain", 5, 0.5), ("colour", 9, 0.3)], ids=["plain", "colour"]
)
@pytest.mark.parametrize(
    ("name", "slope"),
    [
        ("ShearX", lambda share: 0.3 * share),
        ("ShearY", lambda share: 0.3 * share),
        ("Rotate", lambda share: math.tan(math.radians(30 * share))),
    ],
)
def test_lines_are_tilted_by_the_published_angle(kind, level, share, name, slope):
    values = np.zeros((81, 81))
    values[:, 39:42] = 255  # upright, or lying for the shear that leaves an upright one
    found = changed(kind, name, level, values.T if name == "ShearY" else values)
    found = found.T if name == "ShearY" else found
    places = found[[20, 60]].argmax(axis=1)
    assert abs(int(places[1]) - int(places[0])) == pytest.approx(40 * slope(share), abs=1.5)


def shown(name, picture, seed):
    return RECIPES[name](picture, Processor(SIDE).cut, SIDE, rng(seed))


def gradient(height=60, width=90):
    """Brighter to the right, so that a mirrored one is seen."""
    row = np.linspace(0, 255, width).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (height, width, 3)))


@pytest.mark.parametrize(("name", "share"), [("blip_randaug", 0.5), ("blip_randaug_wohf", 0)])
def test_photos_are_mirrored_half_of_the_time_or_never(name, share):
    mirrored = 0
    for seed in range(200):
        found = shown(name, gradient(), seed).astype(int)[8:-8, 8:-8]
        mirrored += found[:, :8].mean() > found[:, 8:].mean()
    assert mirrored / 200 == pytest.approx(share, abs=0.12 if share else 0)


@pytest.mark.parametrize("name", AUGMENTS)
@pytest.mark.parametrize("shape", [(60, 90), (4, 5), (1, 30), (200, 21)])
def test_any_photo_becomes_a_square_that_its_seed_determines(name, shape):
    picture = rng(2).integers(0, 256, (*shape, 3)).astype(np.uint8)
    first, again, other = (shown(name, picture, seed) for seed in (5, 5, 6))
    assert first.shape == (SIDE, SIDE, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    if shape == (60, 90):
        assert not np.array_equal(first, other)


def test_a_crop_keeps_at_least_its_share(monkeypatch):
    monkeypatch.setattr("mmt_jax.photos.augment.drawn", lambda kind, rng: [])
    rows, columns = np.mgrid[:100, :200]
    picture = np.stack([rows, columns, rows], axis=-1).astype(np.uint8)  # each pixel says where
    areas = []
    for seed in range(200):
        found = shown("blip_randaug_wohf", picture, seed).astype(float)
        tall, wide = (np.ptp(found[..., axis]) * SIDE / (SIDE - 1) for axis in (0, 1))
        areas.append(tall * wide / 20_000)
        assert 0.7 < wide / tall < 1.42
    assert 0.45 < min(areas) < 0.55
    assert max(areas) < 0.75  # the widest that is admitted, 4 : 3, of 2 : 1 is two thirds
