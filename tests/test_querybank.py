"""Scores of photos that are normalised by what they have with other captions."""

import dataclasses
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
BANK = ("a red ball", "two green balls", "a cube", "a blue cube")


@pytest.fixture(scope="module")
def towers():
    return small_models.build(TOWERS)


@pytest.fixture(scope="module")
def bank(towers):
    texts = small_models.TOKENIZER.texts(BANK, length=small_models.LENGTH)
    embedded = Predictor(*towers).embed(texts)
    return querybank.Bank("train", lambda: embedded)


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


def test_ranks_are_those_of_the_inverted_softmax():
    rng = np.random.default_rng(3)
    captions, bank, photos = (rng.normal(size=(n, 4)) for n in (12, 30, 9))
    others, scores = bank @ photos.T, captions @ photos.T
    k = 2 / others.std()
    shares = np.exp(k * scores) / np.exp(k * others).sum(axis=0)
    found = scores - querybank.offsets(bank, photos)
    np.testing.assert_array_equal(np.argsort(found, axis=1), np.argsort(shares, axis=1))
    assert (np.argsort(scores, axis=1) != np.argsort(shares, axis=1)).any()


def test_offsets_do_not_depend_on_how_many_are_in_memory_at_once(monkeypatch):
    rng = np.random.default_rng(4)
    bank, photos = rng.normal(size=(2, 20, 4))
    whole = querybank.offsets(bank, photos)
    monkeypatch.setattr(querybank, "_SCORES", 61)  # three photos
    np.testing.assert_allclose(querybank.offsets(bank, photos), whole, rtol=1e-6)


@pytest.mark.parametrize("what", ["photo", "caption of the querybank"])
def test_what_is_not_finite_is_told(what):
    arrays = {"caption of the querybank": np.ones((3, 2)), "photo": np.ones((4, 2))}
    arrays[what][2, 1] = np.nan
    with pytest.raises(UsageError, match=f"the embedding of {what} 2 is not finite"):
        querybank.offsets(*arrays.values())


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
    for how in ({}, {"bank": bank}, {"bank": bank, "fold": 2}):
        retrieval.evaluate(*towers, data, seen=lambda scores, _: seen.append(scores), **how)
    plain, normalised, *folds = seen
    images = Predictor(*towers).embed(data.images(np.arange(test_retrieval.PHOTOS)))
    np.testing.assert_allclose(
        normalised, plain - querybank.offsets(bank.embed(), images), atol=1e-5
    )
    alone = plain[:3, :2] - querybank.offsets(bank.embed(), images[:2])
    np.testing.assert_allclose(folds[0], alone, atol=1e-5)


def test_where_there_is_nothing_to_normalise(towers, bank):
    joint = small_models.build(test_retrieval.MODEL_JOINT)
    data = test_retrieval.examples()
    with pytest.raises(UsageError, match="scores pairs jointly, and a querybank normalises"):
        retrieval.evaluate(*joint, data, bank=bank)
    with pytest.raises(UsageError, match="are products; leave rerank or the querybank out"):
        retrieval.evaluate(*towers, data, bank=bank, rerank=1)
    by = retrieval.similarity(*towers, data)
    with pytest.raises(UsageError, match="give another model's to similarity"):
        retrieval.evaluate(*joint, data, by=by, rerank=1, bank=bank)
    with pytest.raises(UsageError, match="rerank is -1"):  # before a caption is embedded
        retrieval.evaluate(
            *towers, data, rerank=-1, bank=querybank.Bank("train", lambda: pytest.fail("embedded"))
        )


def test_the_command_finds_what_evaluate_does(tmp_path, capsys, towers, bank):
    formats.write(test_retrieval.corpus(), tmp_path / "photos", "dev")
    others = dataclasses.replace(test_retrieval.corpus(), captions=tuple((said,) for said in BANK))
    formats.write(others, tmp_path / "photos", "train")
    for name, config in (("towers", TOWERS), ("joint", test_retrieval.MODEL_JOINT)):
        small_models.make_workdir(tmp_path / name, config)

    def mmt(name, *more):
        data = (f"--data=regions:{tmp_path / 'photos'}", "--split=dev")
        status = main(["eval", f"--workdir={tmp_path / name}", *data, *more])
        return status, capsys.readouterr().err

    data = test_retrieval.examples()
    out = tmp_path / "found.json"
    assert mmt("towers", "--querybank=train", f"--out={out}")[0] == 0
    assert json.loads(out.read_text()) == retrieval.evaluate(*towers, data, bank=bank).metrics
    chosen = (f"--by={tmp_path / 'towers'}", "--rerank=1", "--weight=3")
    out = tmp_path / "chosen.json"
    assert mmt("joint", *chosen, "--querybank=train", f"--out={out}")[0] == 0
    joint = small_models.build(test_retrieval.MODEL_JOINT)
    by = retrieval.similarity(*towers, data, bank)
    wanted = retrieval.evaluate(*joint, data, rerank=1, by=by, weight=3.0)
    assert json.loads(out.read_text()) == wanted.metrics
    for name, flags, message in (
        ("joint", ("--querybank=train",), "give --rerank=K for pairs to be chosen by them"),
        ("towers", ("--querybank=val",), "has no split 'val'"),
        ("towers", ("--querybank=dev[10%:]",), "captions of the photos of --split=dev themselves"),
        ("towers", ("--querybank=train", "--task=vqa"), "--querybank is for retrieval"),
        ("towers", ("--querybank=train", "--probe"), "--querybank says nothing of --probe"),
    ):
        status, err = mmt(name, *flags)
        assert (status, message in err, err.count("\n")) == (2, True, 1), (flags, err)
