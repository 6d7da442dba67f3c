import dataclasses
import functools
import http.server
import pickle
import shutil
import sys
import threading
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import small_models as small
from PIL import Image as Pillow
from scipy import special

import mmt_jax
from mmt_jax import params as params_lib
from mmt_jax.configs import variants
from mmt_jax.configs.config import RELEASE_SPEC, DataSpec
from mmt_jax.corpus import Corpus
from mmt_jax.data import schema, sources
from mmt_jax.data.pipeline import Examples
from mmt_jax.errors import UsageError
from mmt_jax.infer import api, retrieval
from mmt_jax.infer.export import loading
from mmt_jax.infer.scorer import Scorer
from mmt_jax.photos import processors
from mmt_jax.text import vocabulary
from mmt_jax.train import workdir as workdirs

MERGED = small.config(("text", "merged"))
PIXELS = small.config(("single",), itm="contrastive", pixels=True)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return small.make_workdir(tmp_path_factory.mktemp("merged"), MERGED)


@pytest.fixture(scope="module")
def scorer(workdir):
    return mmt_jax.load(workdir)


@pytest.fixture(scope="module")
def pixel_scorer(tmp_path_factory):
    return mmt_jax.load(small.make_workdir(tmp_path_factory.mktemp("pixels"), PIXELS))


def test_package_offers_load_and_build_alone():
    assert mmt_jax.load is api.load
    assert mmt_jax.build is api.build
    assert {"load", "build"} <= set(dir(mmt_jax))
    with pytest.raises(AttributeError, match="lode"):
        mmt_jax.lode  # noqa: B018


def test_build_gives_fresh_weights_that_the_seed_decides():
    spec = DataSpec(feature_dim=7, num_classes=0, vocab_size=30)
    model, params = mmt_jax.build("architecture_vilbert-1block", spec=spec)
    _, other = mmt_jax.build("architecture_vilbert-1block", spec=spec, seed=1)
    assert model.config.model.layers == ("text", "merged")
    assert params["text"]["tokens"]["embedding"].shape == (30, 96)
    assert params_lib.differences(params, model.abstract()) == []
    assert not np.array_equal(
        params["text"]["tokens"]["embedding"], other["text"]["tokens"]["embedding"]
    )


def test_build_refuses_an_unknown_tag():
    with pytest.raises(UsageError, match="did you mean data_cc"):
        mmt_jax.build("data_c")


def test_sizes_are_the_scenes_when_tiny_and_the_releases_when_full():
    full = variants.get_config("data_cc")
    assert api.data_spec(full) == RELEASE_SPEC
    tiny = variants.get_config("data_cc", scale="tiny")
    assert api.data_spec(tiny) == sources.spec(tiny)
    pixel = variants.get_config("pixel_vilbert_cc-full-image")
    assert api.data_spec(pixel) == DataSpec(3 * 16 * 16, 0, 32000)


@pytest.mark.slow
def test_scores_are_the_models_probabilities_whatever_stands_beside(scorer):
    records = [small.record(2, seed=1), small.record(4, seed=2), small.record(2, seed=3, padding=2)]
    found = scorer.score(records, small.CAPTIONS)
    assert found.shape == (3, 4)
    model, params = small.build(MERGED)
    for row, record in zip(found, records, strict=True):
        inputs = small.batch([record] * 4, small.CAPTIONS)
        np.testing.assert_allclose(row, small.probability(model, params, inputs), atol=1e-5)
    assert np.ptp(found) > 0.05  # or the comparison would say nothing


def test_one_record_needs_no_list_and_may_be_a_file(scorer, tmp_path):
    record = small.record(3)
    np.savez(tmp_path / "photo.npz", **record)
    from_dict = scorer.score(record, small.CAPTIONS)
    from_file = scorer.score(tmp_path / "photo.npz", list(small.CAPTIONS))
    from_list = scorer.score([str(tmp_path / "photo.npz")], small.CAPTIONS)
    assert from_dict.shape == (4,)
    np.testing.assert_array_equal(from_dict, from_file)
    np.testing.assert_array_equal(from_dict[None], from_list)


@pytest.mark.slow
def test_log_odds_in_small_blocks_are_the_logits_of_all_pairs(scorer):
    records = [small.record(3, seed=seed) for seed in range(3)]
    texts = schema.from_text(small.TOKENIZER.texts(small.CAPTIONS, length=small.LENGTH))
    images = {key: np.stack([r[key] for r in records]) for key in schema.IMAGE_KEYS}
    odds = scorer.log_odds(texts, images, pairs=2)
    for column, record in zip(odds.T, records, strict=True):
        logits = scorer.logits(small.batch([record] * 4, small.CAPTIONS))
        np.testing.assert_allclose(column, logits[:, 0] - logits[:, 1], atol=1e-5)


