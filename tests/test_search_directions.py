"""Search from captions to photos, from photos to captions and photos; and what its scores are."""

import dataclasses
import json
import pickle
import re

import numpy as np
import pytest
import small_models
import test_search
import zoo
from scipy import special

from mmt_jax.configs.config import DataConfig
from mmt_jax.data import formats
from mmt_jax.data.pipeline import Examples
from mmt_jax.errors import UsageError
from mmt_jax.infer import api, querybank, retrieval
from mmt_jax.infer.predict import Predictor
from mmt_jax.infer.search import index as indices
from mmt_jax.infer.search import source

Pillow = pytest.importorskip("PIL.Image")
pytest.importorskip("faiss")

CORPUS = test_search.corpus()
mmt, folder, texts = test_search.mmt, test_search.folder, test_search.texts
SEEN = np.arange(test_search.PHOTOS)
SIDE = zoo.SIDE * zoo.PATCH


def towers(**changes):
    changes = {"itm": "contrastive"} | changes
    return small_models.config(("text", "image"), family="two_tower", **changes)


def of_pixels(family, **objective):
    model = {"vocab_size": small_models.TOKENIZER.vocab_size, "max_positions": 32}
    data = DataConfig(text_length=small_models.LENGTH)
    return zoo.config(family, model=model, objective=objective, data=data)


def examples(config, photos=CORPUS):
    return Examples.of(config, [photos], small_models.TOKENIZER)


def pixels():
    rng = np.random.default_rng(1)
    shown = rng.integers(0, 256, (test_search.PHOTOS, SIDE, SIDE, 3), np.uint8)
    return dataclasses.replace(CORPUS, pixels=shown)


# ---- Directions ----------------------------------------------------------------------------------


def test_captions_that_fit_a_photo_are_those_that_the_model_scores_best():
    config = towers()
    own, built = examples(config), small_models.build(config)
    index = indices.build(*built, own, side="captions")
    photos = own.images(np.array([4, 7]))
    found = index.search(*built, photos, top=6).hits
    scores = Predictor(*built).score(own.texts(np.arange(len(own.captions))), photos).T
    best = np.take_along_axis(scores, np.argsort(-scores, axis=1)[:, :6], axis=1)
    np.testing.assert_allclose([[hit.score for hit in row] for row in found], best, rtol=1e-4)
    place = found[0][0].place
    assert index.captions[place] == (own.captions[place],)
    assert index.image_ids[place] == CORPUS.image_ids[own.caption_to_image[place]]
    assert index.names[place] == str(index.image_ids[place])


def test_a_photo_finds_itself_first_and_no_probability():
    built = small_models.build(towers())
    own = examples(towers())
    index = indices.build(*built, own, metric="cosine")
    found = index.search(*built, own.images(np.array([8])), top=3)
    images = Predictor(*built).embed(own.images(SEEN))
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    assert [hit.place for hit in found.hits[0]] == np.argsort(-images @ images[8])[:3].tolist()
    assert found.hits[0][0].place == 8
    assert found.hits[0][0].score == pytest.approx(1, abs=1e-5)
    assert found.score == "cosine"
    assert {hit.probability for hit in found.hits[0]} == {None}


def test_captions_are_not_compared_with_captions(texts):
    built = small_models.build(towers())
    index = indices.build(*built, examples(towers()), side="captions")
    with pytest.raises(UsageError, match="is one of captions, which are compared with photos"):
        index.search(*built, texts, top=3)
    with pytest.raises(UsageError, match="side=words is unknown; it is one of images, captions"):
        indices.build(*built, examples(towers()), side="words")
    bare = Examples.of(towers(), [CORPUS.bare()], small_models.TOKENIZER, bare=True)
    with pytest.raises(UsageError, match="has no captions to be indexed"):
        indices.build(*built, bare, side="captions", source="photos:x")


def test_an_index_of_before_is_one_of_photos(texts, tmp_path):
    built = small_models.build(towers())
    index = indices.build(*built, examples(towers()))
    indices.write(index, tmp_path / "index")
    about = json.loads((tmp_path / "index" / "index.json").read_text())
    old = {
        name: value for name, value in about.items() if name in ("kind", "metric", "fingerprint")
    }
    (tmp_path / "index" / "index.json").write_text(json.dumps(old))
    found = indices.read(tmp_path / "index").search(*built, texts, top=5)
    assert found == index.search(*built, texts, top=5)


