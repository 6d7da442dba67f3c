"""Published weights that were fine-tuned on a task: imported, they answer as in PyTorch."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
import test_bert_import as bert
import test_bridgetower_parity as bridgetower
import test_lxmert as lxmert
import test_roberta as roberta

from mmt_jax import hub as importers
from mmt_jax import params as trees
from mmt_jax.cli import main as cli
from mmt_jax.errors import UsageError
from mmt_jax.hub import questions
from mmt_jax.models import registry
from mmt_jax.objectives import answers
from mmt_jax.tasks import glue, labels, records
from mmt_jax.train import checkpoint, init
from mmt_jax.typing import Batch

pytestmark = pytest.mark.torch

MNLI = ("entailment", "neutral", "contradiction")  # as transformers numbers them
SENTENCES = [("a red cube", "two balls"), ("a ball", "a cube"), ("two red cubes", "a")]
FAMILIES = {
    "bert": (bert, "BertForSequenceClassification"),
    "roberta": (roberta, "RobertaForSequenceClassification"),
}


def answered(found, text, *images):
    """Logits of imported weights."""
    model = registry.build(found.config)
    first, more = (images[0], images[1:]) if images else (None, ())
    batch = Batch(text, first, np.arange(len(text.mask), dtype=np.int32), more)
    with jax.default_matmul_precision("highest"):
        run = jax.jit(functools.partial(answers.logits, model))
        return np.asarray(run(jax.device_put(found.params), batch))


def weights_of(found):
    return trees.flatten(found.params)


def assert_same(found, expected):
    found, expected = weights_of(found), weights_of(expected)
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)


def assert_near(found, expected):
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-5, rtol=1e-5)


# ---- GLUE ----------------------------------------------------------------------------------------


def tuned(folder, family, names=MNLI):
    module, architecture = FAMILIES[family]
    named = {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    folder.mkdir()
    return module.published(folder, architecture, **named, max_position_embeddings=40)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_glue_is_answered_as_in_pytorch_and_goes_back(tmp_path, capsys, family):
    """The same sentences through their tokenizer and ours, at the command line and back."""
    torch, transformers = FAMILIES[family][0]._libraries()
    theirs = tuned(tmp_path / "in", family)
    workdir, out = tmp_path / "run", tmp_path / "out"
    argv = ["import", f"--from={tmp_path / 'in'}", f"--model={family}", f"--out={workdir}"]
    assert cli.main([*argv, "--task=glue/MNLI"]) == 0
    assert json.loads((workdir / labels.FILE).read_text()) == list(MNLI)

    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "in")
    inputs = tokenizer([list(pair) for pair in SENTENCES], padding=True, return_tensors="pt")
    expected = theirs(**inputs).logits
    found = importers.load(tmp_path / "in", family, task="glue/MNLI")
    text = records.texts(found.config, SENTENCES, found.tokenizer)
    np.testing.assert_array_equal(text.token_ids, inputs["input_ids"])
    assert_near(answered(found, text), expected)

    best = [MNLI[n] for n in expected.argmax(-1)]
    rows = [f"{n}\t{a}\t{b}\t{label}" for n, ((a, b), label) in enumerate(zip(SENTENCES, best))]
    (tmp_path / "dev.tsv").write_text("\n".join(["n\tsentence1\tsentence2\tgold_label", *rows]))
    capsys.readouterr()
    asked = ["--task=glue/MNLI", f"--questions={tmp_path / 'dev.tsv'}"]
    assert cli.main(["eval", f"--workdir={workdir}", *asked]) == 0
    assert capsys.readouterr().out.split()[-2:] == ["accuracy", "1"]

    export = ["export", f"--workdir={workdir}", f"--out={out}", "--format=huggingface"]
    assert cli.main(export) == 0
    again, report = type(theirs).from_pretrained(out, output_loading_info=True)
    assert not any(report.values()), report
    assert again.config.id2label == dict(enumerate(MNLI))
    torch.testing.assert_close(again(**inputs).logits, expected, atol=1e-5, rtol=1e-5)
    assert_same(importers.load(out, family), found)  # which says its task itself


@pytest.mark.parametrize(
    ("task", "names", "expected"),
    [
        ("RTE", ("entailment", "not entailment"), ["entailment", "not_entailment"]),
        ("SST-2", ("POSITIVE", "NEGATIVE"), ["1", "0"]),
        ("WNLI", ("not_entailment", "entailment"), ["0", "1"]),
        ("MRPC", ("LABEL_0", "LABEL_1"), ["0", "1"]),
        ("STS-B", ("LABEL_0",), ["score"]),
    ],
)
def test_classes_have_many_names(tmp_path, task, names, expected):
    tuned(tmp_path / "in", "bert", names)
    found = importers.load(tmp_path / "in", "bert", task=f"glue/{task}")
    assert json.loads(found.others[labels.FILE]) == expected
    assert found.config.task.name == f"glue/{task}"


@pytest.mark.parametrize(
    ("task", "names", "labels", "message"),
    [
        ("", MNLI, None, "head of 3 answers and does not say to what; say it with --task"),
        ("glue/SST", MNLI, None, "--task=glue/SST is unknown; there are vqa"),
        ("glue/RTE", MNLI, None, "head of 3 answers, and glue/RTE has 2"),
        ("vqa", MNLI, None, "records of vqa hold text and image; the family bert"),
        ("glue/MNLI", ("LABEL_0", "LABEL_1", "LABEL_2"), None, "not say which answer is which of"),
        ("glue/MNLI", MNLI, ["neutral", "neutral"], "has the answer 'neutral' twice"),
        ("glue/MNLI", MNLI, ["a", "b"], "lists 2 answers, and .* a head of 3"),
        ("glue/MNLI", MNLI, ["a", "b", "c"], "l.json does not say which answer is which"),
    ],
)
def test_answers_that_nobody_names_are_refused(tmp_path, task, names, labels, message):
    tuned(tmp_path / "in", "bert", names)
    path = tmp_path / "l.json"
    path.write_text(json.dumps(labels))
    with pytest.raises(UsageError, match=message):
        importers.load(tmp_path / "in", "bert", task=task, labels=path if labels else None)


def test_weights_without_such_a_head_are_refused(tmp_path):
    bert.published(tmp_path)
    for given in ({"task": "glue/RTE"}, {"labels": tmp_path / "l.json"}):
        with pytest.raises(UsageError, match=r"has no head|no head of them"):
            importers.load(tmp_path, "bert", **given)


def test_every_glue_task_is_known_as_transformers_writes_it():
    assert {questions._GLUE[name] for name in ("sst2", "stsb", "cola")} == {
        f"glue/{name}" for name in ("SST-2", "STS-B", "CoLA")
    }
    assert len(questions._GLUE) == len(glue.TASKS)


# ---- LXMERT --------------------------------------------------------------------------------------


def best(folder, state):
    """`BEST.pth` of the release, beside the config of the pre-trained model."""
    torch, _ = lxmert._libraries()
    lxmert.saved(lxmert.published("LxmertForPreTraining"), folder)
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "BEST.pth")
    return folder


def released(key):
    """LXMERT's own name of a key of Hugging Face's, trained on several GPUs."""
    if key.startswith("answer_head."):
        return key.removeprefix("answer_head.")
    return key.replace("lxmert.", "lxrt_encoder.model.module.bert.", 1)


@pytest.mark.slow
def test_lxmerts_best_on_questions(tmp_path):
    theirs = lxmert.published("LxmertForQuestionAnswering")
    names = ["yes", "no", "red", "2", "a dog", "left"]
    theirs.config.id2label = dict(enumerate(names))
    expected = importers.load(lxmert.saved(theirs, tmp_path / "hf"), "lxmert")
    assert json.loads(expected.others[labels.FILE]) == names
    state = {released(key): value for key, value in theirs.state_dict().items()}
    assert {"logit_fc.0.weight", "lxrt_encoder.model.module.bert.pooler.dense.bias"} < state.keys()
    (tmp_path / "all_ans.json").write_text(json.dumps([{"ans": n, "dsets": []} for n in names]))
    folder = best(tmp_path / "original", state)
    found = importers.load(folder, "lxmert", task="gqa", labels=tmp_path / "all_ans.json")
    assert_same(found, expected)
    assert found.others == expected.others
    assert (found.config.task.name, found.config.model.num_answers) == ("gqa", 6)
    text, image, inputs = lxmert.pairs(theirs)
    assert_near(answered(found, text, image), theirs(**inputs).question_answering_score)


@pytest.mark.slow
def test_lxmerts_best_on_two_photos(tmp_path):
    torch, _ = lxmert._libraries()
    theirs, width = lxmert.published("LxmertModel"), lxmert.SIZES["hidden_size"]
    head = torch.nn.Sequential(
        torch.nn.Linear(2 * width, 2 * width),
        torch.nn.GELU(),
        torch.nn.LayerNorm(2 * width, eps=1e-12),
        torch.nn.Linear(2 * width, 2),
    )
    state = {f"lxrt_encoder.model.bert.{key}": v for key, v in theirs.state_dict().items()}
    state |= {f"logit_fc.{key}": value for key, value in head.state_dict().items()}
    found = importers.load(best(tmp_path / "in", state), "lxmert")
    assert found.config.task.name == "nlvr2"
    assert json.loads(found.others[labels.FILE]) == ["False", "True"]
    text, left, inputs = lxmert.pairs(theirs)
    right = jax.tree.map(lambda x: x[::-1].copy(), left)
    other = {k: v.flip(0) if k.startswith("visual") else v for k, v in inputs.items()}
    pooled = [theirs(**each).pooled_output for each in (inputs, other)]
    assert_near(answered(found, text, left, right), head(torch.cat(pooled, dim=-1)))
    with pytest.raises(UsageError, match="was fine-tuned on nlvr2, and not on vqa"):
        importers.load(tmp_path / "in", "lxmert", task="vqa")


# ---- BridgeTower ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "name", "photos", "size"),
    [("vqa", "vqa", 1, 5), ("nlvr2", "nlvr2", 2, 2), ("snli_ve", "snli", 1, 3)],
)
def test_bridgetowers_heads(tmp_path, task, name, photos, size):
    torch, _ = bridgetower._libraries()
    theirs = bridgetower.published("base")
    width = theirs.config.hidden_size
    if photos > 1:  # as the paper's code makes a row for the second one
        types = torch.nn.Embedding(3, width)
        types.weight.data[:2] = theirs.token_type_embeddings.weight.data
        theirs.token_type_embeddings = types
    hidden = 4 * width if photos == 1 else 3 * width
    head = torch.nn.Sequential(
        torch.nn.Linear(2 * width * photos, hidden),
        torch.nn.LayerNorm(hidden),
        torch.nn.GELU(),
        torch.nn.Linear(hidden, size),
    )
    state = {**theirs.state_dict(), "temperature": torch.tensor(0.07)}
    state |= {f"{name}_classifier.{key}": value for key, value in head.state_dict().items()}
    folder = bridgetower.saved(theirs, tmp_path / "in")
    (folder / "model.safetensors").unlink()
    torch.save({"state_dict": state}, folder / "model.ckpt")
    found = importers.load(folder, "bridgetower")
    assert found.config.task.name == task
    named = {"nlvr2": ["False", "True"], "snli_ve": ["contradiction", "neutral", "entailment"]}
    assert json.loads(found.others.get(labels.FILE, "0")) == named.get(task, 0)

    text, image, inputs = bridgetower.pairs()
    images, passes = [image], [inputs]
    if photos > 1:
        images.append(jax.tree.map(lambda x: x[::-1].copy(), image))
        flipped = inputs["pixel_values"].flip(0)
        passes.append({**inputs, "pixel_values": flipped, "image_token_type_idx": 2})
    pooled = [theirs(**each).pooler_output for each in passes]
    assert_near(answered(found, text, *images), head(torch.cat(pooled, dim=-1)))
    with pytest.raises(UsageError, match="has a head that answers questions"):
        importers.save(found.config, found.params, found.tokenizer, tmp_path / "out")


# ---- From one list of answers to another ---------------------------------------------------------


@pytest.mark.slow
def test_answers_start_as_the_same_answers_of_the_source(tmp_path):
    names = ["yes", "no", "two", "Red.", "a dog", "left"]
    theirs = lxmert.published("LxmertForQuestionAnswering")
    theirs.config.id2label = dict(enumerate(names))
    found = importers.load(lxmert.saved(theirs, tmp_path / "in"), "lxmert")
    checkpoint.write(tmp_path / "run", found.config, found.params, found.tokenizer, found.others)

    def start(labels):
        sizes = dataclasses.replace(found.config.model, num_answers=len(labels))
        model = registry.build(dataclasses.replace(found.config, model=sizes))
        said = []
        params = init.params(
            [tmp_path / "run"], model, jax.random.key(0), said.append, labels=labels
        )
        return params["answer_head"], said

    source = found.params["answer_head"]
    head, said = start(("dog", "blue", "no", "red", "2"))  # 2 is the normal form of two
    rows = [4, -1, 1, 3, 2]
    for leaf in ("kernel", "bias"):
        expected = np.where(np.array(rows) < 0, 0, source["out"][leaf][..., rows])
        np.testing.assert_array_equal(head["out"][leaf], expected)
    np.testing.assert_array_equal(head["dense"]["kernel"], source["dense"]["kernel"])
    assert said[0] == "4 of 5 answers are known there"
    assert len(said) == 2  # nothing is fresh
    same, _ = start(tuple(names))
    np.testing.assert_array_equal(same["out"]["kernel"], source["out"]["kernel"])
    other, said = start(("a", "b", "c", "d", "e", "f"))  # as many, but none of them
    assert "answer_head" in said[2]
    assert not np.array_equal(other["dense"]["kernel"], source["dense"]["kernel"])
