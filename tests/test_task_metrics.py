"""The tasks' official metrics and prediction files, by hand."""

import json
import math

import numpy as np
import pytest

from mmt_jax.errors import UsageError
from mmt_jax.infer import ranking, relevance
from mmt_jax.tasks import answers
from mmt_jax.tasks import glue_metric as glue
from mmt_jax.tasks import gqa_metric as gqa
from mmt_jax.tasks import nlvr2_metric as nlvr2
from mmt_jax.tasks import snli_ve_metric as snli_ve
from mmt_jax.tasks import vqa_metric as vqa
from mmt_jax.tasks.glue import Example
from mmt_jax.tasks.nlvr2 import Pair
from mmt_jax.tasks.snli_ve import Hypothesis
from mmt_jax.tasks.vqa import Question

# ---- Answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("The  Red\tcar.", "red car"),
        ("two", "2"),
        ("None", "0"),
        ("twenty", "twenty"),
        ("a", ""),
        ("dont", "don't"),
        ("I wouldnt've", "i wouldn't've"),
        ("yall'd've", "y'all'd've"),
        ("ill", "ill"),  # a word of its own
        ("somebody'd", "somebodyd"),
        ("black-and-white", "black and white"),
        ("black - white", "black white"),  # the mark stands alone and goes
        ("yes, please", "yes please"),
        ("yes,please", "yes please"),
        ("1,000", "1000"),
        ("1,000/day", "1000day"),  # a number with a comma: every mark goes
        ("3.5 m.", "3.5 m"),
        ("$5", "$5"),
        ("10:30", "10:30"),
        ("mc donald's?", "mc donald's"),
    ],
)
def test_normal_form_of_an_answer(answer, normal):
    assert answers.normalise(answer) == normal


def test_worth_of_an_answer_leaves_each_annotator_out_in_turn():
    given = ["net"] * 4 + ["web"] * 3 + ["fence"] * 2 + ["wire"]
    by_hand = {}
    for answer in set(given):
        others = [given[:i] + given[i + 1 :] for i in range(10)]
        by_hand[answer] = sum(min(other.count(answer) / 3, 1) for other in others) / 10
    assert answers.soft_scores(given) == pytest.approx(by_hand)
    assert by_hand == pytest.approx({"net": 1, "web": 0.9, "fence": 0.6, "wire": 0.3})


def test_annotators_who_all_agree_keep_their_punctuation():
    assert answers.soft_scores(["t-shirt"] * 10) == {"t-shirt": 1.0}
    assert set(answers.soft_scores(["t-shirt"] * 9 + ["coat"])) == {"t shirt", "coat"}


def test_answer_classes_and_targets(tmp_path):
    consensus = ["yes"] * 3 + ["No."] + ["no"] * 2 + ["two"] * 2 + ["rare"]
    classes = answers.frequent(consensus, least=2)
    assert classes == ("no", "yes", "2")
    targets = answers.targets([{"yes": 1.0, "rare": 0.3}, {"2": 0.6}], classes)
    np.testing.assert_allclose(targets, [[0, 1, 0], [0, 0, 0.6]])
    path = tmp_path / "label2ans.json"
    path.write_text(json.dumps(classes))
    assert answers.read_classes(path) == classes
    path.write_text('["yes", "yes"]')
    with pytest.raises(UsageError, match="'yes' twice"):
        answers.read_classes(path)
    path.write_text('{"yes": 0}')
    with pytest.raises(UsageError, match="must be a JSON list"):
        answers.read_classes(path)


# ---- VQAv2 and GQA -------------------------------------------------------------------------------

QUESTIONS = [
    Question(1, 10, "Is it?", {"yes": 1.0, "no": 0.6}, "yes/no"),
    Question(2, 10, "How many?", {"2": 0.9, "3": 0.3}, "number"),
    Question(3, 11, "Is it not?", {"no": 1.0}, "yes/no"),
]


def test_vqa_accuracy():
    found = vqa.evaluate(QUESTIONS, {1: "No.", 2: "Two", 3: "maybe"})
    expected = {"accuracy": (0.6 + 0.9 + 0) / 3, "yes/no": 0.3, "number": 0.9}
    assert found == pytest.approx(expected)


def test_gqa_accuracy_is_to_the_letter():
    questions = [
        Question("01", "n1", "Is it?", {"yes": 1.0}, "binary"),
        Question("02", "n1", "What?", {"pipe": 1.0}, "open"),
        Question("03", "n2", "What?", {"sky": 1.0}, "open"),
    ]
    found = gqa.evaluate(questions, {"01": "yes", "02": "the pipe", "03": "sky"})
    assert found == pytest.approx({"accuracy": 2 / 3, "binary": 1.0, "open": 0.5})