@pytest.mark.parametrize("metric", indices.METRICS)
@pytest.mark.parametrize("cosine", [False, True])  # then captions are as long as the scale
def test_normalised_photos_rank_as_evaluate_ranks_them(metric, cosine, tmp_path):
    config = towers(cosine=cosine)
    own, built = examples(config), small_models.build(config)
    predictor, texts = Predictor(*built), own.texts(np.arange(6))
    said, images = predictor.embed(texts), predictor.embed(own.images(SEEN))
    bank = predictor.embed(own.texts(np.arange(6, 40)))
    how = {"metric": metric, "bank": querybank.Bank("train", lambda: bank)}
    indices.write(indices.build(*built, own, **how), tmp_path / "i")
    index = indices.read(tmp_path / "i")
    assert index.about.querybank == "train"
    products = said @ images.T
    if metric == "cosine":
        said, images, bank = (x / np.linalg.norm(x, axis=1)[:, None] for x in (said, images, bank))
    scores = said @ images.T - querybank.offsets(bank, images)
    found = index.search(*built, texts, top=4)
    assert found.score.startswith("querybank-normalised ")
    places = np.argsort(-scores, axis=1)[:, :4]
    assert [[hit.place for hit in row] for row in found.hits] == places.tolist()
    assert (places != np.argsort(-said @ images.T, axis=1)[:, :4]).any()
    for query, row in enumerate(found.hits):
        np.testing.assert_allclose([h.score for h in row], scores[query, places[query]], atol=1e-4)
        chances = [hit.probability for hit in row]
        if metric == "cosine" and not cosine:
            assert set(chances) == {None}  # lengths differ
        else:
            wanted = predictor.probabilities(products[query, places[query]])
            np.testing.assert_allclose(chances, wanted, atol=1e-4)
    alike = index.search(*built, own.images(np.array([8])), top=3)
    order = np.argsort(-images @ images[8])[:3].tolist()
    assert ([hit.place for hit in alike.hits[0]], "bank" in alike.score) == (order, False)


@pytest.mark.parametrize("how", [{"side": "captions"}, {"kind": "hnsw"}, {"kind": "ivf"}])
def test_only_photos_that_are_all_compared_are_normalised(how):
    built = small_models.build(towers())
    with pytest.raises(UsageError, match="--querybank normalises photos that are all compared"):
        indices.build(
            *built,
            examples(towers()),
            bank=querybank.Bank("train", lambda: pytest.fail("embedded")),
            **how,
        )


@pytest.mark.slow
def test_pairs_to_fuse_are_chosen_by_what_is_normalised():
    config = of_pixels("bridgetower", itm="classification")
    own, built = examples(config, pixels().head(12)), small_models.build(config)
    predictor = Predictor(*built)
    every, photos = np.arange(len(own.captions)), np.arange(12)
    bank = predictor.embed(own.texts(every[:5]))
    seen = []
    for rerank in (0, 1):
        how = {"rerank": rerank, "bank": querybank.Bank("train", lambda: bank)} if rerank else {}
        retrieval.evaluate(*built, own, seen=lambda scores, _: seen.append(scores), **how)
    chosen = retrieval.similarity(*built, own, querybank.Bank("train", lambda: bank))(every, photos)
    wanted = np.zeros(chosen.shape, bool)
    wanted[every, chosen.argmax(axis=1)] = wanted[chosen.argmax(axis=0), photos] = True
    np.testing.assert_allclose(seen[1], np.where(wanted, seen[0], -np.inf), atol=1e-4)
    plain = retrieval.similarity(*built, own)(every, photos)
    assert (plain.argmax(axis=1) != chosen.argmax(axis=1)).any()


