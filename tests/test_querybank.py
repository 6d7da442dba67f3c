"""Scores of photos that are normalised by what they have with other captions."""

import json

import numpy as np
import pytest
import small_models
import test_retrieval
from scipy import special

from mmt_jax.cli.main import main
from mmt_jax.data import formats
from mmt_jax.errors import UsageError
from mmt_jax.infer import querybank, retrieval
from mmt_jax.infer.predict import Predictor

TOWERS = small_models.config(("text", "image"), family="two_tower", itm="contrastive")
BANK = ("a red ball", "two green balls", "a cube")


@pytest.fixture(scope="module")
def towers():
    return small_models.build(TOWERS)


@pytest.fixture(scope="module")
def bank(towers):
    texts = small_models.TOKENIZER.texts(BANK, length=small_models.LENGTH)
    return Predictor(*towers).embed(texts)


def test_a_photo_near_every_caption_gives_way():
    photos = np.array([[1.0, 0.6], [0.4, 1.0]], np.float32)  # the first is long in what all share
    captions = np.array([[1.0, 0.0], [1.0, 0.9]], np.float32)  # of the first, of the second
    others = np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2]], np.float32)
    products = captions @ photos.T
    assert products.argmax(axis=1).tolist() == [0, 0]
    taken = products - querybank.offsets(others, photos)
    assert taken.argmax(axis=1).tolist() == [0, 1]


def test_offsets_are_soft_maxima_of_standardised_scores():
    rng = np.random.default_rng(0)
    bank, photos = rng.normal(size=(40, 5)) + 1, rng.normal(size=(600, 5))
    scores = bank @ photos.T
    k = 2 / scores.std()
    wanted = (special.logsumexp(k * scores, axis=0) - np.log(40)) / k
    np.testing.assert_allclose(querybank.offsets(bank, photos), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("factor", [1e-4, 1.0, 1e4])
def test_offsets_go_with_the_scale_of_scores(factor):
    rng = np.random.default_rng(1)
    bank, photos = rng.normal(size=(2, 30, 4)).astype(np.float32)
    offsets = querybank.offsets(bank, photos)
    scaled = querybank.offsets(factor * bank, photos)
    np.testing.assert_allclose(scaled, factor * offsets, rtol=1e-4)


def test_scores_that_are_all_one_stay_so():
    offsets = querybank.offsets(np.ones((3, 4), np.float32), np.ones((5, 4), np.float32))
    np.testing.assert_allclose(offsets, 4.0, rtol=1e-6)


def test_evaluate_takes_offsets_from_the_scores(towers, bank):
    data, seen = test_retrieval.examples(), []
    for how in ({}, {"bank": bank}, {"bank": bank, "rerank": 1}):
        retrieval.evaluate(*towers, data, seen=lambda scores, _: seen.append(scores), **how)
    plain, normalised, reranked = seen
    images = Predictor(*towers).embed(data.images(np.arange(test_retrieval.PHOTOS)))
    np.testing.assert_allclose(normalised, plain - querybank.offsets(bank, images), atol=1e-5)
    scored = np.isfinite(reranked)
    assert scored[np.arange(len(plain)), normalised.argmax(axis=1)].all()
    assert 0 < scored.sum() < scored.size


def test_a_joint_score_is_not_normalised(bank):
    joint = small_models.build(test_retrieval.MODEL_JOINT)
    with pytest.raises(UsageError, match="a querybank normalises products of embeddings"):
        retrieval.evaluate(*joint, test_retrieval.examples(), bank=bank)


def test_the_command_finds_what_evaluate_does(tmp_path, capsys, towers, bank):
    formats.write(test_retrieval.corpus(), tmp_path / "photos", "dev")
    formats.write(test_retrieval.corpus(), tmp_path / "photos", "train")
    for name, config in (("towers", TOWERS), ("joint", test_retrieval.MODEL_JOINT)):
        small_models.make_workdir(tmp_path / name, config)

    def mmt(name, *more):
        data = (f"--data=regions:{tmp_path / 'photos'}", "--split=dev")
        status = main(["eval", f"--workdir={tmp_path / name}", *data, *more])
        return status, capsys.readouterr().err

    data = test_retrieval.examples()
    said = Predictor(*towers).embed(data.texts(np.arange(len(data.captions))))
    out = tmp_path / "found.json"
    assert mmt("towers", "--querybank=train", f"--out={out}")[0] == 0
    assert json.loads(out.read_text()) == retrieval.evaluate(*towers, data, bank=said).metrics
    chosen = (f"--by={tmp_path / 'towers'}", "--rerank=1", "--weight=3")
    out = tmp_path / "chosen.json"
    assert mmt("joint", *chosen, "--querybank=train", f"--out={out}")[0] == 0
    joint = small_models.build(test_retrieval.MODEL_JOINT)
    by = retrieval.similarity(*towers, data, said)
    wanted = retrieval.evaluate(*joint, data, rerank=1, by=by, weight=3.0)
    assert json.loads(out.read_text()) == wanted.metrics
    for name, flags, message in (
        ("joint", ("--querybank=train",), "has no embeddings"),
        ("towers", ("--querybank=val",), "has no split 'val'"),
        ("towers", ("--querybank=dev",), "are the captions that are asked"),
        ("towers", ("--querybank=train", "--task=vqa"), "--querybank is for retrieval"),
        ("towers", ("--querybank=train", "--probe"), "--querybank says nothing of --probe"),
    ):
        status, err = mmt(name, *flags)
        assert (status, message in err, err.count("\n")) == (2, True, 1), err
