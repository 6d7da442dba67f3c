"""A photo goes in, a score and a picture come out; what a score rests on is told as it is."""

import base64
import dataclasses
import html.parser
import io
import pathlib
import re
import warnings

import jax
import numpy as np
import pytest
import small_models
import tiny
from PIL import Image as Pillow
from small_models import FEATURE_DIM, TOKENIZER

import mmt_jax
from mmt_jax import detectors, scenes
from mmt_jax.cli import main
from mmt_jax.configs.config import Config, DataConfig, ObjectiveConfig
from mmt_jax.configs.models import ClipConfig, LxmertConfig
from mmt_jax.data import schema
from mmt_jax.detectors.base import Detections
from mmt_jax.errors import UsageError
from mmt_jax.infer import trace
from mmt_jax.infer.predict import Predictor
from mmt_jax.infer.show import page
from mmt_jax.infer.show.explain import Explanation, attended, explain
from mmt_jax.infer.show.view import View, apart
from mmt_jax.models import registry
from mmt_jax.text import vocabulary
from mmt_jax.train import checkpoint

CAPTION = "a cube left of  a ball"


class Halves:
    """Two regions, one surely class 1."""

    num_classes = 2
    labels = {1: "a <cube>"}  # noqa: RUF012

    def detect(self, photo):
        return Detections(
            np.array([[0, 0, 1, 0.5], [0, 0.5, 1, 1]], np.float32),
            np.outer([1.0, -1.0], np.arange(FEATURE_DIM)).astype(np.float32) + photo.mean() / 255,
            np.array([0.9, 0.4], np.float32),
            np.array([[1, 0], [0, 1]], np.int32),
            np.array([[0.9, 0.1], [0.6, 0.4]], np.float32),
        )


@pytest.fixture(autouse=True)
def detector(monkeypatch):
    monkeypatch.setattr(detectors, "load", lambda spec: Halves())


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    config = small_models.config(("single", "merged"))
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, mask_id=6))
    return small_models.make_workdir(tmp_path_factory.mktemp("mmt"), config)


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "x.png"
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    Pillow.fromarray(pixels).save(path)
    return path


def lxmert():
    sizes = {"width": 8, "mlp_dim": 6, "heads": 2, "feature_dim": FEATURE_DIM, "num_classes": 0}
    depths = {"language_layers": 1, "region_layers": 1, "cross_layers": 2}
    vocabulary = {"vocab_size": TOKENIZER.vocab_size, "mask_id": 6, "pad_id": 5}
    config = Config(
        model=LxmertConfig(**sizes, **depths, **vocabulary),
        objective=ObjectiveConfig(mlm=0.0, mrm=0.0),
        data=DataConfig(text_length=16),
    )
    return registry.build(config)


def test_a_photo_is_scored_as_its_record_is(workdir, photo):
    scorer = mmt_jax.load(workdir)
    record = scorer.record(photo, detector="fake:x")
    assert record[schema.BOXES].shape == (3, 5)
    assert record[schema.BOXES][-1].tolist() == [0, 0, 1, 1, 1]
    np.testing.assert_allclose(  # the whole photo's feature is the mean of its regions'
        record[schema.FEATURES][-1], record[schema.FEATURES][:2].mean(axis=0), rtol=1e-6
    )
    captions = ["a red cube", "a blue ball"]
    scores = scorer.score(photo, captions, detector="fake:x")
    np.testing.assert_array_equal(scores, scorer.score(record, captions))
    with pytest.raises(UsageError, match="give the detector"):
        scorer.score(photo, captions)


