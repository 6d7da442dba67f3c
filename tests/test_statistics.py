"""What is said of corpora: counts, a language model by hand, and closeness to a target."""

import itertools
import json
import math

import numpy as np
import pytest

from mmt_jax.cli import main
from mmt_jax.corpus import Outline
from mmt_jax.data import sources
from mmt_jax.errors import UsageError
from mmt_jax.text import statistics
from mmt_jax.text.statistics import END, UNKNOWN, NGram, Target


def test_words_are_those_that_models_read():
    assert statistics.words("The  Café, it's 2") == ["the", "cafe", "it", "s", "2"]


def test_unigrams_by_hand():
    # a b </s>: 3 tokens of 3 types; the vocabulary has <unk> beside them, so uniform is 1/4.
    model = NGram(["a b"], order=1)
    assert model.vocabulary == {"a", "b", END, UNKNOWN}
    assert model.probability("a") == pytest.approx((1 + 3 / 4) / 6)
    assert model.probability("zebra") == model.probability(UNKNOWN) == pytest.approx(3 / 4 / 6)


def test_bigrams_and_perplexity_by_hand():
    # "a b", "a a": after a stand b, a and </s>, once each; 6 tokens, 3 types, so below that
    # p(b) = (1 + 3/4) / 9, p(</s>) = (2 + 3/4) / 9.
    model = NGram(["a b", "a a"], order=2)
    b, end = (1 + 3 / 4) / 9, (2 + 3 / 4) / 9
    assert model.probability("b", ("a",)) == pytest.approx((1 + 3 * b) / 6)
    assert model.probability(END, ("b",)) == pytest.approx((1 + end) / 2)
    assert model.probability("b", ("zebra",)) == pytest.approx(b)  # a context never seen
    first = (0 + b) / 3 * 1  # a caption began twice, always with a
    expected = [first, (1 + end) / 2]
    assert model.perplexity(["B"]) == pytest.approx(math.prod(expected) ** -0.5)


def test_probabilities_sum_to_one_after_anything():
    captions = ["a red dog runs", "a dog", "two red dogs run over a red hill", "dogs"]
    model = NGram(captions)
    words = ["a", "red", "dog", "hill", "zebra", UNKNOWN, "<s>"]
    for length in range(3):
        for context in itertools.product(words, repeat=length):
            total = sum(model.probability(word, context) for word in model.vocabulary)
            assert total == pytest.approx(1)


def test_similarity_by_hand():
    found = Target(["a red dog", "a dog"]).similarity(["a dog", "a cat"])
    assert found.unknown_words == pytest.approx(1 / 4)
    assert found.covered_types == pytest.approx(2 / 3)  # a and dog of a, red and dog
    assert found.covered_words == pytest.approx(4 / 5)
    assert found.jaccard == pytest.approx(2 / 4)


def test_the_target_is_closest_to_itself_and_shuffled_words_are_farther():
    captions = [f"a {color} dog runs over a {color} hill" for color in ("red", "green", "blue")]
    target = Target(captions)
    same = target.similarity(captions)
    assert (same.unknown_words, same.covered_types, same.jaccard) == (0, 1, 1)
    rng = np.random.default_rng(0)
    shuffled = [" ".join(rng.permutation(caption.split())) for caption in captions]
    other = target.similarity(shuffled)
    assert other.jaccard == 1
    assert other.perplexity > same.perplexity


@pytest.mark.parametrize("captions", [[], ["!", "…"]])
def test_nothing_said(captions):
    with pytest.raises(UsageError, match="target has no caption"):
        Target(captions)
    with pytest.raises(UsageError, match="corpus has no caption"):
        Target(["a dog"]).similarity(captions)


def test_summary_by_hand():
    one = Outline((("A dog.", "a red dog"), ("a cat",)), np.array([3, 0]))
    two = Outline((("two dogs",),), np.array([6]))
    assert statistics.summary([one, two]) == statistics.Summary(
        photos=3,
        captions=4,
        words=9,
        vocabulary=6,
        words_per_caption=9 / 4,
        longest_caption=3,
        regions_per_photo=3.0,
        most_regions=6,
    )


@pytest.mark.slow
def test_the_command(capsys):
    assert main.main(["data", "stats", "--data=scenes", "--split=val", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (outline,) = sources.outlines("scenes", "val")
    assert found["captions"] == len(list(outline.all_captions()))
    assert "perplexity" not in found
    line = ["data", "stats", "--data=scenes", "--split=val", "--target=scenes"]
    assert main.main([*line, "--target_split=val"]) == 0
    out = capsys.readouterr().out
    assert "perplexity" in out
    assert "jaccard            1" in out
    assert main.main(["data", "stats", "--data=scenes", "--target_split=val"]) == 2


def test_a_vocabulary_from_the_command_line(tmp_path, capsys):
    from mmt_jax.text import vocabulary

    captions = tmp_path / "captions.jsonl"
    lines = [{"image_id": n, "captions": [f"a red dog {n}", "two hills"]} for n in range(20)]
    captions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "spiece.model"
    line = ["data", "vocab", f"--captions={captions}", "--size=60", f"--out={out}"]
    assert main.main(line) == 0
    assert "of 40 captions" in capsys.readouterr().out
    assert vocabulary.load(out).encode("a red dog")
    content = out.read_bytes()
    assert main.main(line) == 2
    assert "is not overwritten" in capsys.readouterr().err
    assert out.read_bytes() == content


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--data=scenes"], "either --captions=FILE or --data=SOURCE"),
        (["--size=0"], "--size=0 is no number"),
        (["--kind=word"], "unknown kind"),
        (["--out=absent/v.model"], "there is no folder absent"),
    ],
)
def test_wrong_use_of_vocab(tmp_path, capsys, changes, message):
    captions = tmp_path / "captions.token"
    captions.write_text("1.jpg#0\ta dog\n")
    out = tmp_path / "v.model"
    line = ["data", "vocab", f"--captions={captions}", "--size=50", f"--out={out}", *changes]
    assert main.main(line) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
