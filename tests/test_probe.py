"""A true caption beside one that is wrong in one way: what is asked, and what models answer."""

import collections
import csv
import dataclasses
import html
import json
import math

import jax
import numpy as np
import pytest
import tiny
from test_scenes import COLOUR, RELATION, SHAPE, judge, meaning

from mmt_jax import scenes
from mmt_jax.cli import main as cli
from mmt_jax.configs.config import (
    Config,
    DataConfig,
    EvalConfig,
    MMTConfig,
    ObjectiveConfig,
    Study,
    with_spec,
)
from mmt_jax.data import sources
from mmt_jax.infer.predict import Predictor
from mmt_jax.infer.scorer import Scorer
from mmt_jax.models import registry
from mmt_jax.scenes import corpora, lexicon, world
from mmt_jax.scenes import probe as scenes_probe
from mmt_jax.scenes.probe import KINDS, questions
from mmt_jax.study import attention, examples, probe
from mmt_jax.study.run import ablate
from mmt_jax.text import vocabulary
from mmt_jax.train import checkpoint

TOKENIZER = vocabulary.train([q.foil for q in questions("target", "test", level=5)], 150)


def scene_of(photo, *, split="test", **kwargs):
    return corpora.Split("target", split, **kwargs).scene(photo)


def true(caption, scene):
    claims = judge(caption, scene)  # the reader of tests/test_scenes.py
    assert len(claims) >= 3, f"two objects and how they lie are told of in {caption!r}"
    return all(holds for _, holds in claims)


@pytest.mark.parametrize("level", scenes.LEVELS)
def test_true_captions_are_true_and_foils_are_not(level):
    asked = questions("target", "test", level=level, photos=120)
    told = {photo: scene_of(photo, level=level) for photo in {q.photo for q in asked}}
    assert len(told) > 100
    for question in asked:
        assert true(question.true, told[question.photo]), question
        assert not true(question.foil, told[question.photo]), question


@pytest.mark.parametrize("corpus", scenes.CORPORA)
def test_every_corpus_asks_in_its_own_words(corpus):
    for level in (1, 5):
        asked = questions(corpus, "val", level=level, photos=20)
        drawn = corpora.Split(corpus, "val", level).draw(0)
        assert len(asked) >= 5 * 15
        for question in asked:
            assert true(question.true, drawn.scene(question.photo))
            assert not true(question.foil, drawn.scene(question.photo))


def words(caption):
    """Meanings of a caption's phrases, in order: "violet" and "purple" are the same."""
    known = COLOUR | SHAPE | RELATION
    text, found = f" {caption} ", []
    for phrase in sorted(known, key=len, reverse=True):
        while (at := text.find(f" {phrase} ")) >= 0:
            found.append((at, known[phrase]))
            text = text[: at + 1] + "_" * len(phrase) + text[at + 1 + len(phrase) :]
    return [meaning for _, meaning in sorted(found)]


@pytest.mark.parametrize("level", [1, 4, 5])
@pytest.mark.slow
def test_foils_differ_in_what_their_kind_says(level):
    for question in questions("target", "test", level=level, photos=60):
        said, foil = words(question.true), words(question.foil)
        colour, shape, relation, other_colour, other_shape = said
        scene = scene_of(question.photo, level=level)
        changed = [i for i in range(5) if said[i] != foil[i]]
        if question.kind == "binding":
            assert foil == [other_colour, shape, relation, colour, other_shape]
        elif question.kind == "subjects":
            assert foil == [other_colour, other_shape, relation, colour, shape]
        elif question.kind == "relation":
            assert changed == [2]
            assert {relation, foil[2]} in ({"left", "right"}, {"above", "below"})
        else:
            ((at,), part) = changed, question.kind
            assert at in ((0, 3) if part == "colour" else (1, 4))
            assert foil[at] not in {getattr(thing, part) for thing in scene.things}
            assert (question.said, question.instead) == (said[at], foil[at])
        if question.kind in ("binding", "subjects"):  # nothing but their order tells them apart
            bag = [collections.Counter(c.replace("an ", "a ").split()) for c in question[2:4]]
            assert bag[0] == bag[1]


def test_the_example_of_the_docstring_is_what_it_says():
    scene = world.Scene(
        (
            world.Thing("star", "red", "small", "plain", 30, 10, 4.5),
            world.Thing("ring", "blue", "small", "plain", 30, 50, 4.5),
        ),
        "page",
    )
    lines = [line for line in scenes_probe.__doc__.splitlines() if line.startswith("| ")][1:]
    assert [line.split(" | ")[0].strip("| ") for line in lines] == list(KINDS)
    assert true("a red star left of a blue ring", scene)
    for line in lines:
        assert not true(line.split(" | ")[1], scene)