def test_answers_must_be_those_of_the_questions():
    with pytest.raises(UsageError, match="2 predictions are missing, the first is 2"):
        vqa.evaluate(QUESTIONS, {1: "no"})
    with pytest.raises(UsageError, match="1 predictions are of no example, the first is 4"):
        vqa.evaluate(QUESTIONS, dict.fromkeys((1, 2, 3, 4), "no"))
    with pytest.raises(UsageError, match="question 9 has no published answer"):
        vqa.evaluate([Question(9, 1, "Is it?", None)], {9: "no"})
    with pytest.raises(UsageError, match="no example"):
        vqa.evaluate([], {})


def test_answer_files_are_those_of_the_servers(tmp_path):
    vqa.write(tmp_path / "new" / "vqa.json", {458752000: "net", 458752001: "2"})
    assert json.loads((tmp_path / "new" / "vqa.json").read_text()) == [
        {"question_id": 458752000, "answer": "net"},
        {"question_id": 458752001, "answer": "2"},
    ]
    assert vqa.read(tmp_path / "new" / "vqa.json") == {458752000: "net", 458752001: "2"}
    gqa.write(tmp_path / "gqa.json", {"07333408": "pipe"})
    rows = json.loads((tmp_path / "gqa.json").read_text())
    assert rows == [{"questionId": "07333408", "prediction": "pipe"}]
    assert gqa.read(tmp_path / "gqa.json") == {"07333408": "pipe"}
    with pytest.raises(UsageError, match="not overwritten"):
        gqa.write(tmp_path / "gqa.json", {})
    with pytest.raises(UsageError, match="`question_id` is missing"):
        vqa.read(tmp_path / "gqa.json")
    (tmp_path / "gqa.json").write_text(json.dumps(rows * 2))
    with pytest.raises(UsageError, match="'07333408' is there twice"):
        gqa.read(tmp_path / "gqa.json")


# ---- NLVR2, SNLI-VE, GLUE ------------------------------------------------------------------------


def test_nlvr2_counts_pairs_and_sentences(tmp_path):
    labels = {"dev-1-0-0": True, "dev-1-1-0": False, "dev-1-0-1": True, "dev-2-0-0": True}
    pairs = [Pair(identifier, "So.", label) for identifier, label in labels.items()]
    judged = labels | {"dev-1-1-0": True}  # one of the two pairs of sentence dev-1-0 is wrong
    assert nlvr2.evaluate(pairs, judged) == pytest.approx({"accuracy": 3 / 4, "consistency": 2 / 3})
    nlvr2.write(tmp_path / "dev.csv", judged)
    assert (tmp_path / "dev.csv").read_text().splitlines()[:2] == [
        "dev-1-0-0,True",
        "dev-1-1-0,True",
    ]
    assert nlvr2.read(tmp_path / "dev.csv") == judged
    (tmp_path / "dev.csv").write_text("dev-1-0-0,true\ndev-1-1-0,perhaps\n")
    with pytest.raises(UsageError, match=r"dev\.csv:2: 'dev-1-1-0,perhaps' must be like"):
        nlvr2.read(tmp_path / "dev.csv")
    with pytest.raises(UsageError, match="are missing"):
        nlvr2.evaluate(pairs, {"dev-1-0-0": True})


def test_snli_ve_accuracy():
    rows = [Hypothesis(f"p{i}", "1", "So.", label) for i, label in enumerate((0, 0, 1, 2))]
    found = snli_ve.evaluate(rows, {"p0": 0, "p1": 1, "p2": 1, "p3": 0})
    assert found == {"accuracy": 0.5, "contradiction": 0.5, "entailment": 0.0, "neutral": 1.0}


def test_glue_metrics_by_hand(tmp_path):
    examples = [Example(("A.", "B."), label) for label in (1, 1, 1, 0, 0)]
    predicted = [1, 1, 0, 1, 0]  # 2 true, 1 false positive, 1 false negative, 1 true negative
    found = glue.evaluate("MRPC", examples, predicted)
    assert found == pytest.approx({"f1": 2 / 3, "accuracy": 3 / 5})
    matthews = (2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2)
    assert glue.evaluate("CoLA", examples, predicted) == pytest.approx({"matthews": matthews})
    assert glue.evaluate("CoLA", examples, [1] * 5) == {"matthews": 0.0}
    scored = [Example(("A.", "B."), label) for label in (0.0, 1.0, 2.0, 5.0)]
    found = glue.evaluate("STS-B", scored, [1.0, 1.0, 3.0, 2.0])
    # Ranks 1 2 3 4 and 1.5 1.5 4 3; deviations -1.5 -.5 .5 1.5 and -1 -1 1.5 .5.
    assert found["spearman"] == pytest.approx(3.5 / math.sqrt(5 * 4.5))
    # Deviations -2 -1 0 3 and -.75 -.75 1.25 .25.
    assert found["pearson"] == pytest.approx(3 / math.sqrt(14 * 2.75))
    glue.write(tmp_path / "RTE.tsv", "RTE", [1, 0])
    assert (tmp_path / "RTE.tsv").read_text() == (
        "index\tprediction\n0\tnot_entailment\n1\tentailment\n"
    )