@pytest.mark.slow
def test_models_of_pixels_read_the_photo_itself(tmp_path, photo):
    sizes = {f"{part}_{name}": 8 for part in ("text", "image") for name in ("width", "mlp_dim")}
    heads = {"text_layers": 1, "image_layers": 1, "text_heads": 2, "image_heads": 2}
    vocabulary = {"vocab_size": TOKENIZER.vocab_size, "mask_id": 6, "pad_id": 5}
    model = ClipConfig(
        **sizes, **heads, **vocabulary, width=8, image_size=8, patch_size=4, feature_dim=48,
        num_classes=0,
    )  # fmt: skip
    objective = ObjectiveConfig(itm="contrastive", mlm=0.0, mrm=0.0)
    config = Config(tag="clip", model=model, objective=objective, data=DataConfig(text_length=16))
    checkpoint.write(tmp_path / "clip", config, tiny.params(registry.build(config)), TOKENIZER)
    scorer = mmt_jax.load(tmp_path / "clip")
    assert scorer.record(photo)[schema.PIXELS].shape == (8, 8, 3)
    assert scorer.score([photo, photo], ["a red cube"]).shape == (2, 1)
    out = tmp_path / "x.html"
    argv = [f"--image={photo}", f"--model={tmp_path / 'clip'}", "--caption=a cube", f"--out={out}"]
    assert main.main(["show", *argv]) == 0
    assert out.read_text().count("<rect") == 4  # patches


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mmt", "lxmert"])
def test_an_explanation_is_what_hiding_by_hand_gives(family):
    if family == "mmt":
        model = registry.build(
            dataclasses.replace(
                (config := small_models.config(("single", "merged"))),
                model=dataclasses.replace(config.model, mask_id=6),
            )
        )
    else:
        model = lxmert()
    params = tiny.params(model)
    record = small_models.record(3, padding=1)
    image = schema.to_image({key: value[None] for key, value in record.items()})
    told = explain(Predictor(model, params), TOKENIZER, CAPTION, image)
    assert told.words == tuple(CAPTION.split())
    text = TOKENIZER.texts([CAPTION], length=16, layout=model.config.model.layout)

    logits = jax.jit(lambda *pair: tiny.fused(model, params, *pair).logits[-1, 0])

    def odds(text, image):
        match, mismatch = logits(text, image)
        return float(match - mismatch)

    whole = odds(text, image)
    assert told.probability == pytest.approx(1 / (1 + np.exp(-whole)), rel=1e-4)
    # Regions stand behind one slot of padding; MMT's last is the global one.
    for region, change in enumerate(told.region_changes):
        mask = image.mask.copy()
        mask[0, 1 + region] = False
        if family == "mmt" and region == 3:
            assert np.isnan(change)
            continue
        hidden = dataclasses.replace(image, mask=mask)
        assert change == pytest.approx(odds(text, hidden) - whole, abs=1e-4)
    # By hand: the pieces of "ball", which are the caption's last.
    last = len(TOKENIZER.encode(CAPTION)) - len(TOKENIZER.encode("a cube left of a"))
    places = np.flatnonzero(text.word_ids[0] >= 0)[-last:]
    tokens = text.token_ids.copy()
    tokens[0, places] = 6
    expected = odds(dataclasses.replace(text, token_ids=tokens), image) - whole
    assert told.word_changes[-1] == pytest.approx(expected, abs=1e-4)
    assert np.abs(told.word_changes).max() > 1e-3
    assert np.nanmax(np.abs(told.region_changes)) > 1e-3
    # Attention: of LXMERT's cross layers all of it goes to regions, of merged ones a part.
    assert told.attention.shape == (6, 4)
    total = told.attention.sum(axis=1)
    assert (total < 0.999).all() if family == "mmt" else total == pytest.approx(np.ones(6))