def test_what_is_asked_depends_on_nothing_but_its_name():
    few, many = (questions("target", "test", level=1, photos=n) for n in (30, 270))
    assert many[: len(few)] == few
    assert {q.photo for q in many} - set(range(256))
    assert few != questions("target", "test", level=1, seed=1, photos=30)
    assert few != questions("target", "test", level=2, photos=30)
    assert few != questions("target", "val", level=1, photos=30)


def test_each_kind_is_asked_once_of_a_photo_and_words_vary_where_they_may():
    asked = questions("target", "test", photos=200)
    counts = collections.Counter((q.photo, q.kind) for q in asked)
    assert set(counts.values()) == {1}
    assert len(counts) == 5 * len({q.photo for q in asked})
    colours = {word for q in asked for word in q.true.split() if word in COLOUR}
    assert len(colours) > 12
    plain = {word for q in questions("target", "test", level=3, photos=200) for word in words(q[2])}
    assert plain <= {*lexicon.COLOURS, *lexicon.SHAPES, *lexicon.RELATIONS}
    assert meaning(lexicon.COLOURS).keys() >= colours


# What models answer


def config(itm="classification", layers=("merged",), family="mmt"):
    model = MMTConfig(family=family, layers=tuple(layers), **tiny.SIZES)
    plain = Config(
        tag="small",
        model=model,
        objective=ObjectiveConfig(itm=itm),
        data=DataConfig(text_length=16),
    )
    return with_spec(plain, sources.spec(plain, TOKENIZER))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe") / "run"
    built = config()
    checkpoint.write(folder, built, tiny.params(registry.build(built)), TOKENIZER)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("itm", "layers"), [("classification", ("merged",)), ("contrastive", ("single",))]
)
def test_margins_are_differences_of_the_scores_of_retrieval(itm, layers):
    """Joint and separable models: each caption with each photo, on the way of `mmt eval`."""
    from mmt_jax.data.pipeline import Examples

    built = config(itm, layers)
    model = registry.build(built)
    assert model.separable == (itm == "contrastive")
    predictor = Predictor(model, tiny.params(model))
    scorer = Scorer(built, TOKENIZER, predictor=predictor)
    found = probe.ask(scorer, "scenes@2", "test", photos=6)
    assert found.questions == questions("target", "test", level=2, photos=6)
    (corpus,) = sources.load("scenes@2", "test")
    examples = Examples.of(built, [corpus.head(6)], TOKENIZER)
    photos = examples.images(np.arange(6))
    for question, margin in zip(found.questions, found.margins, strict=True):
        texts = TOKENIZER.texts([question.true, question.foil], length=16, layout="release")
        right, wrong = predictor.score(texts, photos)[:, question.photo]
        np.testing.assert_allclose(margin, right - wrong, rtol=1e-3, atol=1e-3)
    assert np.unique(found.margins).size > 20


def test_accuracy_counts_ties_as_wrong_and_is_kept_whole(tmp_path):
    asked = questions("target", "test", level=1, photos=4)
    kinds = np.array([q.kind for q in asked])
    margins = np.zeros(len(asked), np.float32)
    margins[kinds == "colour"] = 0.25
    margins[np.flatnonzero(kinds == "shape")[0]] = -1
    margins[np.flatnonzero(kinds == "shape")[1:]] = 1e-6
    found = probe.Probe(asked, margins)
    n = len(asked) // 5
    assert found.accuracy("colour").mean == 1
    assert found.accuracy("shape").mean == pytest.approx((n - 1) / n)
    assert found.accuracy("binding").mean == 0  # all are ties
    assert probe.Probe.read(tmp_path) is None
    found.store(tmp_path)
    again = probe.Probe.read(tmp_path)
    assert again.questions == asked
    np.testing.assert_array_equal(again.margins, margins)


def test_a_command_asks_and_writes_what_it_prints(workdir, tmp_path, capsys):
    out = tmp_path / "probe.json"
    asked = ["eval", f"--workdir={workdir}", "--data=scenes@1", "--split=test", "--probe"]
    assert cli.main([*asked, "--limit=30", f"--out={out}"]) == 0
    printed = capsys.readouterr().out
    values = json.loads(out.read_text())
    assert values.pop("questions") == len(questions("target", "test", level=1, photos=30)) / 5
    assert list(values) == list(KINDS)
    for kind, value in values.items():
        assert 0 <= value["low"] <= value["accuracy"] <= value["high"] <= 1
        assert f"{value['accuracy']:.3f}" in printed.split(kind)[1].splitlines()[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data=scenes,scenes/cc"], "scenes,scenes/cc is no corpus of generated scenes"),
        (["--data=regions:photos"], "regions:photos is no corpus of generated scenes"),
        (["--data=scenes", "--ndcg"], "--ndcg"),
        (["--data=scenes", "--task=vqa"], "--task"),
    ],
)
def test_wrong_use_is_told(workdir, capsys, flags, message):
    assert cli.main(["eval", f"--workdir={workdir}", "--split=test", "--probe", *flags]) == 2
    assert message in capsys.readouterr().err


