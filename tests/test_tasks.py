"""Loaders of the tasks' published files, on small files of the same format."""

import json
import pickle

import numpy as np
import pytest

from mmt_jax.errors import UsageError
from mmt_jax.tasks import cifar, glue, gqa, nlvr2, registry, snli_ve, vqa


def write(folder, name, content):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


# ---- VQAv2 and GQA -------------------------------------------------------------------------------


def vqa_files(folder, ids=(262148000, 262148001), annotated=None):
    questions = [
        {"question_id": n, "image_id": n // 1000, "question": f"How many {n}?"} for n in ids
    ]
    answers = [["2"] * 7 + ["Two."] * 2 + ["3"], ["yes"] * 10]
    annotations = [
        {
            "question_id": n,
            "image_id": n // 1000,
            "question_type": "how many",
            "answer_type": "number",
            "multiple_choice_answer": "2",
            "answers": [
                {"answer": text, "answer_confidence": "yes", "answer_id": i + 1}
                for i, text in enumerate(given)
            ],
        }
        for n, given in zip(annotated or ids, answers)
    ]
    head = {"info": {"version": "2.0"}, "data_type": "mscoco", "data_subtype": "val2014"}
    return (
        write(folder, "questions.json", head | {"questions": questions}),
        write(folder, "annotations.json", head | {"annotations": annotations}),
    )


def test_vqa_joins_questions_and_answers(tmp_path):
    first, second = vqa.read(*vqa_files(tmp_path))
    assert (first.key, first.photos, first.kind) == (262148000, (262148,), "number")
    assert first.sentences == ("How many 262148000?",)
    assert first.worth == pytest.approx({"2": 1.0, "3": 0.3})
    assert [first.value(answer) for answer in ("two!", "3", "4")] == pytest.approx([1, 0.3, 0])
    assert second.worth == {"yes": 1.0}
    assert [second.value(answer) for answer in ("yes", "Yes", "a yes")] == [1, 0, 0]
    assert first.consensus == "2"


def test_vqa_test_splits_have_no_answers(tmp_path):
    questions, _ = vqa_files(tmp_path)
    assert [question.worth for question in vqa.read(questions)] == [None, None]


def test_vqa_files_of_two_splits_are_told(tmp_path):
    pair = vqa_files(tmp_path, ids=(1000, 2000), annotated=(1000, 3000))
    with pytest.raises(UsageError, match="entry 1: question 2000 has no answers"):
        list(vqa.read(*pair))
    pair = vqa_files(tmp_path, ids=(1000,), annotated=(1000, 3000))
    with pytest.raises(UsageError, match="lacks question 3000"):
        list(vqa.read(*pair))
    pair = vqa_files(tmp_path, ids=(1000, 1000))
    with pytest.raises(UsageError, match="entry 1: question 1000 has no answers"):
        list(vqa.read(*pair))


def test_vqa_entries_that_lack_something_are_told(tmp_path):
    path = write(tmp_path, "q.json", {"questions": [{"question_id": 3, "question": "What?"}]})
    with pytest.raises(UsageError, match="`image_id` is missing; there is question_id, question"):
        list(vqa.read(path))
    path = write(tmp_path, "q.json", {"questions": [{"question_id": "3", "image_id": 1}]})
    with pytest.raises(UsageError, match="`question_id` must be int, not '3'"):
        list(vqa.read(path))


def test_lxmert_files(tmp_path):
    entry = {
        "answer_type": "other",
        "img_id": "COCO_val2014_000000458752",
        "label": {"net": 1, "web": 0.3},
        "question_id": 458752000,
        "question_type": "what is this",
        "sent": "What is this photo taken looking through?",
    }
    (question,) = vqa.read(write(tmp_path, "minival.json", [entry]))
    assert (question.key, question.photos) == (458752000, (458752,))
    assert question.worth == {"net": 1, "web": 0.3}
    # An answer outside the published ones is worth nothing; in test splits nobody knows.
    unlisted = entry | {"label": {}}
    unknown = {key: value for key, value in entry.items() if key != "label"}
    found = vqa.read(write(tmp_path, "minival.json", [unlisted, unknown]))
    assert [question.worth for question in found] == [{}, None]
    with pytest.raises(UsageError, match="COCO_val2014_000000393267"):
        list(vqa.read(write(tmp_path, "minival.json", [entry | {"img_id": "458752"}])))
    with pytest.raises(UsageError, match="`net` must be a number, not '1'"):
        list(vqa.read(write(tmp_path, "minival.json", [entry | {"label": {"net": "1"}}])))


def test_gqa(tmp_path):
    entry = {"imageId": "2354786", "question": "Is the sky dark?", "isBalanced": True}
    known = entry | {"answer": "yes", "types": {"structural": "verify", "semantic": "global"}}
    chosen = known | {"answer": "pipe", "types": {"structural": "query", "semantic": "rel"}}
    chosen |= {"isBalanced": False}
    path = write(tmp_path, "q.json", {"02930152": known, "07333408": chosen, "1": entry})
    first, second, third = gqa.read(path)
    assert (first.key, first.photos, first.kind) == ("02930152", ("2354786",), "binary")
    assert (second.worth, second.kind) == ({"pipe": 1.0}, "open")
    assert (third.worth, third.kind) == (None, "")
    assert [question.counts for question in (first, second, third)] == [True, False, True]
    path = write(tmp_path, "q.json", {"1": entry | {"answer": "yes"}})
    with pytest.raises(UsageError, match="entry 0: `types` is missing"):
        list(gqa.read(path))


# ---- NLVR2 and SNLI-VE ---------------------------------------------------------------------------

PAIR = {
    "identifier": "dev-850-2-1",
    "sentence": "There are two wolves in each image.",
    "label": "False",
    "left_url": "http://example.org/a.jpg",
}


def test_nlvr2(tmp_path):
    path = write(tmp_path, "dev.json", json.dumps(PAIR) + "\n\n" + json.dumps(PAIR) + "\n")
    first, _ = nlvr2.read(path)
    assert first.photos == ("dev-850-2-img0", "dev-850-2-img1")
    assert first.sentence_id == "dev-850-1"
    assert first.worth == {"False": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"identifier": "dev-850"}, r":2: `identifier` is 'dev-850'; it must be like dev-850-0-0"),
        ({"label": "maybe"}, ":2: `label` is 'maybe'"),
        ({"sentence": 3}, ":2: `sentence` must be str, not 3"),
        ({"directory": "../dev"}, ":2: `directory` is '../dev'; it must be a number"),
    ],
)
def test_nlvr2_names_the_line(tmp_path, change, message):
    lines = [json.dumps(PAIR), json.dumps(PAIR | change)]
    with pytest.raises(UsageError, match=message):
        list(nlvr2.read(write(tmp_path, "dev.json", "\n".join(lines))))