def test_an_index_is_normalised_by_the_captions_of_another_split(mmt, folder, tmp_path):
    said = dataclasses.replace(CORPUS, captions=(("two balls", "a cube"),) * len(CORPUS))
    for split, photos in (("test", CORPUS), ("train", said)):
        formats.write(photos, tmp_path / "photos", split)
    data = (f"--workdir={folder / 'run'}", f"--data=regions:{tmp_path / 'photos'}", "--split=test")
    assert mmt("index", *data, f"--out={tmp_path / 'index'}", "--querybank=train")[0] == 0
    asked = ("search", f"--index={tmp_path / 'index'}", "--caption=a red cube")
    found, out = json.loads(mmt(*asked, "--json")[1])[0], mmt(*asked)[1]
    assert "score: querybank-normalised inner product of the embeddings" in out
    built, own = small_models.build(test_search.TOWERS), examples(test_search.TOWERS)
    texts = small_models.TOKENIZER.texts(("two balls", "a cube"), length=small_models.LENGTH)
    bank = Predictor(*built).embed(texts)
    index = indices.build(*built, own, bank=querybank.Bank("train", lambda: bank))
    texts = small_models.TOKENIZER.texts(["a red cube"], length=small_models.LENGTH)
    hits = index.search(*built, texts, top=10).hits[0]
    assert [hit["image_id"] for hit in found["photos"]] == [index.image_ids[h.place] for h in hits]
    wanted = [hit.score for hit in hits]
    np.testing.assert_allclose([hit["score"] for hit in found["photos"]], wanted, rtol=1e-4)
    assert all("probability" in hit for hit in found["photos"])
    for flag, message in (
        ("--querybank=val", "has no split 'val'"),
        ("--querybank=test", "captions of the photos of --split=test themselves"),
    ):
        status, _, err = mmt("index", *data, f"--out={tmp_path / 'no'}", flag)
        assert (status, err.count("\n"), message in err) == (2, 1, True)


# ---- What a score is -----------------------------------------------------------------------------


@pytest.mark.parametrize("itm", ["contrastive", "classification"])
@pytest.mark.slow
def test_the_probability_is_that_of_the_model(texts, itm):
    config = towers(itm=itm)
    own, built = examples(config), small_models.build(config)
    found = indices.build(*built, own).search(*built, texts, top=5)
    assert found.score == "inner product"
    odds = Predictor(*built).log_odds(texts, own.images(SEEN))
    for row, hits in zip(odds, found.hits, strict=True):
        wanted = special.expit(row[[hit.place for hit in hits]])
        np.testing.assert_allclose([hit.probability for hit in hits], wanted, atol=1e-5)


def test_of_unit_vectors_it_is_known_by_cosines_too(texts):
    config = towers(cosine=True)
    own, (model, params) = examples(config), small_models.build(config)
    scale = np.exp(params["score"]["log_scale"])
    found = {
        metric: indices.build(model, params, own, metric=metric).search(model, params, texts, top=4)
        for metric in indices.METRICS
    }
    assert found["ip"].score == f"{scale:.4g} × cosine"
    assert found["cosine"].score == "cosine"
    for one, other in zip(found["ip"].hits[0], found["cosine"].hits[0], strict=True):
        assert one.score == pytest.approx(scale * other.score, rel=1e-4)
        assert one.probability == pytest.approx(other.probability, abs=1e-5)


def test_weights_without_calibration_have_no_probability(texts):
    model, params = small_models.build(towers())
    params |= {"calibration": {"scale": np.ones((), np.float32), "bias": np.zeros((), np.float32)}}
    found = indices.build(model, params, examples(towers())).search(model, params, texts, top=4)
    assert {hit.probability for hit in found.hits[0]} == {None}


@pytest.mark.slow
@pytest.mark.parametrize("side", indices.SIDES)
def test_a_model_that_embeds_and_scores_jointly_judges_what_is_found(tmp_path, side):
    config = of_pixels("bridgetower", itm="classification")
    formats.write(pixels(), tmp_path / "photos", "test")
    scorer = api.load(small_models.make_workdir(tmp_path, config))
    own, predictor = examples(config, pixels()), scorer.predictor
    built = predictor.model, predictor.params
    told = {"source": f"regions:{tmp_path / 'photos'}", "split": "test"}
    index = indices.build(*built, own, side=side, **told)
    texts = own.texts(np.array([0, 5]))
    items = texts if side == "images" else own.images(np.array([0, 5]))
    found = index.search(*built, items, top=3)
    assert found.score == "cosine"
    assert {hit.probability for hit in found.hits[0]} == {None}
    every = own.texts(np.arange(len(own.captions))), own.images(SEEN)
    odds = predictor.log_odds(*every)
    odds = odds[[0, 5]] if side == "images" else odds[:, [0, 5]].T
    for row, hits in zip(odds, source.judged(index, scorer, items, found.hits), strict=True):
        wanted = special.expit(row[[hit.place for hit in hits]])
        np.testing.assert_allclose([hit.probability for hit in hits], wanted, atol=1e-4)
    assert source.judged(index, scorer, items, [[], []]) == [[], []]