# In a study


TAGS = ("data_cc", "baseline_baseline-no-bert-transfer")
STUDY = Study(
    "small",
    TAGS,
    seeds=1,
    scale="pilot",
    level=1,
    overrides={"steps": 1, "batch_size": 8, "model.dropout": 0.0},
    test=EvalConfig(split="test", limit=8),
)


def train(run_config, workdir):
    """Writes weights that nobody has trained, in place of training."""
    built = with_spec(run_config, sources.spec(run_config, TOKENIZER))
    checkpoint.write(workdir, built, tiny.params(registry.build(built), std=0.05), TOKENIZER)
    return {"image_retrieval/r@1": 0.5 if run_config.tag == TAGS[0] else 0.4}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("probed") / "study"
    return workdir, ablate(STUDY, workdir, train=train)


@pytest.mark.slow
def test_a_study_has_accuracies_by_kind_of_mistake(finished):
    workdir, found = finished
    asked = questions("target", "test", level=1)
    for tag in TAGS:
        stored = probe.Probe.read(workdir / "runs" / tag / "seed0")
        assert stored.questions == asked
        for kind in KINDS:
            margins = stored.margins[[q.kind == kind for q in asked]]
            assert found["mistakes"][tag][kind]["mean"] == np.mean(margins > 0)
            assert found["mistakes"][tag][kind]["method"].startswith("bootstrap over 28")
        (run,) = [run for run in found["runs"] if run["tag"] == tag]
        assert run["scores"]["probe/shape"] == found["mistakes"][tag]["shape"]["mean"]
    with open(workdir / "runs.csv", newline="") as file:
        assert {f"probe/{kind}" for kind in KINDS} <= set(next(csv.DictReader(file)))
    for row in found["table"]:
        leaves = jax.tree.leaves(checkpoint.load(workdir / "runs" / row["tag"] / "seed0").params)
        assert row["parameters"] == sum(leaf.size for leaf in leaves)
    assert (workdir / "figures" / "mistakes.svg").exists()
    page = (workdir / "report.html").read_text(encoding="utf-8")
    assert "What attention is for, by kind of mistake" in page
    assert (workdir / "figures" / "mistakes.svg").read_text(encoding="utf-8") in page