def test_a_line_that_is_no_object_is_told(tmp_path):
    with pytest.raises(UsageError, match=":2: not JSON"):
        list(nlvr2.read(write(tmp_path, "dev.json", json.dumps(PAIR) + "\n{")))
    with pytest.raises(UsageError, match=":1: not an object"):
        list(nlvr2.read(write(tmp_path, "dev.json", "[1]\n")))


def test_snli_ve(tmp_path):
    entry = {
        "Flickr30K_ID": "4705552913",
        "pairID": "4705552913.jpg#2r1n",
        "gold_label": "neutral",
        "sentence1": "Two women are embracing.",
        "sentence2": "The sisters are hugging goodbye.",
    }
    path = write(tmp_path, "snli_ve_dev.jsonl", json.dumps(entry))
    (hypothesis,) = snli_ve.read(path)
    assert hypothesis.photos == ("4705552913",)
    assert hypothesis.sentences == ("The sisters are hugging goodbye.",)
    assert hypothesis.worth == {"neutral": 1}
    path = write(tmp_path, "snli_ve_dev.jsonl", json.dumps(entry | {"gold_label": "-"}))
    with pytest.raises(UsageError, match=":1: `gold_label` is '-'"):
        list(snli_ve.read(path))


# ---- CIFAR ---------------------------------------------------------------------------------------


def photo(*labels, seed):
    return bytes(labels) + np.random.default_rng(seed).bytes(3 * 32 * 32)


def test_cifar10_binary(tmp_path):
    (tmp_path / "batches.meta.txt").write_text("airplane\nautomobile\nbird\n\n")
    for number in range(1, 6):
        path = tmp_path / f"data_batch_{number}.bin"
        path.write_bytes(photo(2, seed=number) + photo(0, seed=number + 10))
    (tmp_path / "test_batch.bin").write_bytes(photo(1, seed=0))
    train = list(cifar.read(str(tmp_path)))
    assert [entry.best for entry in train] == ["bird", "airplane"] * 5
    assert registry.get("cifar").listed(train, 1) == ("airplane", "bird")
    planes = np.frombuffer(photo(seed=13), np.uint8).reshape(3, 32, 32)  # red, green, blue
    np.testing.assert_array_equal(train[5].pixels, np.stack(planes, axis=-1))
    (test,) = cifar.read(f"{tmp_path}:test")
    assert test.best == "automobile"
    with pytest.raises(UsageError, match=r":val is not .* a split is train or test"):
        list(cifar.read(f"{tmp_path}:val"))


