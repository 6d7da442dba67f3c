"""Training on tasks through the command line: each kind of record, head, loss and answer file."""

import csv
import dataclasses
import functools
import json
import pathlib
import re
import runpy
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pages
import pytest
import small_models
import tiny

import mmt_jax
from mmt_jax.cli import main
from mmt_jax.configs import fields
from mmt_jax.configs.config import Config, EvalConfig, ObjectiveConfig, resolve, with_spec
from mmt_jax.configs.models import BridgeTowerConfig, ClipConfig, LxmertConfig, RobertaConfig
from mmt_jax.configs.tasks import PHOTO, SENTENCE, TASKS, TaskConfig
from mmt_jax.configs.tasks import Task as Row
from mmt_jax.corpus import Corpus
from mmt_jax.data import formats, sources
from mmt_jax.errors import UsageError
from mmt_jax.infer import tasks
from mmt_jax.models import registry
from mmt_jax.objectives import answers, losses, per_example
from mmt_jax.photo import FEATURES, image_id, rows
from mmt_jax.tasks import labels, nlvr2, records
from mmt_jax.tasks import registry as kinds
from mmt_jax.tasks.base import Entry
from mmt_jax.text import vocabulary
from mmt_jax.train import checkpoint, optim, sharding
from mmt_jax.typing import Batch

ROOT = pathlib.Path(__file__).parent.parent
COUNT = 8
WORDS = ("red", "green", "blue", "big", "small", "dotted", "left", "right")
SETTINGS = {
    "steps": 40,
    "batch_size": 8,
    "log_every": 40,
    "task.least": 1,
    "data.vocab_size": 60,
    "optim.warmup_steps": 5,
    "optim.lr": 5e-3,
    "model.dropout": 0.0,
}
LXMERT = {  # of which compiling takes a second
    "model.width": 24,
    "model.mlp_dim": 24,
    "model.heads": 2,
    "model.language_layers": 0,
    "model.region_layers": 0,
    "model.cross_layers": 1,
}


