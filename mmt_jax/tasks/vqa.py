"""VQAv2 (Goyal et al., 2017, arXiv 1612.00837): questions with ten annotators' answers to each.

What answers count as the same, and what they are worth, is as in the official evaluation (Antol et
al., 2015, arXiv 1505.00468; GT-Vision-Lab/VQA on GitHub, as of March 2021).
"""

from __future__ import annotations

import collections
import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mmt_jax import readers as files
from mmt_jax.errors import UsageError
from mmt_jax.tasks import base
from mmt_jax.tasks.base import Entry

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGITS_WITH_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")  # not the point of a decimal number
_PERIODS = 32  # no more than these go: the official script gives a flag where a count is meant
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


@functools.lru_cache(maxsize=1 << 17)  # annotators repeat each other
def normalise(answer: str) -> str:
    """The normal form of an answer.

    Punctuation goes (or becomes a blank where it stands between letters), then letters become
    small, number words up to ten figures, articles go and contractions get their apostrophe back.
    """
    answer = result = _plain(answer)
    number = _DIGITS_WITH_COMMA.search(answer)
    for mark in _PUNCTUATION:
        alone = f"{mark} " in answer or f" {mark}" in answer
        result = result.replace(mark, "" if alone or number else " ")
    words = _PERIOD.sub("", result, count=_PERIODS).lower().split()
    words = [_NUMBERS.get(word, word) for word in words]
    return " ".join(_APOSTROPHES.get(word, word) for word in words if word not in _ARTICLES)


def _plain(answer: str) -> str:
    """The form of answers that are compared to the letter."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def accuracy(prediction: str, answers: Sequence[str]) -> float:
    """What a predicted answer is worth, in 0..1.

    If all annotators gave the same answer, it must be that to the letter; else the normal forms
    count. An answer that n of the others gave is worth min(n / 3, 1), averaged over leaving out
    each annotator in turn: of ten, 1, 2, 3 and 4 equal answers are worth .3, .6, .9 and 1.
    """
    form, worth = _agreement(answers)
    return worth.get(form(prediction), 0.0)


def _agreement(answers: Sequence[str]) -> tuple[Callable[[str], str], Mapping[str, float]]:
    """The form in which answers to a question are compared, and what each is worth in that form."""
    form = _plain if len({_plain(answer) for answer in answers}) == 1 else normalise
    total = len(answers)
    return form, {
        answer: ((total - n) * min(n / 3, 1) + n * min((n - 1) / 3, 1)) / total
        for answer, n in collections.Counter(map(form, answers)).items()
    }


def read(
    questions: str | os.PathLike, annotations: str | os.PathLike | None = None
) -> Iterator[Entry]:
    """Reads a split as published, or as LXMERT publishes it (`minival.json`), answers scored.

    Args:
      questions: such as `v2_OpenEnded_mscoco_val2014_questions.json`.
      annotations: the answers of the same split (`v2_mscoco_val2014_annotations.json`), which are
        held in memory; None for test splits, and for LXMERT's, which have theirs in them.
    """
    return _lxmert(questions) if files.is_list(questions) else _published(questions, annotations)


def _published(
    questions: str | os.PathLike, annotations: str | os.PathLike | None
) -> Iterator[Entry]:
    answered = {} if annotations is None else _annotations(annotations)
    for where, _, entry in files.json_entries(questions, "questions"):
        number = files.field(entry, "question_id", int, where)
        photo = files.field(entry, "image_id", int, where)
        text = files.field(entry, "question", str, where)
        if annotations is not None and number not in answered:
            raise UsageError(
                f"{where}: question {number} has no answers in {annotations}; give the "
                f"annotations of the same split"
            )
        yield Entry(number, (text,), (photo,), where=where, **answered.pop(number, {}))
    if answered:
        raise UsageError(
            f"{questions} lacks question {next(iter(answered))}, which {annotations} answers; give "
            f"the files of the same split"
        )


def _annotations(path: str | os.PathLike) -> dict[int, dict[str, Any]]:
    """Fields of entries by question."""
    found = {}
    for where, _, entry in files.json_entries(path, "annotations"):
        rows = files.field(entry, "answers", list, where)
        if not rows:
            raise UsageError(f"{where}: `answers` must hold an object for each annotator")
        form, worth = _agreement([files.field(row, "answer", str, where) for row in rows])
        consensus = files.field(entry, "multiple_choice_answer", str, where)
        found[files.field(entry, "question_id", int, where)] = {
            "worth": worth,
            "form": form,
            "kind": files.field(entry, "answer_type", str, where),
            "consensus": consensus if form is normalise else next(iter(worth)),
        }
    return found


_COCO_NAME = re.compile(r"COCO_\w+_(\d{12})")


def _lxmert(path: str | os.PathLike) -> Iterator[Entry]:
    for where, _, entry in files.json_entries(path):
        name = files.field(entry, "img_id", str, where)
        if not (match := _COCO_NAME.fullmatch(name)):
            raise UsageError(
                f"{where}: `img_id` is {name!r}; it must be like COCO_val2014_000000393267"
            )
        yield Entry(
            files.field(entry, "question_id", int, where),
            (files.field(entry, "sent", str, where),),
            (int(match[1]),),
            scored(files.field(entry, "label", dict, where), where) if "label" in entry else None,
            normalise,
            entry.get("answer_type", ""),
            where=where,
        )


def scored(worth: Mapping[str, Any], where: str) -> dict[str, float]:
    """Answers that somebody has scored, in normal form; of those that become one, the best."""
    found: dict[str, float] = {}
    for answer, value in worth.items():
        if not isinstance(value, int | float):
            raise UsageError(f"{where}: `{answer}` must be a number, not {value!r}")
        found[normalise(answer)] = max(value, found.get(normalise(answer), 0.0))
    return found


# With 9, VQAv2's train and validation questions give the field's 3,129 classes (Teney et al., 2017,
# arXiv 1708.02711).
listed = functools.partial(base.frequent, form=normalise)

TASKS = {
    "vqa": base.Task(read, base.rows("question_id", "answer"), listed=listed, annotations=True)
}
