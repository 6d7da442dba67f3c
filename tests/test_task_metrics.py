"""The tasks' official metrics and prediction files, by hand."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats

from mmt_jax.configs.tasks import TASKS
from mmt_jax.errors import UsageError
from mmt_jax.infer import ranking, relevance
from mmt_jax.tasks import base, labels, nlvr2, registry, snli_ve, vqa
from mmt_jax.tasks.base import Entry

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
    assert vqa.normalise(answer) == normal


def test_the_forms_of_the_official_evaluation():
    """Ten annotators, a prediction, and what the official script gives for it."""
    cases = [
        (["on the left"] * 10, "on the left", 1),
        (["yes"] * 10, "Yes!", 0),
        (["the man"] * 8 + ["man"] * 2, "man", 1),
        (["two"] * 9 + ["2"], "2", 1),
        (["hot dog"] * 10, "hot dog", 1),
        (["on the left"] * 10, " on\tthe left\n", 1),  # blanks are no letters
        (["yes", "yes "] * 5, "Yes", 0),  # nor do they make annotators differ
        (["yes", "Yes"] * 5, "YES", 1),
        (["net"] * 3 + ["web"] * 7, "a net", 0.9),
    ]
    for annotated, prediction, expected in cases:
        assert vqa.accuracy(prediction, annotated) == pytest.approx(expected), annotated


def test_worth_of_an_answer_leaves_each_annotator_out_in_turn():
    given = ["net"] * 4 + ["web"] * 3 + ["fence"] * 2 + ["wire"]
    for answer, expected in {"net": 1, "web": 0.9, "fence": 0.6, "wire": 0.3, "cage": 0}.items():
        others = [given[:i] + given[i + 1 :] for i in range(10)]
        by_hand = sum(min(other.count(answer) / 3, 1) for other in others) / 10
        assert vqa.accuracy(answer, given) == pytest.approx(by_hand) == pytest.approx(expected)


NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4"}
NUMBERS |= {"five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}


def contractions():
    """Misspelled → spelled, by ending: where a word may take it, each apostrophe may be missing."""
    ends = {
        "n't": "ai are ca could did does do had has have is might must need ought sha should was "
        "were wo would",
        "n't've": "could had might should would",
        "'ve": "could might must not should they we what where who would you",
        "'d": "he how it someone something there they where who you",
        "'d've": "he it she somebody someone something there they we who y'all you",
        "'ll": "how it somebody someone something they what who why y'all you",
        "'s": "he how somebody someone that there what when where who why",
        "'re": "there they what why you",
    }
    spelled = [word + end for end, words in ends.items() for word in words.split()]
    table = {}
    for word in [*spelled, "ma'am", "o'clock", "'ow's'at", "'twas", "y'all"]:
        pieces = word.split("'")
        for i in range(1, len(pieces)):
            table["'".join(pieces[:i]) + "'".join(pieces[i:])] = word
    # Whole words by themselves; the official table has none of these, and one row the other way.
    for word in ("hell", "shed", "wed", "well", "ill", "shell", "shes", "lets", "were", "id"):
        assert word not in table
    return table | {"somebody'd": "somebodyd"}


CONTRACTIONS = contractions()


def letter_by_letter(answer):
    """The normal form, one letter after the other."""
    text = "".join(" " if letter in "\n\t" else letter for letter in answer).strip()
    marks = ";/[]{}()=+_-><@`,?!" + chr(34) + chr(92)
    triples = zip(text, text[1:], text[2:])
    number = any(a.isdecimal() and b == "," and c.isdecimal() for a, b, c in triples)
    gone = {m for m in marks if number or f" {m}" in text or f"{m} " in text}
    kept = "".join("" if x in gone else " " if x in marks else x for x in text) + " "
    kept = "".join(x for x, after in itertools.pairwise(kept) if x != "." or after.isdecimal())
    words = [NUMBERS.get(word, word) for word in kept.lower().split()]
    words = [word for word in words if word not in ("a", "an", "the")]
    return " ".join(CONTRACTIONS.get(word, word) for word in words)


def odd_answer(rng):
    words = [
        *CONTRACTIONS,
        *CONTRACTIONS.values(),
        *NUMBERS,
        "None",
        "TWO",
        "a",
        "An",
        "the",
        "The",
    ]
    words += ["yes", "no", "on", "left", "1,000", "3.5", ".5", "5.", "x", "$5", "10:30", "é"]
    joints = [*" \t\n-/,.'!?;:()[]{}=+_<>@`$", chr(34), chr(92), ", ", ". ", " - ", "  ", "..", ""]
    pieces = [rng.choice(joints) + rng.choice(words) for _ in range(rng.integers(0, 5))]
    return "".join(pieces) + rng.choice(joints)


def test_normal_forms_and_worths_of_odd_answers():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(600):
        pool = [odd_answer(rng) for _ in range(rng.integers(1, 4))]
        pool += [vqa.normalise(answer) for answer in pool][: rng.integers(0, 3)]
        given = [str(answer) for answer in rng.choice(pool, 10)]
        wanted = str(rng.choice([*pool, pool[0].upper(), f"the {pool[0]}", odd_answer(rng)]))
        assert vqa.normalise(wanted) == letter_by_letter(wanted)
        plain = [" ".join(x.replace("\t", "\n").split("\n")).strip() for x in [wanted, *given]]
        if len(set(plain[1:])) > 1:
            plain = [letter_by_letter(answer) for answer in plain]
        shares = [
            min(1, sum(x == plain[0] for j, x in enumerate(plain[1:]) if j != i) / 3)
            for i in range(10)
        ]
        assert vqa.accuracy(wanted, given) == pytest.approx(np.mean(shares))
        seen.add(round(np.mean(shares), 2))
    assert seen == {0, 0.3, 0.6, 0.9, 1}


def test_every_contraction_gets_its_apostrophe():
    assert len(CONTRACTIONS) == 114
    for wrong, right in CONTRACTIONS.items():
        assert vqa.normalise(wrong) == vqa.normalise(right) == right


def questions(*annotated):
    """Entries as the reader makes them."""
    entries = []
    for number, given in enumerate(annotated):
        agreed, worth = vqa._agreement(given)
        consensus = max(given, key=given.count)
        entries.append(Entry(number, ("?",), (number,), worth, agreed, consensus=consensus))
    return entries


def test_classes_are_spelled_so_that_the_metric_takes_them():
    entries = questions(
        ["on the left"] * 10,
        ["On the left."] * 6 + ["on left"] * 4,
        ["two"] * 10,
        ["2"] * 10,
        ["two"] * 10,
        ["Two"] * 9 + ["3"],
        ["cat"] * 6 + ["a cat"] * 4,
        ["rare"] * 10,
    )
    classes = vqa.listed(entries, 1)
    assert classes == ("two", "on the left", "cat", "rare")
    assert vqa.listed(entries, 2) == ("two", "on the left")
    targets = labels.Targets(classes)(entries)
    np.testing.assert_array_equal(
        targets,
        [
            [0, 1, 0, 0],
            [0, 1, 0, 0],
            [1, 0, 0, 0],
            [0, 0, 0, 0],  # "2" to the letter, which the metric does not take "two" for
            [1, 0, 0, 0],
            [1, 0, 0, 0],
            [0, 0, 1, 0],
            [0, 0, 0, 1],
        ],
    )


@pytest.mark.slow
def test_the_target_of_a_class_is_what_the_metric_gives_it():
    rng = np.random.default_rng(1)
    given = []
    for _ in range(100):
        pool = [odd_answer(rng) for _ in range(rng.integers(1, 4))]
        given.append([str(answer) for answer in rng.choice(pool, 10)])
    entries = questions(*given)
    classes = (*vqa.listed(entries, 1), "two", "2", "Two")
    targets = labels.Targets(classes)(entries)
    for entry, annotated, row in zip(entries, given, targets):
        worths = [vqa.accuracy(name, annotated) for name in classes]
        np.testing.assert_allclose(row, worths, atol=1e-7)
        answered = {"accuracy": pytest.approx(float(row.max()))}
        assert base.accuracy([entry], {entry.key: classes[row.argmax()]}) == answered
    # Somebody's answer to every question is a class, but where all agree on a rarer spelling.
    assert (targets.max(axis=1) > 0).mean() > 0.9


def test_answers_that_lxmert_scored_are_one_where_their_forms_are():
    entry = Entry(0, worth=vqa.scored({"two": 0.6, "2": 0.9, "net": 0.3}, ""), form=vqa.normalise)
    assert entry.worth == {"2": 0.9, "net": 0.3}
    assert entry.value("Two") == 0.9
    np.testing.assert_allclose(labels.Targets(("two", "a net"))([entry]), [[0.9, 0.3]])


def test_files_of_labels(tmp_path):
    path = tmp_path / "label2ans.json"
    path.write_text('["yes", "no"]')
    assert labels.read(path) == ("yes", "no")
    path.write_text('[{"ans": "yes", "dsets": []}]')
    assert labels.read(path) == ("yes",)
    path.write_text('["yes", "yes"]')
    with pytest.raises(UsageError, match="'yes' twice"):
        labels.read(path)
    path.write_text('{"yes": 0}')
    with pytest.raises(UsageError, match="must be a JSON list"):
        labels.read(path)


# ---- Means ---------------------------------------------------------------------------------------

QUESTIONS = [
    Entry(1, worth={"yes": 1.0, "no": 0.6}, form=vqa.normalise, kind="yes/no"),
    Entry(2, worth={"2": 0.9, "3": 0.3}, form=vqa.normalise, kind="number"),
    Entry(3, worth={"no": 1.0}, form=vqa.normalise, kind="yes/no"),
]


def test_vqa_accuracy_by_kind():
    found = registry.get("vqa").metrics(QUESTIONS, {1: "No.", 2: "Two", 3: "maybe"})
    expected = {"accuracy": (0.6 + 0.9 + 0) / 3, "yes/no": 0.3, "number": 0.9}
    assert found == pytest.approx(expected)


def test_gqa_accuracy_is_to_the_letter_and_of_balanced_questions():
    entries = [
        Entry("01", worth={"yes": 1.0}, kind="binary"),
        Entry("02", worth={"pipe": 1.0}, kind="open"),
        Entry("03", worth={"sky": 1.0}, kind="open"),
        Entry("04", worth={"sky": 1.0}, kind="open", counts=False),
    ]
    answers = {"01": "yes", "02": "the pipe", "03": "sky", "04": "sea"}
    expected = {"accuracy": 2 / 3, "binary": 1.0, "open": 0.5}
    assert registry.get("gqa").metrics(entries, answers) == pytest.approx(expected)
    with pytest.raises(UsageError, match="no example"):
        base.accuracy(entries[3:], {"04": "sky"})


def test_answers_must_be_those_of_the_questions():
    with pytest.raises(UsageError, match="2 answers are missing, such as that to 2"):
        base.accuracy(QUESTIONS, {1: "no"})
    with pytest.raises(UsageError, match="1 answers are of no example, such as that to 4"):
        base.accuracy(QUESTIONS, dict.fromkeys((1, 2, 3, 4), "no"))
    with pytest.raises(UsageError, match="9 has no published answer"):
        base.accuracy([Entry(9)], {9: "no"})
    for name, row in TASKS.items():
        if row.metric:
            with pytest.raises(UsageError, match="no example"):
                registry.get(name).metrics([], {})


def test_nlvr2_counts_pairs_and_sentences():
    right = {"dev-1-0-0": "True", "dev-1-1-0": "False", "dev-1-0-1": "True", "dev-2-0-0": "True"}
    pairs = [nlvr2.Pair(key, worth={label: 1.0}) for key, label in right.items()]
    found = right | {"dev-1-1-0": "True"}  # one of the two pairs of sentence dev-1-0 is wrong
    assert nlvr2.metrics(pairs, found) == pytest.approx({"accuracy": 3 / 4, "consistency": 2 / 3})


def test_snli_ve_accuracy_by_label():
    told = [snli_ve.LABELS[n] for n in (0, 0, 1, 2)]
    rows = [Entry(f"p{n}", worth={label: 1.0}, kind=label) for n, label in enumerate(told)]
    answers = {f"p{n}": snli_ve.LABELS[label] for n, label in enumerate((0, 1, 1, 0))}
    found = registry.get("snli_ve").metrics(rows, answers)
    assert found == {"accuracy": 0.5, "contradiction": 0.5, "entailment": 0.0, "neutral": 1.0}


@pytest.mark.parametrize("seed", range(40))
def test_means_are_those_of_a_table(seed):
    """VQA's, GQA's, NLVR2's and SNLI-VE's, at random, also of one kind or class alone."""
    rng = np.random.default_rng(seed)
    count, kinds = rng.integers(1, 30), ["", "a", "b", "c"][: rng.integers(1, 5)]
    names = ["True", "False"][: rng.integers(1, 3)]
    table = []
    for pair in range(count):
        key = f"dev-{rng.integers(3)}-{pair}-{rng.integers(2)}"
        table.append(
            (key, rng.choice(kinds), rng.choice(names), rng.choice(names), rng.random() < 0.7)
        )
    means = {"accuracy": np.mean([a == b for _, _, a, b, _ in table])}
    for kind in {row[1] for row in table} - {""}:
        means[kind] = np.mean([a == b for _, k, a, b, _ in table if k == kind])
    answers = {key: b for key, _, _, b, _ in table}
    entries = [Entry(key, worth={a: 1.0}, kind=kind) for key, kind, a, _, _ in table]
    for task in ("vqa", "snli_ve", "cifar"):
        assert registry.get(task).metrics(entries, answers) == pytest.approx(means)

    pairs = [nlvr2.Pair(key, worth={a: 1.0}) for key, _, a, _, _ in table]
    sentences = {(key.split("-")[1], key.split("-")[3]) for key in answers}
    wrong = {(key.split("-")[1], key.split("-")[3]) for key, _, a, b, _ in table if a != b}
    found = nlvr2.metrics(pairs, answers)
    assert found["accuracy"] == pytest.approx(means["accuracy"])
    assert found["consistency"] == pytest.approx(1 - len(wrong) / len(sentences))

    counted = [row for row in table if row[4]]
    if counted:
        asked = [
            Entry(key, worth={a: 1.0}, kind=kind, counts=bool(balanced))
            for key, kind, a, _, balanced in table
        ]
        share = np.mean([a == b for _, _, a, b, _ in counted])
        assert registry.get("gqa").metrics(asked, answers)["accuracy"] == pytest.approx(share)


def test_answer_files_are_those_of_the_servers(tmp_path):
    def written(task, found):
        path = tmp_path / "new" / f"{task.replace('/', '-')}.txt"
        registry.write(task, path, found)
        return path.read_text()

    assert json.loads(written("vqa", {458752000: "net", 458752001: "2"})) == [
        {"question_id": 458752000, "answer": "net"},
        {"question_id": 458752001, "answer": "2"},
    ]
    assert json.loads(written("gqa", {"07333408": "pipe"})) == [
        {"questionId": "07333408", "prediction": "pipe"}
    ]
    assert json.loads(written("snli_ve", {"1.jpg#2r1n": "neutral"})) == [
        {"pairID": "1.jpg#2r1n", "gold_label": "neutral"}
    ]
    assert written("nlvr2", {"dev-1-0-0": "True", "dev-1-1-0": "False"}) == (
        "dev-1-0-0,True\ndev-1-1-0,False\n"
    )
    assert written("glue/RTE", {0: "not_entailment", 1: "entailment"}) == (
        "index\tprediction\n0\tnot_entailment\n1\tentailment\n"
    )
    assert written("glue/STS-B", {0: 2.75, 1: 1 / 3}) == "index\tprediction\n0\t2.750\n1\t0.333\n"
    assert written("cifar", {0: "apple"}) == "id,label\n1,apple\n"
    with pytest.raises(UsageError, match="not overwritten"):
        written("gqa", {})
    with pytest.raises(UsageError, match="lxmert is for pre-training"):
        written("lxmert", {})


# ---- GLUE ----------------------------------------------------------------------------------------


def glue(task, right, answers):
    """The metrics of a task, of labels by number or of values."""
    classes = registry.get(f"glue/{task}").classes

    def named(values):
        return values if task == "STS-B" else [classes[int(value)] for value in values]

    worths = [{"score": x} if task == "STS-B" else {x: 1.0} for x in named(right)]
    entries = [Entry(number, worth=worth) for number, worth in enumerate(worths)]
    return registry.get(f"glue/{task}").metrics(entries, dict(enumerate(named(answers))))


def test_glue_metrics_by_hand():
    right, predicted = [1, 1, 1, 0, 0], [1, 1, 0, 1, 0]
    # 2 true, 1 false positive, 1 false negative, 1 true negative
    assert glue("MRPC", right, predicted) == pytest.approx({"f1": 2 / 3, "accuracy": 3 / 5})
    matthews = (2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2)
    assert glue("CoLA", right, predicted) == pytest.approx({"matthews": matthews})
    found = glue("STS-B", [0.0, 1.0, 2.0, 5.0], [1.0, 1.0, 3.0, 2.0])
    # Ranks 1 2 3 4 and 1.5 1.5 4 3; deviations -1.5 -.5 .5 1.5 and -1 -1 1.5 .5.
    assert found["spearman"] == pytest.approx(3.5 / math.sqrt(5 * 4.5))
    # Deviations -2 -1 0 3 and -.75 -.75 1.25 .25.
    assert found["pearson"] == pytest.approx(3 / math.sqrt(14 * 2.75))


@pytest.mark.parametrize("seed", range(60))
def test_glue_metrics_are_those_of_a_table_of_confusions(seed):
    rng = np.random.default_rng(seed)
    count, shares = rng.integers(1, 40), rng.choice([0, 0.1, 0.5, 1], 2)
    right, predicted = ((rng.random(count) < share).astype(int) for share in shares)
    tp, fp = sum(right & predicted), sum((1 - right) & predicted)
    fn, tn = sum(right & (1 - predicted)), sum((1 - right) & (1 - predicted))
    precision, recall = tp / (tp + fp) if tp + fp else 0, tp / (tp + fn) if tp + fn else 0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0
    below = float(tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    matthews = (tp * tn - fp * fn) / math.sqrt(below) if below else 0
    accuracy = (tp + tn) / count
    assert glue("CoLA", right, predicted) == pytest.approx({"matthews": matthews})
    for task in ("MRPC", "QQP"):
        assert glue(task, right, predicted) == pytest.approx({"f1": f1, "accuracy": accuracy})
    for task in ("SST-2", "QNLI", "RTE", "WNLI"):
        assert glue(task, right, predicted) == pytest.approx({"accuracy": accuracy})
    three = rng.integers(0, 3, (2, count))
    expected = {"accuracy": np.mean(three[0] == three[1])}
    assert glue("MNLI", *three) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(60))
def test_correlations_are_scipys(seed):
    rng = np.random.default_rng(seed)
    count = rng.integers(3, 50)
    right = rng.integers(0, 6, count) + rng.choice([0.0, 0.25])  # many ties
    right[:2] = 0, 5
    predicted = right * rng.normal() + rng.normal(size=count) * rng.choice([0.1, 1, 10])
    predicted = (np.round(predicted, 1) * 10.0 ** rng.integers(-4, 5)).astype(np.float32)
    if np.ptp(predicted) == 0:
        predicted[0] += 1
    found = glue("STS-B", right.tolist(), predicted.tolist())
    assert found["pearson"] == pytest.approx(stats.pearsonr(right, predicted.astype(float))[0])
    assert found["spearman"] == pytest.approx(stats.spearmanr(right, predicted)[0])


def test_a_constant_correlates_with_nothing():
    """Its mean may differ from it by rounding, which must not pass for a deviation."""
    for value in (0.1, 2.7, 1 / 3, 1e9 + 0.1):
        found = glue("STS-B", [0.3, 1.1, 4.2, 2.5, 0.7, 1.9], [value] * 6)
        assert found == {"spearman": 0, "pearson": 0}
    assert glue("STS-B", [1.0], [2.0]) == {"spearman": 0, "pearson": 0}
    assert glue("CoLA", [0, 1, 1], [1, 1, 1]) == {"matthews": 0}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_none_is_refused(value):
    with pytest.raises(UsageError, match="not finite"):
        glue("STS-B", [0.0, 1.0], [value, 1.0])


# ---- Retrieval -----------------------------------------------------------------------------------


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


def by_hand(scores, gains, k):
    """NDCG of one query: among equals the model is given the worst order."""
    order = sorted(range(len(scores)), key=lambda item: (-scores[item], gains[item]))
    total = best = 0.0
    for place, (item, gain) in enumerate(zip(order[:k], sorted(gains, reverse=True)), 2):
        total += gains[item] / math.log2(place)
        best += gain / math.log2(place)
    return total / best if best else 0.0


@pytest.mark.parametrize("seed", range(60))
def test_graded_and_plain_ranks_of_scores_at_random(seed):
    """Captions of few words, scores with ties and infinities, more and fewer items than k."""
    rng = np.random.default_rng(seed)

    def sentences(count):
        words = [*"abcdef", "Dog", "dog's"]
        return [" ".join(rng.choice(words, rng.integers(0, 6))) for _ in range(count)]

    queries, photos = (
        sentences(6),
        [sentences(rng.integers(1, 4)) for _ in range(rng.integers(1, 40))],
    )
    graded = relevance.rouge_l(queries, photos)
    for row, query in zip(graded, queries):
        for found, captions in zip(row, photos):
            asked, said = query.lower().split(), [text.lower().split() for text in captions]
            common = [longest_common(asked, text) for text in said]
            precision = max(common) / max(len(asked), 1)
            recall = max(n / max(len(text), 1) for n, text in zip(common, said))
            expected = f_measure(precision, recall) if max(common) else 0
            assert found == pytest.approx(expected, rel=1e-6)
    scores = rng.integers(0, 5, graded.shape).astype(np.float32)
    scores[rng.random(scores.shape) < 0.05] = -np.inf
    k = int(rng.choice([1, 3, 25]))
    gains = 2.0 ** graded.astype(float) - 1
    expected = [by_hand(*row, k) for row in zip(scores.tolist(), gains.tolist())]
    np.testing.assert_allclose(relevance.ndcg(scores, graded, k=k), expected, rtol=1e-9)

    right = rng.integers(0, len(photos), len(queries))
    relevant = right[:, None] == np.arange(len(photos))
    ahead = [sum(row >= row[item]) for row, item in zip(scores, right)]  # itself among them
    found = ranking.summary(ranking.ranks(scores, relevant))
    middle = (sorted(ahead)[2] + sorted(ahead)[3]) / 2
    shares = {f"r@{k}": sum(rank <= k for rank in ahead) / 6 for k in (1, 5, 10)}
    mean = sum(ahead) / 6
    assert found == pytest.approx({**shares, "median_rank": middle, "mean_rank": mean})