PAIRS = [f"dev-{n}-0-img{side}" for n in range(COUNT) for side in (0, 1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos 0 to 7, and those of NLVR2's pairs, without captions: regions and pixels at random."""
    ids = np.array([*range(COUNT), *map(image_id, PAIRS)])
    rng, count = np.random.default_rng(0), len(ids)
    boxes = np.tile(np.array([[0, 0, 0.5, 0.5], [0, 0, 1, 1]], np.float32), (count, 1))
    corpus = Corpus(
        name="photos",
        image_ids=ids,
        offsets=np.arange(count + 1) * 2,
        captions=((),) * count,
        rows=rows(rng.normal(size=(2 * count, 6)).astype(np.float32), boxes),
        pixels=rng.integers(0, 256, (count, 8, 8, 3), np.uint8),
    )
    path = tmp_path_factory.mktemp("photos")
    formats.write(corpus, path, "train")
    return path


def train(task, model, workdir, questions, folder=None, **more):
    settings = SETTINGS | {"task.questions": questions} | more
    if folder:
        settings["data.source"] = f"regions:{folder}"
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    config = f"--config={ROOT}/experiments/tasks.py:{task},model={model},scale=tiny"
    assert main.main(["train", config, f"--workdir={workdir}", *flags]) == 0


def evaluate(task, workdir, questions, out, capsys, *more, folder=None):
    """What `mmt eval` prints on what the model was trained on, as numbers."""
    asked = [f"--task={task}", f"--questions={questions}", f"--out={out}", *more]
    photos = [f"--data=regions:{folder}", "--split=train"] if folder else []
    capsys.readouterr()
    assert main.main(["eval", f"--workdir={workdir}", *asked, *photos]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    return {line[0]: float(line[1]) for line in lines[3:]}


def vqa_files(folder):
    given = ["yes", "no", "red", "2"]
    questions = [
        {"question_id": n, "image_id": n, "question": f"is it {word}?"}
        for n, word in enumerate(WORDS)
    ]
    annotations = [
        {
            "question_id": n,
            "image_id": n,
            "answer_type": "other",
            "multiple_choice_answer": given[n % 4],
            "answers": [{"answer": given[n % 4]}] * 10,
        }
        for n in range(COUNT)
    ]
    paths = folder / "questions.json", folder / "annotations.json"
    paths[0].write_text(json.dumps({"questions": questions}))
    paths[1].write_text(json.dumps({"annotations": annotations}))
    return paths


@pytest.fixture(scope="module")
def answering(tmp_path_factory, folder):
    """A workdir that was trained on questions, and their files."""
    place = tmp_path_factory.mktemp("vqa")
    questions, annotations = vqa_files(place)
    more = LXMERT | {"task.annotations": annotations}
    train("vqa", "lxmert", place / "work", questions, folder, **more)
    return place / "work", questions, annotations


@pytest.mark.slow
def test_vqa(answering, folder, tmp_path, capsys):
    workdir, questions, annotations = answering
    out = tmp_path / "answers.json"
    more = (f"--annotations={annotations}",)
    found = evaluate("vqa", workdir, questions, out, capsys, *more, folder=folder)
    assert found == {"accuracy": 1.0, "other": 1.0}
    given = {row["question_id"]: row["answer"] for row in json.loads(out.read_text())}
    assert given == {n: ["yes", "no", "red", "2"][n % 4] for n in range(COUNT)}
    # Equally frequent answers stand by alphabet.
    assert json.loads((workdir / labels.FILE).read_text()) == ["2", "no", "red", "yes"]


def write_record(folder, number, path):
    asked = ["record", f"--data=regions:{folder}", "--split=train", "--no_global"]
    assert main.main([*asked, f"--index={number}", f"--out={path}"]) == 0


@pytest.mark.slow
def test_a_question_about_a_photo_is_answered(answering, folder, tmp_path, capsys):
    workdir, path = answering[0], tmp_path / "photo.npz"
    write_record(folder, 2, path)
    capsys.readouterr()
    asked = ["answer", f"--model={workdir}", f"--record={path}", "--question=is it blue?"]
    assert main.main([*asked, "--top=2", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["label"] == "red"
    assert 1 > first["probability"] > second["probability"] > 0
    long = ["--question=" + "is it blue " * 20]
    assert main.main([*asked, *long]) == 2
    assert "shorten it" in capsys.readouterr().err
    assert main.main([*asked, *long, "--truncate"]) == 0
    assert main.main([*asked, f"--record={path}"]) == 2
    assert "is asked about 1 photo at once" in capsys.readouterr().err


@pytest.mark.slow
def test_files_that_tell_no_answers_are_answered_all_the_same(answering, folder, tmp_path, capsys):
    workdir, questions, _ = answering
    out = tmp_path / "test.json"
    assert evaluate("vqa", workdir, questions, out, capsys, folder=folder) == {}
    assert len(json.loads((tmp_path / "test.json").read_text())) == COUNT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task=vqa"], "needs its published file: .*--questions"),
        (["--task=coco", "--questions={q}"], "no task 'coco'; there are vqa, gqa"),
        (["--task=gqa", "--questions={q}"], "was trained on vqa; train it with .*tasks:gqa"),
        (["--task=vqa", "--questions={q}", "--data={w}"], "features of width 5, but .* 6"),
        (
            ["--task=vqa", "--questions={x}"],
            "1 of 1 entries are about .*lacks, .*7 about 99.*photos were read",
        ),
        (["--questions={q}"], "--questions is for a task"),
        (["--task=vqa", "--questions={q}", "--labels={l}"], "has 4 answers, but 1 are listed"),
    ],
)
def test_wrong_use_of_eval_is_told(answering, folder, tmp_path, capsys, arguments, message):
    workdir, questions, _ = answering
    (tmp_path / "l.json").write_text('["yes"]')
    absent = {"question_id": 7, "image_id": 99, "question": "is it there?"}
    (tmp_path / "x.json").write_text(json.dumps({"questions": [absent]}))
    (wide,) = sources.load(f"regions:{folder}", "train", bare=True)
    narrow = wide.rows | {FEATURES: wide.rows[FEATURES][:, :5]}
    formats.write(dataclasses.replace(wide, rows=narrow), tmp_path, "train")
    names = {
        "w": f"regions:{tmp_path}",
        "q": questions,
        "l": tmp_path / "l.json",
        "x": tmp_path / "x.json",
    }
    given = [f"--data=regions:{folder}", "--split=train", *arguments]
    given = [argument.format(**names) for argument in given]
    assert main.main(["eval", f"--workdir={workdir}", *given]) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.slow
def test_another_task_starts_from_it_with_a_head_of_its_own(answering, folder, tmp_path, capsys):
    workdir, _, _ = answering
    questions = {
        str(n): {
            "imageId": str(n),
            "question": f"is it {word}?",
            "answer": ["A", "B"][n % 2],
            "types": {"structural": "query"},
        }
        for n, word in enumerate(WORDS)
    }
    path = tmp_path / "gqa.json"
    path.write_text(json.dumps(questions))
    train("gqa", "lxmert", tmp_path / "work", path, folder, **LXMERT, init_from=workdir, steps=1)
    said = capsys.readouterr().err
    assert "taken from" in said
    assert "fresh: 6 arrays" in said
    assert "answer_head" in said
    assert json.loads((tmp_path / "work" / labels.FILE).read_text()) == ["A", "B"]


@pytest.mark.slow
def test_nlvr2_reads_two_photos(tmp_path, capsys, folder):
    lines = [
        {"identifier": f"dev-{n}-0-0", "sentence": f"it is {word}", "label": str(n % 3 == 0)}
        for n, word in enumerate(WORDS)
    ]
    path = tmp_path / "dev.json"
    path.write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "answers.csv"
    train("nlvr2", "lxmert", tmp_path / "work", path, folder, **LXMERT)
    found = evaluate("nlvr2", tmp_path / "work", path, out, capsys, folder=folder)
    assert found == {"accuracy": 1.0, "consistency": 1.0}
    assert "dev-1-0-0,False" in out.read_text().splitlines()
    photos = [tmp_path / "left.npz", tmp_path / "right.npz"]
    for number, photo in enumerate(photos, COUNT):  # the photos of pair 0
        write_record(folder, number, photo)
    model = mmt_jax.load(tmp_path / "work")
    best, other = model.answer(photos, "it is red")
    assert (best.label, other.label) == ("True", "False")
    assert best.probability + other.probability == pytest.approx(1)


@pytest.mark.slow
def test_an_answer_that_is_no_number_is_told(answering, folder):
    workdir, questions, _ = answering
    trained = checkpoint.load(workdir)
    broken = jax.tree.map(lambda leaf: leaf * np.float32("nan"), trained.params)
    names, entries = labels.stored(workdir), kinds.read("vqa", questions)
    corpora = sources.load(f"regions:{folder}", "train", bare=True)
    found = records.Records(
        trained.config, entries, names, vocabulary.stored_tokenizer(workdir), corpora
    )
    with pytest.raises(UsageError, match="answer to 0 is not finite"):
        tasks.answered(trained.model, broken, found, names)


@pytest.mark.slow
def test_entries_without_their_photos_are_left_out_of_training_alone(tmp_path, capsys, folder):
    lines = [
        {"identifier": f"dev-{n}-0-0", "sentence": f"it is {word}", "label": "True"}
        for n, word in enumerate([*WORDS, "lost"])
    ]
    path = tmp_path / "train.json"
    path.write_text("\n".join(map(json.dumps, lines)))
    train("nlvr2", "lxmert", tmp_path / "work", path, folder, **LXMERT, steps=2)
    told = capsys.readouterr().err
    lacks = f"1 of 9 entries are about photos that regions:{folder} lacks, the first is 'dev-8-0-0'"
    assert told.count(lacks) == 1
    assert "they are left out" in told
    argv = ["eval", f"--workdir={tmp_path / 'work'}", "--task=nlvr2", f"--questions={path}"]
    assert main.main([*argv, f"--data=regions:{folder}", "--split=train"]) == 2
    assert lacks in capsys.readouterr().err
    path.write_text(json.dumps(lines[-1]))
    argv = ["train", f"--config={ROOT}/experiments/tasks.py:nlvr2,model=lxmert,scale=tiny"]
    argv += [f"--config.data.source=regions:{folder}", f"--config.task.questions={path}"]
    assert main.main([*argv, f"--workdir={tmp_path / 'none'}"]) == 2
    assert "1 of 1 entries are about photos" in capsys.readouterr().err


@pytest.mark.slow
def test_snli_ve_with_a_model_of_the_study(tmp_path, capsys, folder):
    names = ("contradiction", "neutral", "entailment")
    lines = [
        {
            "pairID": f"{n}.jpg#{n}",
            "Flickr30K_ID": str(n),
            "sentence2": f"it is {word}",
            "gold_label": names[n % 3],
        }
        for n, word in enumerate(WORDS)
    ]
    path = tmp_path / "dev.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    sizes = {"width": 16, "mlp_dim": 16, "pooled_dim": 16, "heads": 2, "head_dim": 8}
    more = {f"model.{name}": value for name, value in sizes.items()}
    more |= {"model.layers": "('merged',)", "task.eval_questions": path, "eval.split": "train"}
    train("snli_ve", "data_cc", tmp_path / "work", path, folder, **more)
    assert "accuracy" in capsys.readouterr().out  # evaluated after the last step
    out = tmp_path / "answers.json"
    found = evaluate("snli_ve", tmp_path / "work", path, out, capsys, folder=folder)
    assert found == dict.fromkeys(("accuracy", *names), 1.0)
    assert json.loads(out.read_text())[1]["gold_label"] == "neutral"


@pytest.mark.slow
def test_glue_reads_sentences_alone(tmp_path, capsys):
    rows = [f"{n}\tit is {w}\tit was {w}\t{n % 4 + 0.5}" for n, w in enumerate(WORDS)]
    path = tmp_path / "train.tsv"
    path.write_text("\n".join(["index\tsentence1\tsentence2\tscore", *rows]))
    sizes = {"width": 16, "mlp_dim": 16, "heads": 2, "text_layers": 1}
    more = {f"model.{name}": value for name, value in sizes.items()}
    more |= {"steps": 100, "optim.lr": 1e-2}
    train("glue/STS-B", "roberta", tmp_path / "work", path, **more)
    found = evaluate("glue/STS-B", tmp_path / "work", path, tmp_path / "sts-b.tsv", capsys)
    assert found["pearson"] > 0.95
    with open(tmp_path / "sts-b.tsv") as file:
        header, *lines = csv.reader(file, delimiter="\t")
    assert header == ["index", "prediction"]
    assert len(lines) == COUNT


@pytest.mark.slow
def test_cifar_reads_photos_alone(tmp_path, capsys):
    pytest.importorskip("PIL")
    folder = tmp_path / "cifar"
    folder.mkdir()
    (folder / "fine_label_names.txt").write_text("apple\nbaby\nbear\n")
    rng = np.random.default_rng(0)
    rows = [bytes([0, n % 3]) + rng.bytes(3 * 32 * 32) for n in range(COUNT)]
    (folder / "train.bin").write_bytes(b"".join(rows))
    sizes = {"image_width": 16, "image_heads": 2, "image_mlp_dim": 16, "image_layers": 1}
    more = {f"model.{name}": value for name, value in sizes.items()}
    train("cifar", "clip", tmp_path / "work", folder, **more)
    found = evaluate("cifar", tmp_path / "work", f"{folder}:train", tmp_path / "a.csv", capsys)
    assert found == {"accuracy": 1.0}
    assert (tmp_path / "a.csv").read_text().splitlines()[:2] == ["id,label", "1,apple"]


# ---- Losses --------------------------------------------------------------------------------------


def test_soft_labels_by_hand():
    logits, targets = np.log(np.float32([[1, 3]])), np.array([[1.0, 0.3]])
    # p = 1/2 and 3/4: -log(1/2) - .3 log(3/4) - .7 log(1/4)
    expected = np.log(2) - 0.3 * np.log(0.75) - 0.7 * np.log(0.25)
    np.testing.assert_allclose(answers.soft(logits, targets), [expected], rtol=1e-6)


def test_one_label_by_hand():
    logits = np.log(np.float32([[1, 2, 1]] * 3))
    targets = np.array([[0, 1, 0], [0.5, 0, 1.0], [0, 0, 0]])
    expected = [np.log(2), np.log(4), 0]
    np.testing.assert_allclose(answers.label(logits, targets), expected, rtol=1e-6)
    np.testing.assert_allclose(answers.value(np.float32([[2]]), np.array([[3.5]])), [2.25])


def built(model, task="vqa", num_answers=3, **objective):
    fields = {"itm": "none", "mlm": 0.0, "mrm": 0.0} | objective
    config = Config(model=model, objective=ObjectiveConfig(**fields), task=TaskConfig(name=task))
    return registry.build(with_spec(config, tiny_spec(num_answers)))


def tiny_spec(num_answers):
    return dataclasses.replace(tiny.SPEC, num_answers=num_answers)


SMALL = LxmertConfig(
    width=12, mlp_dim=10, heads=2, language_layers=1, region_layers=1, cross_layers=1, segments=3
)


@pytest.mark.slow
def test_lxmert_pretrains_on_five_tasks():
    model = built(
        dataclasses.replace(SMALL, num_attributes=4),
        "lxmert",
        itm="classification",
        mlm=1.0,
        mrm=1.0,
        reading="lxmert",
        mrm_rate=0.5,
        mismatch=0.5,
    )
    params, batch = tiny.params(model, std=0.2), tiny.batch(4, regions=[2] * 4)
    seen = batch.image
    image = dataclasses.replace(
        seen, attribute_ids=seen.class_ids % 4, attribute_probs=seen.class_probs
    )
    targets = jnp.array([[1.0, 0, 0], [0, 0, 0], [0, 0.6, 0.3], [0, 0, 1.0]])
    batch = Batch(batch.text, image, batch.image_ids, targets=targets)

    run = jax.jit(functools.partial(losses.compute, model, dropout=False))
    loss, terms = run(params, batch, key=jax.random.key(0))
    parts = ("itm", "mlm", "classes", "attributes", "answers")
    np.testing.assert_allclose(loss, sum(float(terms[n].mean) for n in parts), rtol=1e-5)
    # Labels of all real regions count, hidden or not, of mismatched pairs too.
    assert terms["classes"].count == int(batch.image.mask.sum())
    # Two of four pairs are mismatched, and one has no answer.
    assert terms["answers"].count <= 2


def test_regions_of_a_detector_by_hand():
    logits = jnp.log(jnp.array([[[1.0, 3.0], [1.0, 1.0]]]))
    ids, probs = jnp.array([[[0, 1], [1, 0]]]), jnp.array([[[0.2, 0.8], [0.5, 0.1]]])
    found = losses._confident(logits, ids, probs, jnp.array([[True, True]]), 0.5)
    expected = (0.8 * -np.log(0.75) + 0.5 * np.log(2)) / 0.5
    np.testing.assert_allclose(found.sum, expected, rtol=1e-6)
    assert found.count == 2
    error = per_example.smooth_l1(jnp.array([0.5, 3.0]), jnp.array([0.0, 0.0]))
    np.testing.assert_allclose(error, (0.125 + 2.5) / 2)


@pytest.mark.slow
def test_a_fresh_lxmert_is_not_drowned_by_hidden_regions():
    model = built(SMALL, itm="classification", mrm=1.0, mrm_rate=0.9, num_answers=0, task="")
    params, batch = model.init(jax.random.key(0)), tiny.batch(4)
    slopes = jax.jit(
        jax.grad(lambda p: losses.compute(model, p, batch, key=jax.random.key(0), dropout=False)[0])
    )(params)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(slopes)) < 10


# ---- What is refused before training -------------------------------------------------------------


def minival(path, *labels):
    """LXMERT's questions to photos 0, 1, …, one for each of the labels; None = unknown."""
    entries = [
        {"question_id": n, "img_id": f"COCO_val2014_{n:012}", "sent": f"is it {WORDS[n]}?"}
        | ({} if label is None else {"label": label})
        for n, label in enumerate(labels)
    ]
    path.write_text(json.dumps(entries))
    return str(path)


def evaluator(task, best, questions, folder=None):
    config = Config(
        task=TaskConfig(name=task, eval_questions=questions),
        eval=EvalConfig(best=best, source=f"regions:{folder}", split="train"),
    )
    config = with_spec(config, dataclasses.replace(tiny_spec(2), feature_dim=6))
    return tasks.evaluator(config, small_models.TOKENIZER, ["yes", "no"])


def test_questions_nobody_answered_are_refused_before_training(tmp_path):
    path = minival(tmp_path / "minival.json", {"yes": 1}, None)
    with pytest.raises(UsageError, match=r"minival\.json.*: 1 has no published answer, as in test"):
        evaluator("vqa", "accuracy", path)


@pytest.mark.slow
def test_questions_about_photos_that_are_not_there_are_refused_before_training(tmp_path, folder):
    path = minival(tmp_path / "minival.json", *[{"yes": 1}] * COUNT)
    assert evaluator("vqa", "accuracy", path, folder)
    text = pathlib.Path(path).read_text().replace("000000000001", "000000000099")
    pathlib.Path(path).write_text(text)
    with pytest.raises(UsageError, match=r"1 of 8 entries are about photos .* first is 1 about"):
        evaluator("vqa", "accuracy", path, folder)


@pytest.mark.slow
def test_questions_whose_answers_are_worth_nothing_count(tmp_path, folder):
    path = minival(tmp_path / "minival.json", {"yes": 1}, {})
    assert evaluator("vqa", "accuracy", path, folder)
    found = kinds.get("vqa").metrics(kinds.read("vqa", path), {0: "yes", 1: "yes"})
    assert found["accuracy"] == 0.5


def test_a_metric_that_the_task_has_not_is_refused_before_training(tmp_path):
    table = tmp_path / "dev.tsv"
    table.write_text("source\t1\t\ta dog runs\nsource\t0\t*\ta dog run\n")
    assert evaluator("glue/CoLA", "matthews", str(table))
    with pytest.raises(UsageError, match=r"'accuracy' cannot .*; glue/CoLA has matthews"):
        evaluator("glue/CoLA", "accuracy", str(table))


@pytest.mark.parametrize("task", [name for name, row in TASKS.items() if row.metric])
def test_experiments_choose_by_a_metric_of_their_task(task):
    model = {SENTENCE: "bert", PHOTO: "clip"}.get(TASKS[task].reads, "lxmert")
    best = experiment(f"{task},model={model},scale=tiny").eval.best
    answer = "score" if task == "glue/STS-B" else next(iter(kinds.get(task).classes), "yes")
    entry = Entry("dev-0-0-0", worth={answer: 1.0})
    if task == "nlvr2":
        entry = nlvr2.Pair(entry.key, worth=entry.worth)
    answer = 1.0 if task == "glue/STS-B" else answer
    assert best == next(iter(kinds.get(task).metrics([entry], {entry.key: answer})))


@pytest.mark.parametrize(
    ("arg", "loss"),
    [
        ("glue/RTE,model=roberta", {"mlm": 1.0}),
        ("glue/STS-B,model=bert", {"mrm": 1.0}),
        ("nlvr2,model=data_cc", {"itm": "classification"}),
        ("nlvr2,model=lxmert", {"mlm": 1.0}),
        ("cifar,model=clip", {"itm": "contrastive"}),
    ],
)
def test_losses_on_pairs_need_a_task_of_pairs(arg, loss):
    config = with_spec(experiment(f"{arg},scale=tiny"), tiny_spec(2))
    assert registry.build(config)
    config = dataclasses.replace(config, objective=dataclasses.replace(config.objective, **loss))
    name = next(iter(loss))
    message = rf"config\.objective\.{name} is (a loss on a caption|1\.0, but the family bert is)"
    with pytest.raises(UsageError, match=message):
        registry.build(config)


@pytest.mark.slow
def test_a_photo_of_two_sources_is_told(folder, tmp_path, capsys):
    questions, annotations = vqa_files(tmp_path)
    shutil.copytree(folder, tmp_path / "other")
    twice = f"--config.data.source=regions:{folder},regions:{tmp_path / 'other'}"
    asked = [f"--config.task.questions={questions}", f"--config.task.annotations={annotations}"]
    config = f"--config={ROOT}/experiments/tasks.py:vqa,model=lxmert,scale=tiny"
    least = ("--config.task.least=1", "--config.steps=1")
    workdir = tmp_path / "work"
    assert main.main(["train", config, f"--workdir={workdir}", twice, *least, *asked]) == 2
    assert "more than once; give the one source" in capsys.readouterr().err
    assert not workdir.exists()


def test_questions_that_are_no_text_are_told(tmp_path):
    path = tmp_path / "questions.zip"
    path.write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(UsageError, match=r"questions\.zip is no JSON as published"):
        kinds.read("vqa", str(path))


# ---- Heads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["lxmert", "bridgetower", "roberta", "bert", "mmt", "clip"])
def test_records_that_a_model_cannot_read_are_told(family):
    task = {"roberta": "vqa", "bert": "nlvr2", "clip": "glue/RTE"}.get(family, "cifar")
    model = Config().model if family == "mmt" else None
    sizes = {"lxmert": SMALL, "bridgetower": BridgeTowerConfig(), "roberta": RobertaConfig()}
    if family == "bert":
        model = type(Config().model)(family="bert", layers=("text",))
    if family == "clip":
        model = ClipConfig()
    with pytest.raises(UsageError, match=f"records of {task} hold .*the family {family}"):
        built(model or sizes[family], task)


def test_every_task_has_a_reader_and_all_but_pretraining_a_metric():
    for name, row in TASKS.items():
        task = kinds.get(name)
        assert row.loss in answers.LOSSES
        assert bool(row.metric) is (name != "lxmert")
        assert row.loss == "soft" or task.classes or name in ("cifar", "lxmert")


def test_a_second_photo_has_a_token_type_that_starts_as_that_of_the_first():
    sizes = {
        **dict.fromkeys(("width", "text_width", "image_width"), 16),
        **dict.fromkeys(("mlp_dim", "text_mlp_dim"), 8),
        **dict.fromkeys(("heads", "text_heads", "image_heads"), 2),
        **{"tower_layers": 1, "cross_layers": 1, "patch_size": 2, "image_size": 4, "itc_dim": 4},
    }
    pixels = dataclasses.replace(tiny_spec(2), feature_dim=12, num_classes=0, unlabelled=True)
    config = Config(
        model=BridgeTowerConfig(**sizes),
        objective=ObjectiveConfig(itm="none", mlm=0.0, mrm=0.0),
        task=TaskConfig(name="nlvr2"),
    )
    model = registry.build(with_spec(config, pixels))
    own = tiny.params(model)
    table = own["types"]["embedding"]
    assert table.shape == (3, 16)
    adopted = model.adopt(own | {"types": {"embedding": table[:2]}})
    np.testing.assert_array_equal(adopted["types"]["embedding"], table[[0, 1, 1]])

    photo = tiny.image([4], slots=5, spec=pixels)
    encode = jax.jit(model.encode_images)
    for params, alike in ((adopted, True), (own, False)):
        first, second = (item.states for item in encode(params, (photo, photo)))
        assert np.allclose(first, second, atol=1e-5) is alike


# ---- Configs -------------------------------------------------------------------------------------


def experiment(arg):
    return resolve(runpy.run_path(str(ROOT / "experiments/tasks.py"))["get_config"](arg))


@pytest.mark.parametrize("scale", ["full", "tiny"])
@pytest.mark.parametrize(
    "arg",
    [
        "vqa,model=lxmert",
        "nlvr2,model=bridgetower",
        "snli_ve,model=bridgetower",
        "gqa,model=architecture_coattention",
        "glue/CoLA,model=roberta",
        "glue/MNLI,model=bert",
        "cifar,model=clip",
    ],
)
def test_experiments_are_models_whose_rules_all_apply(arg, scale):
    config = with_spec(experiment(f"{arg},scale={scale}"), tiny_spec(4))
    model = registry.build(config)
    shapes = model.abstract()
    assert optim.build(config.optim, shapes, config.steps)
    assert sharding.of_params(shapes, config, sharding.mesh(config))


def test_an_experiment_that_there_is_not():
    with pytest.raises(UsageError, match="'vqa' is no config of a task; write TASK,model=NAME"):
        experiment("vqa")


# ---- A task of one's own -------------------------------------------------------------------------


@pytest.mark.slow
def test_a_new_task_is_a_module_and_a_row(tmp_path, capsys, monkeypatch):
    """docs/extending.md's: which word a sentence begins with."""
    module = pages.module(ROOT / "docs" / "extending.md", "mmt_jax/tasks/first.py")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(TASKS, "first", Row(SENTENCE))
    _, (choice,), _ = fields.parts(fields.hints(TaskConfig)["name"])  # made of the rows
    monkeypatch.setattr(choice, "names", (*choice.names, "first"))

    path = tmp_path / "lines.txt"
    path.write_text("\n".join(f"{('one', 'two')[n % 2]} {word}" for n, word in enumerate(WORDS)))
    sizes = {"width": 16, "mlp_dim": 16, "heads": 2, "text_layers": 1}
    more = {f"model.{name}": value for name, value in sizes.items()}
    train("first", "roberta", tmp_path / "work", path, **more)
    found = evaluate("first", tmp_path / "work", path, tmp_path / "out.txt", capsys)
    assert found == {"accuracy": 1}
    assert (tmp_path / "out.txt").read_text() == " ".join(["one", "two"] * 4)