# ---- Commands ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """A workdir of CLIP, an index of photos and one of captions for it, and a photo's file."""
    seen = tmp_path_factory.mktemp("seen")
    config = of_pixels("clip")
    (seen / "run").mkdir()
    scorer = api.load(small_models.make_workdir(seen / "run", config))
    formats.write(pixels(), seen / "photos", "test")
    built = scorer.predictor.model, scorer.predictor.params
    told = {"workdir": seen / "run", "source": f"regions:{seen / 'photos'}", "split": "test"}
    for side in indices.SIDES:
        index = indices.build(*built, examples(config, pixels()), side=side, **told)
        indices.write(index, seen / side)
    Pillow.fromarray(pixels().pixels[3]).save(seen / "a<b>.png")
    return seen


def test_photos_like_a_photo_from_the_command_line(mmt, seen, tmp_path):
    page = tmp_path / "found.html"
    argv = ("search", f"--index={seen / 'images'}", f"--image={seen / 'a<b>.png'}", "--top=2")
    status, out, _ = mmt(*argv, "--json", f"--html={page}")
    assert status == 0
    (answer,) = json.loads(out)
    assert (answer["photo"], answer["score_is"]) == (str(seen / "a<b>.png"), "cosine")
    assert answer["photos"][0]["image_id"] == CORPUS.image_ids[3]
    assert answer["photos"][0]["score"] == pytest.approx(1, abs=1e-4)
    text = page.read_text()
    assert text.count("<img") == 3  # the photo, and two that are like it
    assert "a&lt;b&gt;.png" in text
    assert "<b>.png" not in text
    assert mmt(*argv)[1].splitlines()[-1] == (
        "score: cosine of the embeddings; it ranks photos by likeness, and is no probability."
    )


@pytest.mark.slow
def test_photos_are_indexed_as_the_weights_came_to_read_them(mmt, tmp_path):
    (tmp_path / "run").mkdir()
    small_models.make_workdir(tmp_path / "run", of_pixels("bridgetower", itm="classification"))
    told = {"size": {"shortest_edge": SIDE}, "size_divisor": 1}  # 32 is the family's
    (tmp_path / "run" / "preprocessor_config.json").write_text(json.dumps(told))
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(2)
    for number in range(5):
        picture = rng.integers(0, 256, (11 + number, 17, 3), np.uint8)
        Pillow.fromarray(picture).save(tmp_path / "photos" / f"{number}.png")
        (tmp_path / "photos" / f"{number}.txt").write_text("a red cube")
    source = f"--data=photos:{tmp_path / 'photos'}"
    argv = (f"--workdir={tmp_path / 'run'}", source, "--split=train", f"--out={tmp_path / 'index'}")
    assert mmt("index", *argv)[0] == 0
    image = f"--image={tmp_path / 'photos' / '3.png'}"
    _, out, _ = mmt("search", f"--index={tmp_path / 'index'}", image, "--json")
    best = json.loads(out)[0]["photos"][0]
    assert (best["name"], best["score"]) == ("3.png", pytest.approx(1, abs=1e-5))