def test_pixels_are_scored_as_patches(pixel_scorer):
    photos = [small.pixels(4, 6, seed=1), small.pixels(4, 6, seed=2)]
    model, params = small.build(PIXELS)
    for row, photo in zip(pixel_scorer.score(photos, small.CAPTIONS), photos, strict=True):
        expected = small.probability(model, params, small.batch([photo] * 4, small.CAPTIONS))
        np.testing.assert_allclose(row, expected, atol=1e-5)
    with pytest.raises(UsageError, match=r"2 different sizes; resize them all alike, .* 4 × 4"):
        pixel_scorer.score([small.pixels(4, 4), small.pixels(4, 6)], ["a cube"])
    with pytest.raises(UsageError, match="multiples of 2"):
        pixel_scorer.score(small.pixels(3, 4), ["a cube"])
    with pytest.raises(UsageError, match="'image/pixels' is missing"):
        pixel_scorer.score(small.record(2), ["a cube"])


def change(key, function):
    return lambda record: record | {key: function(record[key])}


BAD_RECORDS = {
    "missing key": (lambda r: {schema.BOXES: r[schema.BOXES]}, "'image/detection_features' is mi"),
    "NaN": (change(schema.FEATURES, lambda v: v * np.nan), "NaN"),
    "other detector": (change(schema.FEATURES, lambda v: v[:, :4]), "reads features of 6"),
    "too many": (lambda r: small.record(6), "6 regions .* at most 5 fit"),
}


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_bad_records_are_named(scorer, name):
    spoil, message = BAD_RECORDS[name]
    with pytest.raises(UsageError, match=f"record 1: .*{message}"):
        scorer.score([small.record(3), spoil(small.record(3))], ["a cube"])


def test_a_truncated_file_is_named(scorer, tmp_path):
    path = tmp_path / "photo.npz"
    np.savez(path, **small.record(3))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UsageError, match=r"photo\.npz cannot be read"):
        scorer.score(path, ["a cube"])


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ("a cube", r"must be a list; write \['a cube'\]"),
        ([], "no caption"),
        (["a cube", " "], "caption ' ' is empty"),
        (["a cube", float("nan")], "a caption is nan; give each as one string"),
        ([["a cube"]], r"a caption is \['a cube'\]; give each as one string"),
        (None, "a caption is None"),
        (["a red cube left of a red cube left of a red cube"], "the model reads 14; shorten it"),
    ],
)
def test_bad_captions_are_named(scorer, captions, message):
    with pytest.raises(UsageError, match=message):
        scorer.score(small.record(3), captions)


def test_what_finds_regions_is_for_photos_that_have_none(scorer, pixel_scorer, tmp_path):
    with pytest.raises(UsageError, match="read of a photo already; leave detector out"):
        scorer.score(small.record(3), ["a cube"], detector="grid:x")
    with pytest.raises(UsageError, match="leave size_divisor out"):
        scorer.fill(small.record(3), "a <mask>", size_divisor=32)
    Pillow.new("RGB", (6, 4)).save(tmp_path / "x.png")
    with pytest.raises(UsageError, match="reads a photo's pixels; leave detector out"):
        pixel_scorer.record(tmp_path / "x.png", detector="grid:x")


@pytest.mark.parametrize("config", [MERGED, PIXELS], ids=["regions", "pixels"])
@pytest.mark.slow
def test_a_scorer_ranks_as_its_model_does(config, tmp_path):
    rng = np.random.default_rng(0)
    photos = Corpus(
        name="photos",
        image_ids=np.arange(4),
        offsets=np.arange(5),
        captions=tuple((caption,) for caption in small.CAPTIONS),
        rows={
            schema.BOXES: np.tile(np.array([0, 0, 1, 1, 1], np.float32), (4, 1)),
            schema.FEATURES: rng.standard_normal((4, small.FEATURE_DIM), np.float32),
        },
        pixels=rng.integers(0, 256, (4, 4, 6, 3), np.uint8),
    )
    examples = Examples.of(config, [photos], small.TOKENIZER)
    expected = retrieval.evaluate(*small.build(config), examples, fold=2)
    scorer = mmt_jax.load(small.make_workdir(tmp_path, config))
    found = retrieval.ranked(retrieval.scores_of(scorer, examples), examples, fold=2)
    np.testing.assert_array_equal(found.image_ranks, expected.image_ranks)
    np.testing.assert_array_equal(found.text_ranks, expected.text_ranks)