@pytest.mark.slow
def test_attention_of_many_captions_is_that_of_each():
    config = small_models.config(("single", "merged"), mask_id=6)
    model = registry.build(config)
    predictor = Predictor(model, tiny.params(model))
    captions = [CAPTION, "a red cube"]
    records = [small_models.record(n, seed=n, padding=3 - n) for n in (3, 1)]
    stacked = {key: np.stack([record[key] for record in records]) for key in records[0]}
    images = schema.to_image(stacked)
    found = attended(predictor, TOKENIZER, captions, images)
    assert found is not None
    for row, (words, weights) in enumerate(found):
        one = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], images)
        alone = explain(predictor, TOKENIZER, captions[row], one)
        assert words == alone.words
        np.testing.assert_allclose(weights, alone.attention, rtol=1e-4, atol=1e-6)
    apart = registry.build(small_models.config(("single",)))
    assert attended(Predictor(apart, tiny.params(apart)), TOKENIZER, captions, images) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (("merged",), 1),
        (("single", "coattention"), 1),
        (("text", "single_stream"), 1),
        (("single",), 0),
    ],
)
def test_attention_is_what_the_layers_compute_with(layers, expected):
    """A region that no weight reads changes no word when its values do; others change all."""
    model = tiny.model(layers)
    params, batch = tiny.params(model), tiny.batch(2)

    @jax.jit
    def look(batch):
        text = model.encode_text(params, batch.text)
        image = model.encode_image(params, batch.image)
        return text, image, trace.attention(model, params, batch.text, batch.image)

    text, image, maps = look(batch)
    assert len(maps) == expected
    for weights in maps:
        assert weights.shape == (2, 2, batch.text.mask.shape[1], batch.image.mask.shape[1])
        padding = ~np.broadcast_to(batch.image.mask[:, None, None], weights.shape)
        assert (np.asarray(weights)[padding] == 0).all()
    if layers == ("single", "coattention"):
        moved = dataclasses.replace(
            image,
            keys_values={
                name: (keys, values.at[:, 0].add(10.0))
                for name, (keys, values) in image.keys_values.items()
            },
        )
        fuse = jax.jit(lambda item: model.fuse(params, text, item).text)
        before, after = fuse(image), fuse(moved)
        unread = np.asarray(maps[0])[..., 0].max(axis=1) == 0  # no head reads the first region
        np.testing.assert_allclose(before[unread], after[unread], atol=1e-5)
        assert unread.any() == (not batch.image.mask[:, 0].all())
        assert np.abs(before - after)[~unread].max() > 1e-3


class Reader(html.parser.HTMLParser):
    """Counts elements and refuses what is fetched from elsewhere."""

    def __init__(self):
        super().__init__()
        self.count, self.words = {}, []

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        for name, value in attrs:
            assert name not in ("src", "href") or value.startswith("data:image/png;base64,")


@pytest.mark.slow
def test_mmt_show_draws_a_photo(workdir, photo, tmp_path, capsys):
    argv = ["show", f"--image={photo}", "--detector=fake:x", f"--caption={CAPTION}"]
    page, picture = tmp_path / "new" / "x.html", tmp_path / "x.png"
    assert main.main([*argv, f"--model={workdir}", f"--out={page}"]) == 0
    assert f"wrote {page}" in capsys.readouterr().out
    text = page.read_text()
    reader = Reader()
    reader.feed(text)
    assert reader.count["rect"] == 3  # two regions and the whole photo
    assert reader.count["tr"] == 1 + 3 + 1
    assert "a &lt;cube&gt; 0.90" in text
    score = mmt_jax.load(workdir).score(photo, [CAPTION], detector="fake:x")[0]
    assert f"<h1>{score:.3f} " in text
    assert main.main([*argv, f"--model={workdir}", f"--out={picture}"]) == 0
    with Pillow.open(picture) as drawn:
        assert drawn.format == "PNG"
        assert min(drawn.size) > 500
    assert main.main([*argv, f"--out={tmp_path / 'plain.html'}"]) == 0
    assert "<script>" not in (tmp_path / "plain.html").read_text()