@pytest.mark.slow
def test_captions_of_a_photo_from_the_command_line(mmt, folder, tmp_path):
    run = f"--workdir={folder / 'run'}"
    argv = (run, f"--data=regions:{folder / 'photos'}", "--split=test", "--side=captions")
    status, out, _ = mmt("index", *argv, f"--out={tmp_path / 'index'}")
    assert (status, out.split(" of ")[0]) == (0, f"{sum(map(len, CORPUS.captions))} captions")
    mmt("record", *argv[1:3], "--index=6", f"--out={tmp_path / 'photo.npz'}")
    argv = ("search", f"--index={tmp_path / 'index'}", f"--record={tmp_path / 'photo.npz'}")
    status, out, _ = mmt(*argv, "--top=3", "--json", f"--html={tmp_path / 'found.html'}")
    assert status == 0
    (answer,) = json.loads(out)
    chances = api.load(folder / "run").score(
        tmp_path / "photo.npz", [row["caption"] for row in answer["captions"]], truncate=True
    )
    for row, chance in zip(answer["captions"], chances, strict=True):
        assert row["probability"] == pytest.approx(chance, abs=1e-4)
        assert row["caption"] in CORPUS.captions[(row["image_id"] - 100) // 7]
    page = (tmp_path / "found.html").read_text()
    assert page.count("<img") == 4  # of the record, and of the photos whose captions these are
    assert "were half of all pairs matches" in page
    with np.load(tmp_path / "photo.npz") as record:
        (tmp_path / "photo.pkl").write_bytes(pickle.dumps(dict(record)))
    pickled = (*argv[:2], f"--record={tmp_path / 'photo.pkl'}", "--top=3")
    status, again, _ = mmt(*pickled, "--json", f"--html={tmp_path / 'again.html'}")
    assert (status, json.loads(again)[0]["captions"]) == (0, answer["captions"])
    _, table, _ = mmt(*argv, "--top=1")
    header = re.split("  +", table.splitlines()[1])
    assert header == ["rank", "score", "probability", "photo", "its caption"]


@pytest.mark.parametrize(("bias", "fits"), [(-1e4, False), (1e4, True)])
def test_nothing_fits_where_the_probability_says_so(mmt, tmp_path, monkeypatch, bias, fits):
    built = small_models.build

    def biased(config):
        model, params = built(config)
        params["calibration"]["bias"] = np.array(bias, np.float32)
        return model, params

    monkeypatch.setattr(small_models, "build", biased)
    small_models.make_workdir(tmp_path, towers())
    formats.write(CORPUS, tmp_path / "photos", "test")
    data = (f"--data=regions:{tmp_path / 'photos'}", "--split=test")
    mmt("index", f"--workdir={tmp_path}", *data, f"--out={tmp_path / 'index'}")
    argv = ("search", f"--index={tmp_path / 'index'}", "--caption=a red cube")
    _, out, _ = mmt(*argv, f"--html={tmp_path / 'found.html'}")
    assert ("nothing fits" not in out) == fits
    assert ("nothing fits" not in (tmp_path / "found.html").read_text()) == fits


def test_wrong_queries_are_told_in_one_sentence(mmt, seen, folder, tmp_path):
    def message(*argv):
        status, out, err = mmt("search", *argv)
        assert (status, out, err.count("\n")) == (2, "", 1)
        return err

    images, captions = (f"--index={seen / side}" for side in indices.SIDES)
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    np.savez(tmp_path / "photo.npz", **small_models.record(3))
    assert "give one of --caption, --image and --record" in message(images)
    both = ("--caption=a cube", f"--image={tmp_path / 'broken.jpg'}")
    assert "give one of --caption, --image and --record" in message(images, *both)
    assert "is one of captions" in message(captions, "--caption=a cube")
    assert "broken.jpg is no picture" in message(images, f"--image={tmp_path / 'broken.jpg'}")
    assert "there is no file" in message(images, f"--image={tmp_path / 'none.jpg'}")
    assert "pixels" in message(images, f"--record={tmp_path / 'photo.npz'}")
    record = f"--record={tmp_path / 'photo.npz'}"
    assert "a record holds its regions" in message(images, record, "--detector=grid:x")
    assert "give a photo as --image" in message(images, f"--record={seen / 'a<b>.png'}")
    assert "give a record as --record" in message(images, f"--image={tmp_path / 'photo.npz'}")
    other = f"--workdir={folder / 'run'}"
    assert "was written by another model" in message(images, other, record)
    assert "give the detector" in message(images, other, f"--image={seen / 'a<b>.png'}")
    broken = {"pixels": np.zeros(3)}
    np.savez(tmp_path / "broken.npz", **broken)
    assert "broken.npz" in message(images, f"--record={tmp_path / 'broken.npz'}")