def test_no_record_is_refused(scorer):
    with pytest.raises(UsageError, match="no record"):
        scorer.score([], ["a cube"])


@pytest.mark.parametrize("record", [None, 7, [None]], ids=str)
def test_what_is_no_photo_is_refused(scorer, record):
    with pytest.raises(UsageError, match=r"the photo is \w+ of shape \(\); give a path"):
        scorer.score(record, ["a cube"])


@pytest.mark.parametrize("sentence", [None, ["a <mask> cube"]], ids=str)
def test_a_sentence_with_blanks_is_one_string(scorer, sentence):
    with pytest.raises(UsageError, match=r"the sentence is .*; give one string"):
        scorer.fill(small.record(3), sentence)


def test_truncate_cuts_long_captions_as_training_does(scorer):
    long = " ".join(["a red cube"] * 9)
    model, params = small.build(MERGED)
    record = small.record(3)
    expected = small.probability(model, params, small.batch([record], [long]))
    np.testing.assert_allclose(scorer.score(record, [long], truncate=True), expected, atol=1e-5)


def test_load_says_what_a_path_lacks(tmp_path):
    with pytest.raises(UsageError, match="nowhere does not exist; give the --workdir"):
        mmt_jax.load(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="neither a training workdir nor a SavedModel"):
        mmt_jax.load(tmp_path)


@pytest.mark.parametrize(
    ("handle", "loaded"),
    [
        ("https://tfhub.dev/owner/mmt/data_cc/1", "https://tfhub.dev/owner/mmt/data_cc/1"),
        ("owner/mmt/tensorFlow2/data-cc", "/kept/owner/mmt/tensorFlow2/data-cc"),
        (
            "https://www.kaggle.com/models/owner/mmt/tensorFlow2/data-cc/1",
            "/kept/owner/mmt/tensorFlow2/data-cc/1",
        ),
    ],
)
def test_a_handle_is_loaded_by_the_library_that_knows_it(monkeypatch, handle, loaded):
    asked = []
    hub = SimpleNamespace(load=asked.append)
    monkeypatch.setattr(loading, "tensorflow", lambda: None)
    monkeypatch.setitem(sys.modules, "tensorflow_hub", hub)
    kaggle = SimpleNamespace(model_download=lambda name: f"/kept/{name}")
    monkeypatch.setitem(sys.modules, "kagglehub", kaggle)
    with pytest.raises(UsageError, match="has no signature 'default'"):  # nothing was loaded
        mmt_jax.load(handle)
    assert asked == [loaded]
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(UsageError, match="pip install kagglehub" if "/kept" in loaded else "defa"):
        mmt_jax.load(handle)


def test_a_vocabulary_of_another_model_is_refused(workdir, tmp_path):
    spoiled = tmp_path / "run"
    shutil.copytree(workdir, spoiled)
    other = vocabulary.train(["quite other words stand here", "xyz"], 45).model
    (spoiled / vocabulary.VOCABULARY).write_bytes(other)
    with pytest.raises(UsageError, match="give the one that it was trained with"):
        mmt_jax.load(spoiled)