@pytest.mark.slow
def test_mmt_show_draws_a_record(workdir, tmp_path, capsys):
    np.savez(tmp_path / "x.npz", **small_models.record(3, padding=2))
    out = tmp_path / "x.html"
    argv = ["show", f"--record={tmp_path / 'x.npz'}", f"--caption={CAPTION}", f"--out={out}"]
    assert main.main([*argv, f"--model={workdir}"]) == 0
    assert out.read_text().count("<rect") == 4
    other = small_models.record(3) | {"image/detection_features": np.zeros((4, 5), np.float32)}
    np.savez(tmp_path / "x.npz", **other)
    argv[-1] = f"--out={tmp_path / 'y.html'}"
    assert main.main([*argv, f"--model={workdir}"]) == 2
    assert f"{tmp_path / 'x.npz'}: image/detection_features is 5 wide" in capsys.readouterr().err


def test_a_record_of_a_scene_is_drawn_with_its_photo_and_names(tmp_path, capsys):
    """The likeliest names of a scene's regions are, nearly always, words of its captions."""
    record, page = tmp_path / "x.npz", tmp_path / "x.html"
    argv = ["--data=scenes@1", "--split=test", "--index=0", f"--out={record}"]
    assert main.main(["record", *argv]) == 0
    assert "a blue diamond, a blue cross and a red diamond" in capsys.readouterr().out
    argv = [f"--record={record}", "--caption=a", f"--out={page}"]
    assert main.main(["show", *argv]) == 0
    found = sorted(re.findall(r"<title>\d (\w+ \w+) 0\.\d\d</title>", page.read_text()))
    assert found == ["blue cross", "blue diamond", "red diamond"]
    drawn = page.read_text().split("data:image/png;base64,")[1].split('"')[0]
    with Pillow.open(io.BytesIO(base64.b64decode(drawn))) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(pixels, scenes.picture("target", "test", 0, level=1))

    bad = dict(np.load(record)) | {"photo/names": np.array(["x"])}
    np.savez(record, **bad)
    assert main.main(["show", *argv[:-1], f"--out={tmp_path / 'y.html'}"]) == 2
    assert "one name for each of" in capsys.readouterr().err


def told(attention):
    changes = np.zeros(len(attention)), np.zeros(len(attention[0]))
    return Explanation(("w",) * len(attention), 0.5, *changes, np.array(attention, np.float32))


def test_attention_is_told_against_an_even_share():
    # 0.3 of 0.4 over two regions: 1.5 times the even share, 0.2. 0.1 of 0.4: half of it.
    explanation = told([[0.3, 0.1], [0.2, 0.2]])
    np.testing.assert_allclose(explanation.against_even, [[1.5, 0.5], [1, 1]], rtol=1e-6)
    assert not explanation.flat
    assert told([[0.205, 0.195], [0.4, 0.41]]).flat
    assert not told([[0.5], [0.2]]).flat  # of one region nothing is to be learned


@pytest.mark.parametrize(("attention", "flat"), [([[0.3, 0.1]], False), ([[0.2, 0.2]], True)])
def test_a_page_says_what_hovering_does_and_whether_attention_is_flat(attention, flat):
    boxes = np.array([[0, 0, 0.5, 0.5], [0, 0, 1, 1]], np.float32)
    photo = np.zeros((9, 9, 3), np.uint8)
    text = page.render(View(photo, boxes, ("red car", "region"), "w", told(attention)))
    assert ("flat: nothing learned" in text) == flat
    assert "Point at a word" in text
    assert "even share of 2 regions" in text
    assert ">1.50</td>" in text or flat
    assert text.index("<title>2 region") < text.index("<title>1 red car")  # the small one on top


def test_labels_do_not_hide_each_other():
    wanted = np.tile(np.array([8.0, 0.0, 6.0, 1.0]), (5, 1))  # would also stand out on the right
    moved = apart(wanted, 10, 10)
    assert (moved[:, 0] == 4).all()
    assert moved[0].tolist() == [4, 0]
    tops = np.sort(moved[:, 1])
    assert (np.diff(tops) >= 1).all()
    assert tops[-1] == 4  # as near as there is room
    alone = np.array([[1.0, 2, 3, 1], [5, 2, 3, 1]])
    np.testing.assert_array_equal(apart(alone, 10, 10), alone[:, :2])


