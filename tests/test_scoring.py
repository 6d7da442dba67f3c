import dataclasses
import functools
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import small_models

from mmt_jax.infer import predict
from mmt_jax.infer.pairs import Items, pairwise
from mmt_jax.infer.predict import Predictor
from mmt_jax.models.base import Model
from mmt_jax.models.mmt.network import MMT
from mmt_jax.typing import Image, Text

MERGED = ("text", "merged")


def texts(count, *, slots=10, seed=0):
    """Captions of 1 to 8 words of any tokens, padded in front."""
    rng = np.random.default_rng(seed)
    mask = np.arange(slots) >= slots - rng.integers(3, slots + 1, count)[:, None]
    tokens = rng.integers(7, small_models.TOKENIZER.vocab_size, mask.shape).astype(np.int32)
    segments = np.zeros(mask.shape, np.int32)
    segments[:, -1] = 2
    return Text(tokens, segments, segments, mask)


def images(count, *, slots=6, seed=1):
    rng = np.random.default_rng(seed)
    mask = np.arange(slots) >= slots - rng.integers(1, slots + 1, count)[:, None]
    features = rng.normal(size=(*mask.shape, small_models.FEATURE_DIM)).astype(np.float32)
    boxes = rng.random((*mask.shape, 5), np.float32)
    classes = np.zeros((*mask.shape, 2), np.int32)
    return Image(features, boxes, mask, classes, classes.astype(np.float32))


def one_by_one(model, params, texts, images):
    """Scores [M, N], each pair encoded and fused anew, padding and all."""
    rows = jax.tree.map(lambda leaf: np.repeat(leaf, len(images.mask), axis=0), texts)
    tiled = jax.tree.map(lambda leaf: np.concatenate([leaf] * len(texts.mask)), images)
    scores = _aligned(model, params, rows, tiled)
    return np.asarray(scores).reshape(len(texts.mask), len(images.mask))


@functools.partial(jax.jit, static_argnums=0)
def _aligned(model, params, texts, images):
    encoded = model.encode_text(params, texts), model.encode_image(params, images)
    return model.fuse(params, *encoded).scores[-1]