def test_cifar100_takes_the_fine_labels(tmp_path):
    (tmp_path / "fine_label_names.txt").write_text("apple\nbaby\nbear\n")
    (tmp_path / "coarse_label_names.txt").write_text("fruit\n")
    (tmp_path / "test.bin").write_bytes(photo(0, 2, seed=0) + photo(0, 1, seed=1))
    assert [entry.best for entry in cifar.read(f"{tmp_path}:test")] == ["bear", "baby"]
    (tmp_path / "test.bin").write_bytes(photo(0, 3, seed=0))
    with pytest.raises(UsageError, match="a label 3, but there are 3 classes"):
        list(cifar.read(f"{tmp_path}:test"))
    (tmp_path / "test.bin").write_bytes(photo(0, 2, seed=0)[:-1])
    with pytest.raises(UsageError, match=r"test\.bin has 3073 bytes"):
        list(cifar.read(f"{tmp_path}:test"))
    with pytest.raises(UsageError, match=r"train\.bin cannot be read"):
        list(cifar.read(str(tmp_path)))


def test_cifar_pickles_are_refused(tmp_path):
    with pytest.raises(UsageError, match="is not the binary version"):
        list(cifar.read(str(tmp_path)))
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({}))
    with pytest.raises(UsageError, match="pickles, which may run code"):
        list(cifar.read(str(tmp_path)))


# ---- GLUE ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "table", "expected"),
    [
        ("CoLA", "gj04\t1\t\tThe cat sat.\ngj04\t0\t*\tSat the.", [("The cat sat.",), "1"]),
        ("CoLA", "index\tsentence\n0\tBill runs.", [("Bill runs.",), None]),
        ("SST-2", "sentence\tlabel\nhide new secretions \t0", [("hide new secretions ",), "0"]),
        (
            "MRPC",
            '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\t"No," he said.\tNo.',
            [('"No," he said.', "No."), "1"],
        ),
        ("STS-B", "index\tsentence1\tsentence2\tscore\n0\tA.\tB.\t2.75", [("A.", "B."), "score"]),
        (
            "MNLI",
            "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\tA.\tB.\tneutral\tentailment",
            [("A.", "B."), "entailment"],
        ),
        (
            "QNLI",
            "index\tquestion\tsentence\tlabel\n0\tQ?\tS.\tnot_entailment",
            [("Q?", "S."), "not_entailment"],
        ),
    ],
)
def test_glue(tmp_path, task, table, expected):
    first, *_ = registry.read(f"glue/{task}", str(write(tmp_path, "dev.tsv", table)))
    assert [first.sentences, first.best if first.worth else None] == expected
    assert task != "STS-B" or first.worth == {"score": 2.75}


def test_qqp_leaves_broken_lines_out(tmp_path):
    head = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    rows = '1\t2\t3\tWho?\tWhat?\t0\n"\tWas he real?\t0\n4\t5\t6\tHow?\tHow so?\t1\n'
    examples = list(glue.read(write(tmp_path, "train.tsv", head + rows), task="QQP"))
    assert [example.best for example in examples] == ["0", "1"]


@pytest.mark.parametrize(
    ("task", "table", "message"),
    [
        ("RTE", "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.", ":2: 3 columns, but .* has 4"),
        ("RTE", "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\t1", ":2: `label` is '1'; it must"),
        ("STS-B", "sentence1\tsentence2\tscore\nA.\tB.\tnan", ":2: `score` is 'nan'.* a number"),
        ("RTE", "sentence\tlabel\nA.\t1", "no column 'sentence1', which RTE has"),
        ("RTE", "", "is empty"),
        ("SST2", "", "no task 'glue/SST2'; there are .*glue/CoLA, glue/SST-2"),
    ],
)
def test_glue_names_what_is_wrong(tmp_path, task, table, message):
    with pytest.raises(UsageError, match=message):
        registry.read(f"glue/{task}", str(write(tmp_path, "dev.tsv", table)))