def test_glue_refuses_what_cannot_be_scored():
    with pytest.raises(UsageError, match="1 predictions for 2 examples"):
        glue.evaluate("RTE", [Example(("A.", "B."), 1)] * 2, [1])
    with pytest.raises(UsageError, match="has no labels"):
        glue.evaluate("RTE", [Example(("A.", "B."), None)], [1])


# ---- Retrieval -----------------------------------------------------------------------------------


def test_fractional_recall_counts_every_relevant_item():
    scores = np.array([[0.9, 0.8, 0.7, 0.1], [0.4, 0.3, 0.2, 0.4]])
    relevant = np.array([[True, False, True, True], [True, False, False, False]])
    # The second query's only relevant item is tied with an irrelevant one, which stands ahead.
    assert ranking.fractional_recall(scores, relevant, 1) == pytest.approx((1 / 3 + 0) / 2)
    assert ranking.fractional_recall(scores, relevant, 3) == pytest.approx((2 / 3 + 1) / 2)
    any_hit = ranking.recall(ranking.ranks(scores, relevant), 1)
    assert any_hit == 0.5
    five = np.repeat(np.eye(3, dtype=bool), 5, axis=1)  # five captions a photo, all found first
    assert ranking.fractional_recall(five.astype(float), five, 1) == pytest.approx(1 / 5)


def f_measure(precision, recall):
    return (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)


def test_rouge_l_by_hand():
    queries = ["A dog runs on the grass.", "two cats"]
    photos = [
        ["a brown dog on grass"],  # a dog on grass: 4 of 6 and 4 of 5
        ["grass the on runs dog a"],  # any one word: 1 of 6 and 1 of 6
        ["dog", "a dog runs far away over there"],  # recall of the first, precision of the second
        ["two cats", "a dog"],
    ]
    expected = [
        [f_measure(4 / 6, 4 / 5), 1 / 6, f_measure(3 / 6, 1), f_measure(2 / 6, 1)],
        [0, 0, 0, 1],
    ]
    np.testing.assert_allclose(relevance.rouge_l(queries, photos), expected, rtol=1e-6)


def longest_common(a, b):
    """By the definition, without a table."""
    if not a or not b:
        return 0
    if a[0] == b[0]:
        return 1 + longest_common(a[1:], b[1:])
    return max(longest_common(a[1:], b), longest_common(a, b[1:]))


def test_rouge_l_counts_the_longest_common_subsequence():
    rng = np.random.default_rng(0)

    def sentence():
        return list(rng.choice(list("abcd"), rng.integers(1, 8)))

    queries, captions = [sentence() for _ in range(12)], [sentence() for _ in range(15)]
    found = relevance.rouge_l([" ".join(q) for q in queries], [[" ".join(c)] for c in captions])
    expected = np.zeros(found.shape)
    for i, query in enumerate(queries):
        for j, caption in enumerate(captions):
            common = longest_common(query, caption)
            if common:
                expected[i, j] = f_measure(common / len(query), common / len(caption))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_ndcg_by_hand():
    graded = np.array([[1.0, 0.5, 0.0]])
    half = math.sqrt(2) - 1  # the gain of relevance .5
    best = 1 + half / math.log2(3)
    found = relevance.ndcg(np.array([[0.1, 0.3, 0.2]]), graded)
    np.testing.assert_allclose(found, [(half + 1 / math.log2(4)) / best])
    np.testing.assert_allclose(relevance.ndcg(np.array([[3.0, 2.0, 1.0]]), graded), [1])
    np.testing.assert_allclose(relevance.ndcg(np.array([[1.0, 2.0, 3.0]]), graded, k=1), [0])
    # A constant score ranks the least relevant first.
    worst = half / math.log2(3) + 1 / math.log2(4)
    np.testing.assert_allclose(relevance.ndcg(np.zeros((1, 3)), graded), [worst / best])
    np.testing.assert_array_equal(relevance.ndcg(np.zeros((1, 3)), np.zeros((1, 3))), [0])