@pytest.mark.parametrize("pairs", [1, 6, 1024])
@pytest.mark.slow
def test_every_pair_gets_the_score_of_the_model(pairs):
    model, params = small_models.build(small_models.config(MERGED))
    captions, photos = texts(7), images(5)
    scores = Predictor(model, params).score(captions, photos, pairs=pairs)
    expected = one_by_one(model, params, captions, photos)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=2e-4, atol=2e-4)
    assert np.unique(expected.round(3)).size > 20  # scores that differ, or order goes untested


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        small_models.config(("text", "coattention", "single")),
        small_models.config(("text", "image_query", "image_query"), itm="contrastive"),
        dataclasses.replace(
            small_models.config(("single", "merged")),
            objective=dataclasses.replace(small_models.config(()).objective, hloss=True),
        ),
    ],
    ids=["coattention", "image-query", "hloss"],
)
def test_other_attention(config):
    model, params = small_models.build(config)
    captions, photos = texts(4), images(3)
    scores = Predictor(model, params).score(captions, photos, pairs=4)
    expected = one_by_one(model, params, captions, photos)
    np.testing.assert_allclose(scores, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(
    ("family", "itm"), [("two_tower", "contrastive"), ("mmt", "classification")]
)
def test_separable_models_score_up_to_a_constant(family, itm):
    layers = ("text", "image") if family == "two_tower" else ("text", "single")
    model, params = small_models.build(small_models.config(layers, family=family, itm=itm))
    assert model.separable
    captions, photos = texts(6), images(5)
    scores = Predictor(model, params).score(captions, photos)
    difference = scores - one_by_one(model, params, captions, photos)
    np.testing.assert_allclose(difference, difference[0, 0], rtol=1e-3, atol=1e-4)


def test_photos_are_fetched_when_their_turn_comes():
    model, params = small_models.build(small_models.config(MERGED))
    captions, photos = texts(7), images(9)
    fetched = []

    def fetch(rows):
        fetched.append(len(rows))
        return jax.tree.map(lambda leaf: leaf[rows], photos)

    predictor = Predictor(model, params)
    found = predictor.score(captions, Items(photos.mask, fetch), pairs=12)
    np.testing.assert_array_equal(found, predictor.score(captions, photos, pairs=12))
    assert fetched == [3, 3, 3]


@pytest.mark.slow
def test_logits_of_rows_are_those_of_all_pairs():
    model, params = small_models.build(small_models.config(MERGED))
    predictor, captions, photos = Predictor(model, params), texts(70), images(70)
    logits = predictor.logits(captions, photos)
    assert logits.shape == (70, 2)
    odds = np.diag(predictor.log_odds(captions, photos))
    np.testing.assert_allclose(logits[:, 0] - logits[:, 1], odds, rtol=2e-4, atol=2e-4)


def test_bfloat16_models_are_scored_in_float32():
    config = small_models.config(MERGED)
    model, params = small_models.build(config)
    half, _ = small_models.build(dataclasses.replace(config, dtype="bfloat16"))
    expected = Predictor(model, params).score(texts(3), images(3))
    np.testing.assert_array_equal(Predictor(half, params).score(texts(3), images(3)), expected)


def test_each_item_is_encoded_once_and_cut_to_its_length():
    text_mask = np.arange(40) >= 40 - np.array([30, 3, 40, 9, 1])[:, None]
    image_mask = np.ones((4, 10), bool)
    seen = {"texts": [], "images": []}

    def encoder(name):
        def encode(rows):
            seen[name].append(rows)
            return rows

        return encode

    def score(text, image):
        return text[:, -1:] * 100 + image[:, -1]

    scores = pairwise(
        Items.of(np.repeat(np.arange(5)[:, None], 40, axis=1), text_mask),
        Items.of(np.repeat(np.arange(4)[:, None], 10, axis=1), image_mask),
        encode_text=encoder("texts"),
        encode_image=encoder("images"),
        score=score,
        pairs=4,
    )
    np.testing.assert_array_equal(scores, np.arange(5)[:, None] * 100 + np.arange(4))
    # Two at a time, shortest first; the last chunk is filled up with its last item.
    assert [rows[:, -1].tolist() for rows in seen["texts"]] == [[4, 1], [3, 0], [2, 2]]
    assert [rows.shape for rows in seen["texts"]] == [(2, 8), (2, 32), (2, 40)]
    assert [rows[:, -1].tolist() for rows in seen["images"]] == [[0, 1], [2, 3]]
    assert [rows.shape for rows in seen["images"]] == [(2, 10), (2, 10)]


@pytest.mark.slow
def test_padding_behind_is_cut_too():
    """Captions that begin with [CLS] have their padding behind; each is scored as if alone."""
    config = small_models.config(MERGED)
    config = dataclasses.replace(
        config, model=dataclasses.replace(config.model, layout="cls_first")
    )
    model, params = small_models.build(config)
    captions = jax.tree.map(lambda leaf: leaf[:, ::-1], texts(8, slots=16))
    assert captions.mask[:, 0].all()
    kept = []

    def encode(text):
        kept.append(text.mask.shape[1])
        return model.encode_text(params, text)

    photos = images(3)
    scores = Predictor(model, params).score(captions, photos, pairs=12)
    np.testing.assert_allclose(
        scores, one_by_one(model, params, captions, photos), rtol=2e-4, atol=2e-4
    )
    pairwise(
        Items.of(captions),
        Items.of(photos),
        encode_text=encode,
        encode_image=lambda image: model.encode_image(params, image),
        score=lambda text, image: np.zeros((text.mask.shape[0], image.mask.shape[0])),
        pairs=12,
    )
    assert kept[0] < kept[-1] <= 16


def test_later_calls_compile_nothing():
    model, params = small_models.build(small_models.config(MERGED))
    Predictor(model, params).score(texts(7), images(5), pairs=6)
    before = predict._compiled._cache_size()
    other = jax.tree.map(lambda leaf: leaf + 1, params)
    again = small_models.build(small_models.config(MERGED))[0]
    Predictor(again, other).score(texts(7), images(5), pairs=6)
    assert predict._compiled._cache_size() == before


def test_scores_under_the_guard_of_the_training_loop():
    model, params = small_models.build(small_models.config(MERGED))
    params = jax.device_put(params)
    with jax.transfer_guard("disallow"):
        scores = Predictor(model, params).score(texts(3), images(2))
    assert np.isfinite(scores).all()


class Embedding(MMT):
    """Scores jointly, and embeds items as what their own layers say of them."""

    @classmethod
    def embeds(cls, config):
        return True

    def embed_text(self, text):
        return text.states[:, -1]

    def embed_image(self, image):
        return image.states[:, -1]


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [3, 1024])
def test_rerank_scores_the_best_of_each_caption_and_each_photo(pairs):
    joint, params = small_models.build(small_models.config(MERGED))
    model = Model(joint.config, Embedding, separable=False)
    captions, photos = texts(7), images(5)
    found = Predictor(model, params).score(captions, photos, top=2, pairs=pairs)
    similar = Predictor(model, params).embed(captions) @ Predictor(model, params).embed(photos).T
    wanted = np.zeros((7, 5), bool)
    for caption, photo in np.ndindex(7, 5):
        better_photos = (similar[caption] > similar[caption, photo]).sum()
        better_captions = (similar[:, photo] > similar[caption, photo]).sum()
        wanted[caption, photo] = min(better_photos, better_captions) < 2
    assert 14 < wanted.sum() < 35
    everything = Predictor(joint, params).score(captions, photos)
    expected = np.where(wanted, everything, -np.inf)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)
    whole = Predictor(model, params).score(captions, photos, top=100, pairs=pairs)
    np.testing.assert_allclose(whole, everything, rtol=2e-4, atol=2e-4)


_ON_A_MESH = """
import jax, numpy as np, small_models, test_scoring
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from mmt_jax.infer.predict import Predictor
from mmt_jax.models.base import Model
from mmt_jax.models.mmt.network import MMT
mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
for layers in (test_scoring.MERGED, ("text", "single")):
    model, params = small_models.build(small_models.config(layers))
    args = test_scoring.texts(11), test_scoring.images(5)
    expected = Predictor(model, params).score(*args, pairs=12)
    put = lambda leaf: jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(
        *(("model",) if leaf.ndim and leaf.shape[0] % 2 == 0 else ()))))
    spread = jax.tree.map(put, params)
    found = Predictor(model, spread).score(*args, pairs=12)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)
    if model.embeds:
        one = Predictor(model, params).score(*args, top=2, pairs=12)
        many = Predictor(model, spread).score(*args, top=2, pairs=12)
        np.testing.assert_allclose(many, one, rtol=2e-4, atol=2e-4)
print("equal")
"""


@pytest.mark.slow
def test_a_mesh_of_devices_scores_as_one_does():
    here = os.path.dirname(__file__)
    paths = os.pathsep.join([here, os.path.dirname(here)])
    environment = os.environ | {
        "PYTHONPATH": paths,
        "JAX_NUM_CPU_DEVICES": "8",
    }
    run = subprocess.run(
        [sys.executable, "-c", _ON_A_MESH], env=environment, capture_output=True, text=True
    )
    assert run.stdout == "equal\n", run.stderr