def test_mmt_score_takes_a_photo(workdir, photo, capsys):
    argv = ["score", f"--model={workdir}", "--caption=a red cube"]
    assert main.main([*argv, f"--image={photo}", "--detector=fake:x"]) == 0
    assert capsys.readouterr().out.endswith(" a red cube\n")
    assert main.main([*argv, f"--image={photo}"]) == 2
    assert main.main(argv) == 2
    assert main.main([*argv, f"--record={photo}"]) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--out=x.png"], "give either --record"),
        (["--image=x.jpg", "--out=x.pdf"], "must end in .png or .html"),
        (["--image={photo}", "--out=x.png"], "--detector=NAME:MODEL is missing"),
        (["--image={photo}", "--detector=fake:x", "--out={photo}"], "is not overwritten"),
        (["--image={photo}", "--detector=fake:x", "--out={photo}/x.png"], "cannot be written"),
        (["--record={folder}/split.npz", "--detector=fake:x", "--out=x.png"], "leave it out"),
        (["--image={photo}", "--detector=fake:x", "--out={photo}/a/x.png"], "is a file"),
        (["--record={folder}/split.npz", "--out=x.png"], "split.npz: the key 'image/"),
    ],
)
def test_wrong_use_is_refused(flags, message, photo, capsys):
    np.savez(photo.parent / "split.npz", offsets=np.arange(3))
    names = {"photo": photo, "folder": photo.parent}
    argv = ["show", "--caption=a", *(flag.format(**names) for flag in flags)]
    assert main.main(argv) == 2
    assert message in capsys.readouterr().err
    assert not pathlib.Path("x.png").exists()


def test_a_caption_is_drawn_as_it_is_written(tmp_path):
    from mmt_jax.infer.show import figure

    boxes = np.array([[0.1, 0.1, 0.6, 0.6]], np.float32)
    photo = np.zeros((9, 9, 3), np.uint8)
    warnings.simplefilter("error")
    for number, caption in enumerate(["$5 or $\\foo$", "a \N{CJK UNIFIED IDEOGRAPH-732B}"]):
        figure.write(View(photo, boxes, ("x$^$",), caption), tmp_path / f"{number}.png")


def test_a_view_of_many_regions_draws_some(tmp_path):
    from mmt_jax.infer.show import figure

    boxes = np.tile(np.array([0.1, 0.1, 0.6, 0.6], np.float32), (90, 1))
    view = View(np.zeros((9, 9, 3), np.uint8), boxes, ("x",) * 90, "a caption")
    figure.write(view, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


@pytest.mark.slow
def test_white_space_moves_no_word():
    letters = vocabulary.train(["a red cube"], 300, "bpe")  # blanks are pieces too
    config = small_models.config(("single", "merged"))
    sizes = {"vocab_size": letters.vocab_size, "mask_id": letters.mask_id}
    model = registry.build(
        dataclasses.replace(config, model=dataclasses.replace(config.model, **sizes))
    )
    params = tiny.params(model)
    record = small_models.record(3, padding=1)
    image = schema.to_image({key: value[None] for key, value in record.items()})
    plain = explain(Predictor(model, params), letters, "a red cube", image)
    spaced = explain(Predictor(model, params), letters, "  a  red\tcube ", image)
    assert spaced.words == plain.words == ("a", "red", "cube")
    np.testing.assert_array_equal(spaced.word_changes, plain.word_changes)


def test_a_lone_accent_is_no_word():
    config = small_models.config(("single", "merged"))
    model = registry.build(
        dataclasses.replace(config, model=dataclasses.replace(config.model, mask_id=6))
    )
    record = small_models.record(3, padding=1)
    image = schema.to_image({key: value[None] for key, value in record.items()})
    told = explain(Predictor(model, tiny.params(model)), TOKENIZER, "\u0301 red cube", image)
    assert told.words == ("red", "cube")