def test_a_run_in_bfloat16_is_scored_in_float32(workdir, scorer, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(workdir, half)
    workdirs.write_config(half, dataclasses.replace(MERGED, dtype="bfloat16"))
    record = small.record(3)
    np.testing.assert_array_equal(
        mmt_jax.load(half).score(record, small.CAPTIONS), scorer.score(record, small.CAPTIONS)
    )


def test_blanks_are_filled_with_what_the_model_says_of_the_words(scorer):
    """Padding carries the mask's id in the release's layout, and is no blank."""
    record = small.record(3)
    (found,) = scorer.fill(record, "a <mask> cube", top=1000)
    assert len(found) == small.TOKENIZER.vocab_size
    assert sum(word.probability for word in found) == pytest.approx(1, abs=1e-5)
    model, params = small.build(MERGED)
    mask = small.TOKENIZER.mask_id
    ids = [*small.TOKENIZER.encode("a"), mask, *small.TOKENIZER.encode("cube")]
    text = small.TOKENIZER.layout([ids], length=small.LENGTH)
    image = schema.to_image({key: value[None] for key, value in record.items()})

    @jax.jit
    def words(params, text, image):
        encoded = model.encode_text(params, text), model.encode_image(params, image)
        return model.words(params, model.fuse(params, *encoded).text)

    logits = words(params, text, image)
    place = small.LENGTH - 2 - len(ids) + ids.index(mask) + 1
    expected = np.sort(jax.nn.softmax(logits[0, place]))[::-1]
    np.testing.assert_allclose([word.probability for word in found], expected, atol=1e-5)


def test_a_caption_is_chosen_by_its_odds(scorer):
    record = small.record(3)
    odds = scorer.score(record, small.CAPTIONS)
    odds = odds / (1 - odds)
    np.testing.assert_allclose(
        scorer.choose(record, small.CAPTIONS), odds / odds.sum(), rtol=1e-4, atol=1e-5
    )


def test_a_workdir_has_its_own_vocabulary(workdir, tmp_path):
    with pytest.raises(UsageError, match="brings its own vocabulary"):
        mmt_jax.load(workdir, vocab=tmp_path / "other.model")


def test_captions_may_be_an_array(scorer):
    record = small.record(3)
    captions = list(small.CAPTIONS[:2])
    found = scorer.score(record, np.array(captions))
    np.testing.assert_array_equal(found, scorer.score(record, captions))


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    config = small.config(("single",), family="two_tower", itm="contrastive")
    return mmt_jax.load(small.make_workdir(tmp_path_factory.mktemp("towers"), config))


@pytest.mark.slow
def test_photos_that_are_found_are_those_of_the_largest_products(towers):
    photos = [small.record(3, seed=seed) for seed in range(4)]
    texts, images = towers.embed_texts(small.CAPTIONS), towers.embed_images(photos)
    assert texts.shape[1:] == images.shape[1:]
    np.testing.assert_allclose(towers.embed_images(photos[1]), images[1], atol=1e-6)
    found = towers.search(photos, small.CAPTIONS[0], top=3)
    products = images @ texts[0]
    assert [hit.place for hit in found] == np.argsort(-products)[:3].tolist()
    np.testing.assert_allclose([h.score for h in found], np.sort(products)[:-4:-1], atol=1e-5)
    chances = towers.score(photos, small.CAPTIONS[:1])[[hit.place for hit in found], 0]
    np.testing.assert_allclose([h.probability for h in found], chances, atol=1e-5)


@pytest.mark.slow
def test_what_a_joint_contrast_finds_has_its_calibrated_probability(tmp_path):
    config = small.config(("merged",), itm="contrastive")
    joint = mmt_jax.load(small.make_workdir(tmp_path / "joint", config))
    photos = [small.record(3, seed=seed) for seed in range(3)]
    found = joint.search(photos, small.CAPTIONS[0])
    chances = joint.score(photos, small.CAPTIONS[:1])[[hit.place for hit in found], 0]
    np.testing.assert_allclose([h.probability for h in found], chances, atol=1e-5)


def test_a_model_without_embeddings_searches_by_its_scores(scorer):
    photos = [small.record(3, seed=seed) for seed in range(4)]
    found = scorer.search(photos, small.CAPTIONS[1], top=9)
    scores = scorer.score(photos, small.CAPTIONS)[:, 1]
    places = [hit.place for hit in found]
    assert sorted(places) == [0, 1, 2, 3]
    assert (np.diff(scores[places]) < 1e-6).all()  # two are nearly equal
    np.testing.assert_allclose([h.probability for h in found], scores[places], atol=1e-5)
    captions = scorer.search(small.CAPTIONS, photo=photos[2])
    chances = scorer.score(photos[2], small.CAPTIONS)[[hit.place for hit in captions]]
    np.testing.assert_allclose([h.probability for h in captions], chances, atol=1e-5)
    for ask in (lambda: scorer.embed_texts(["a"]), lambda: scorer.embed_images(photos)):
        with pytest.raises(UsageError, match=r"no embeddings.*baseline_baseline"):
            ask()


def test_a_photo_may_come_in_any_form(pixel_scorer, tmp_path):
    scorer, of_photos = pixel_scorer, processors.Processor(8 * PIXELS.model.patch_size, 0)
    reader = Scorer(scorer.config, scorer.tokenizer, of_photos, predictor=scorer.predictor)
    pixels = (small.pixels(64, 64)[schema.PIXELS] * 255).astype(np.uint8)
    path = tmp_path / "photo.png"
    Pillow.fromarray(pixels).save(path)
    wanted = reader.score(path, small.CAPTIONS)
    forms = (pixels, pixels / np.float32(255), path.read_bytes(), Pillow.open(path), [path])
    for form in forms:
        found = reader.score(form, small.CAPTIONS).reshape(wanted.shape)
        np.testing.assert_array_equal(found, wanted)
    for wrong in (pixels[..., 0], pixels.astype(np.int64), pixels * 1.0):
        with pytest.raises(UsageError, match="the photo is"):
            reader.score([wrong], small.CAPTIONS)


class _Answers(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Nothing on stderr."""


@pytest.fixture
def served(tmp_path):
    """The address of a folder's files."""
    handler = functools.partial(_Answers, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_photo_may_be_an_address(pixel_scorer, tmp_path, served):
    pixels = (small.pixels(8, 8)[schema.PIXELS] * 255).astype(np.uint8)
    Pillow.fromarray(pixels).save(tmp_path / "a b.png")
    (tmp_path / "page.html").write_text("<html>")
    sized = processors.Processor(8, 0)
    reader = Scorer(pixel_scorer.config, pixel_scorer.tokenizer, sized)
    found = reader.record(f"{served}/a%20b.png")[schema.PIXELS]
    np.testing.assert_array_equal(found, reader.record(pixels)[schema.PIXELS])
    for address, message in (
        (
            f"{served}/none.png",
            r"/none.png cannot be fetched \(HTTP Error 404.*; check the address",
        ),
        (f"{served}/page.html", "/page.html is no picture of a known kind"),
        ("http://127.0.0.1:1/x.png", r"x.png cannot be fetched \(Connection refused\)"),
        ("http://[/x.png", r"x.png cannot be fetched \(Invalid IPv6 URL\)"),
    ):
        with pytest.raises(UsageError, match=message):
            reader.record(address)


def test_a_record_may_be_one_of_the_releases_pickles(scorer, tmp_path):
    record = small.record(3, padding=1)
    found = {key: value[None].astype(np.float64) for key, value in record.items()}
    path = tmp_path / "photo.pkl"
    path.write_bytes(pickle.dumps(found | {"image_id": 7}))
    expected = scorer.score(record, small.CAPTIONS)
    np.testing.assert_array_equal(scorer.score([path], small.CAPTIONS)[0], expected)
    for content, message in (
        (pickle.dumps(found)[:40], "photo.pkl is damaged"),
        (pickle.dumps([1]), "photo.pkl holds a list"),
        (pickle.dumps(print), "asks for builtins.print"),
        (pickle.dumps({}), r"photo.pkl: the key 'image/detection_features' is missing"),
        (pickle.dumps({schema.BOXES: np.array([["a"]])}), "photo.pkl is damaged .*could not"),
    ):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=message):
            scorer.score(path, small.CAPTIONS)
    folder = tmp_path / "folder.pkl"
    folder.mkdir()
    with pytest.raises(UsageError, match=r"folder.pkl cannot be read: Is a directory"):
        scorer.score(folder, small.CAPTIONS)


def test_photos_in_a_list_are_told_apart(pixel_scorer):
    sized, fine = processors.Processor(8, 0), np.zeros((8, 8, 3), np.uint8)
    reader = Scorer(pixel_scorer.config, pixel_scorer.tokenizer, sized)
    for wrong, message in ((fine[0], "photo 1 is ndarray of shape"), (b"", "photo 1 is empty")):
        with pytest.raises(UsageError, match=message):
            reader.images([fine, wrong])


@pytest.mark.parametrize(
    ("record", "caption", "message"),
    [
        (None, None, "nothing to trace"),
        ({}, "a cube", "record 0: the key"),
        (None, "", "empty|no piece|no word|text"),
    ],
)
def test_what_cannot_be_traced_is_told(scorer, record, caption, message):
    with pytest.raises(UsageError, match=message):
        scorer.trace(record, caption)


def test_a_trace_is_of_one_pair_and_has_its_score(scorer):
    record = small.record(3, padding=1)
    found = scorer.trace(record, small.CAPTIONS[0])
    assert [state.shape for state in found["image"]] == [(5, 16)] * 2
    assert found["text_to_all"][0].shape == (2, small.LENGTH, small.LENGTH + 5)
    probability = special.softmax(found["logits"])[0]
    np.testing.assert_allclose(probability, scorer.score(record, small.CAPTIONS)[0], atol=1e-6)
    alone = scorer.trace(None, small.CAPTIONS[0])
    assert alone.keys() == {"text", "text_attention"}
    np.testing.assert_allclose(alone["text"][1], found["text"][1], atol=1e-6)


def test_a_model_says_what_it_is_and_can(scorer, towers):
    leaves = params_lib.flatten(scorer.predictor.params).values()
    assert f"{sum(leaf.size for leaf in leaves):,} parameters" in repr(scorer)
    assert "family mmt" in repr(scorer)
    assert "steps on scenes" in repr(scorer)
    assert "embed_texts, embed_images, search" in repr(towers)
    assert scorer.abilities == ("score", "choose", "explain", "search", "fill", "trace")
    with pytest.raises(UsageError, match="no head for questions"):
        scorer.answer(small.record(3), "what is it?")
