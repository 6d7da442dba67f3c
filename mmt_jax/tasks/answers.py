"""Answers to questions about pictures: their normal form, and what agreement makes them worth.

The rules are those of the official VQA evaluation (Antol et al., 2015, arXiv 1505.00468; its code
is GT-Vision-Lab/VQA): they decide which answers count as the same.
"""

from __future__ import annotations

import collections
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmt_jax.errors import UsageError

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGITS_WITH_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")  # not the point of a decimal number
_ARTICLES = {"a", "an", "the"}
_NUMBERS = {word: str(number) for number, word in enumerate(
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
)} | {"none": "0"}  # fmt: skip

# Words that are also something else without their apostrophe (we'll, he'll, she'd) are not among
# them.
_CONTRACTIONS = """
  ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
  haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
  might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
  shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
  someone's something'd something'd've something'll that's there'd there'd've there're there's
  they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
  what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's
  won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()  # noqa: SIM905
_APOSTROPHES = {
    word[:at] + word[at + 1 :]: word
    for word in _CONTRACTIONS
    for at, letter in enumerate(word)
    if letter == "'"
} | {"somebody'd": "somebodyd"}  # the one row of the official table that takes it away


def normalise(answer: str) -> str:
    """The normal form of a predicted answer.

    Punctuation goes (or becomes a blank where it stands between letters), then letters become
    small, number words up to ten figures, articles go and contractions get their apostrophe back.
    """
    words = [_NUMBERS.get(word, word) for word in without_punctuation(answer).lower().split()]
    return " ".join(_APOSTROPHES.get(word, word) for word in words if word not in _ARTICLES)


def without_punctuation(answer: str) -> str:
    """The first half of `normalise`, which is all that annotators' answers get."""
    answer = answer.replace("\n", " ").replace("\t", " ").strip()
    result, number = answer, _DIGITS_WITH_COMMA.search(answer)
    for mark in _PUNCTUATION:
        alone = f"{mark} " in answer or f" {mark}" in answer
        result = result.replace(mark, "" if alone or number else " ")
    return _PERIOD.sub("", result)


def soft_scores(annotated: Sequence[str]) -> dict[str, float]:
    """What each answer of a question is worth, in 0..1, by how many annotators gave it.

    An answer that n of the others gave is worth min(n / 3, 1), averaged over leaving out each
    annotator in turn: with ten of them, 1, 2, 3 and 4 equal answers are worth .3, .6, .9 and 1.
    """
    if len(set(annotated)) > 1:
        annotated = [without_punctuation(answer) for answer in annotated]
    total = len(annotated)
    return {
        answer: ((total - n) * min(n / 3, 1) + n * min((n - 1) / 3, 1)) / total
        for answer, n in collections.Counter(annotated).items()
    }


def frequent(consensus: Iterable[str], least: int = 9) -> tuple[str, ...]:
    """The classes of an answer head: answers that `least` or more questions have as consensus.

    The most frequent come first, equals by alphabet. With 9, VQAv2's train and validation
    questions give the field's 3,129 classes (Teney et al., 2017, arXiv 1708.02711).
    """
    counts = collections.Counter(map(normalise, consensus))
    kept = [answer for answer, count in counts.items() if count >= least]
    return tuple(sorted(kept, key=lambda answer: (-counts[answer], answer)))


def read_classes(path: str | os.PathLike) -> tuple[str, ...]:
    """The classes of an answer head by number, from a JSON list such as LXMERT's label2ans.json.

    Its list of pre-training, all_ans.json, has each answer as the `ans` of an object.

    Raises:
      UsageError: the file is not such a list, or has an answer twice.
    """
    try:
        with open(path, encoding="utf-8") as file:
            classes = json.load(file)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path}: not JSON ({error})") from None
    names: list[Any] = [None]
    if isinstance(classes, list):
        names = [each.get("ans") if isinstance(each, dict) else each for each in classes]
    if not all(isinstance(name, str) for name in names):
        raise UsageError(f"{path} must be a JSON list of answers, such as trainval_label2ans.json")
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise UsageError(f"{path} has the answer {twice[0]!r} twice")
    return tuple(names)


def targets(scores: Sequence[Mapping[str, float]], classes: Sequence[str]) -> np.ndarray:
    """Soft targets [B, A] f32 of B questions' `scores`; answers that are no class are left out."""
    number = {answer: column for column, answer in enumerate(classes)}
    rows = np.zeros((len(scores), len(classes)), np.float32)
    for row, worth in zip(rows, scores, strict=True):
        for answer, value in worth.items():
            if answer in number:
                row[number[answer]] = value
    return rows