@pytest.mark.slow
def test_the_page_shows_what_the_best_run_finds(finished):
    workdir, found = finished
    assert found["best"]["tag"] == TAGS[0]
    folder = workdir / "runs" / TAGS[0] / "seed0"
    shown = examples.read(folder)
    assert examples.read(workdir / "runs" / TAGS[1] / "seed0") == []
    with np.load(folder / "ranks.npz") as arrays:
        ranks, photos = arrays["image_retrieval"], arrays["photos"]
    assert [e.rank for e in shown] == [np.sort(ranks)[i] for i in (0, 9, 19, 29, 39)]  # of 40
    corpus = scenes.build("target", "test", level=1, size=8)
    places = {corpus.photo_name(place): place for place in range(8)}
    for example in shown:
        place = places[example.photo]
        assert example.caption in corpus.captions[place]
        assert example.rank in ranks[photos == place]
        assert list(example.scores[:5]) == sorted(example.scores[:5], reverse=True)
        assert len(set(example.found)) == len(example.found) == (5 if example.rank <= 5 else 6)
        assert example.found[min(example.rank, 6) - 1] == example.photo
    page = (workdir / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") == sum(len(example.found) for example in shown)
    assert page.count("data:image/png;base64,") == page.count("<img")
    assert page.count("class=right") == 5
    for example in shown:
        assert html.escape(example.caption) in page


@pytest.mark.slow
def test_what_was_asked_once_is_not_asked_again_and_what_is_missing_is(finished):
    workdir, found = finished
    folders = [workdir / "runs" / tag / "seed0" for tag in TAGS]
    before = [(folder / probe.FILE).stat().st_mtime_ns for folder in folders]
    page = (workdir / "report.html").read_text(encoding="utf-8")
    (folders[1] / probe.FILE).unlink()  # as in a study of before
    assert ablate(STUDY, workdir, train=None) == found
    assert (folders[0] / probe.FILE).stat().st_mtime_ns == before[0]
    assert (folders[1] / probe.FILE).exists()
    assert (workdir / "report.html").read_text(encoding="utf-8") == page


@pytest.mark.slow
def test_what_words_read_is_drawn_for_runs_whose_words_read_regions(finished, tmp_path, capsys):
    workdir, _ = finished
    seen = attention.see(workdir, photos=12)
    assert list(seen.maps) == ["data_cc"]  # two towers read captions alone
    asked = {q.photo: q.true for q in questions("target", "test", level=1, photos=12)}
    assert list(seen.captions) == list(asked.values())
    for photo, picture, boxes, caption, drawn in zip(
        asked, seen.pictures, seen.boxes, seen.captions, seen.maps["data_cc"], strict=True
    ):
        things = scene_of(photo, level=1).things
        np.testing.assert_array_equal(picture, scenes.picture("target", "test", photo, level=1))
        assert drawn.words == tuple(caption.split())
        assert drawn.shares.shape == drawn.named.shape == (len(drawn.words), len(boxes))
        np.testing.assert_allclose(drawn.shares.sum(axis=1), 1, rtol=1e-5)
        assert boxes[-1].tolist() == [0, 0, 1, 1]
        assert not drawn.named[:, -1].any()
        for word, region in np.argwhere(drawn.named):  # of an object that fills the box
            meant = COLOUR.get(drawn.words[word]) or SHAPE[drawn.words[word]]
            height = (boxes[region, 2] - boxes[region, 0]) * 64
            middle = (boxes[region, :2] + boxes[region, 2:]) * 32
            assert any(
                meant in (t.colour, t.shape)
                and math.dist(middle, (t.y, t.x)) + abs(height / 2 - t.radius) < 8
                for t in things
            )
    named = [drawn.named.any() for drawn in seen.maps["data_cc"]]
    assert sum(named) >= len(named) - 1  # the detector misses one object in 25
    out = tmp_path / "maps.svg"
    assert cli.main(["attention", f"--workdir={workdir}", f"--out={out}", "--photos=2"]) == 0
    text = out.read_text(encoding="utf-8")
    assert text.count("<image") == 2 + 2 + 1  # photos, maps, the scale
    assert all(f">{word}<" in text for word in " ".join(seen.captions[:2]).split())
    capsys.readouterr()
    for flags, message in (
        ([f"--tag={TAGS[1]}"], f"the words of {TAGS[1]} read no regions"),
        (["--tag=data_sbu"], "no trained run 'data_sbu'; it has"),
        (["--photos=0"], "--photos=0"),
        ([f"--workdir={tmp_path}"], "has no trained runs"),
    ):
        argv = ["attention", f"--workdir={workdir}", f"--out={tmp_path / 'x.png'}", *flags]
        assert cli.main(argv) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_what_a_language_stack_reads_is_not_drawn(tmp_path):
    ablate(dataclasses.replace(STUDY, tags=("data_cc-with-bert",)), tmp_path, train=train)
    assert list(attention.see(tmp_path, photos=2).maps) == ["data_cc-with-bert"]


def test_attention_that_is_paid_to_what_is_named():
    shares = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.6, 0.2, 0.2]], np.float32)
    named = np.array([[True, True, False], [False, False, False], [False, True, False]])
    drawn = attention.Map(("red", "above", "ring"), shares, named)
    np.testing.assert_allclose(drawn.paid(), [0.8, 0.2])  # "above" names nothing
    np.testing.assert_allclose(drawn.paid(alike=True), [2 / 3, 1 / 3])


def test_names_that_are_confused():
    def asked(said, instead, margin, kind="colour"):
        return scenes_probe.Question(0, kind, "", "", said, instead), margin

    answers = [
        *[asked("red", "orange", -1.0)] * 2,
        *[asked("orange", "red", 1.0)] * 1,
        *[asked("blue", "green", 0.0)] * 1,
        *[asked("green", "blue", 2.0)] * 2,
        *[asked("pink", "red", -1.0)] * 2,  # asked too seldom
        *[asked("ring", "star", -1.0, "shape")] * 3,
    ]
    found = probe.Probe(*map(list, zip(*answers)))
    found = probe.Probe(found.questions, np.array(found.margins, np.float32))
    assert probe.confusions([found], "colour", least=3) == [
        ("orange", "red", 3, 2),
        ("blue", "green", 3, 1),
    ]
    assert probe.confusions([found, found], "shape", least=6) == [("ring", "star", 6, 6)]
