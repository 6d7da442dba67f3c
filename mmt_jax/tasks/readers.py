"""Entries of tasks in one form, from each task's published files.

What the files are, by task (`config.task.questions`, and `annotations` for VQAv2's answers):

| task | questions |
|---|---|
| vqa | VQAv2's questions, or a split as LXMERT publishes it, which has the answers in it |
| gqa | GQA's questions |
| nlvr2, snli_ve | a split, one JSON object a line |
| glue/NAME | a table, such as `RTE/train.tsv` |
| cifar | the folder of the binary version, and after a colon the split: `cifar-100-binary:test` |
| lxmert | LXMERT's pre-training sentences, such as `mscoco_train.json` |
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmt_jax import readers as files
from mmt_jax.configs.tasks import GLUE
from mmt_jax.errors import UsageError
from mmt_jax.tasks import answers, cifar, glue, nlvr2, snli_ve, vqa


@dataclasses.dataclass(frozen=True)
class Entry:
    """One record.

    Attributes:
      key: names it in files of answers.
      sentences: none, one or two.
      photos: names or ids of what it shows, in order.
      worth: label → what answering with it is worth; {} = none is worth anything, None = unknown.
      example: the entry as the task's evaluator takes it.
      pixels: [H, W, 3] uint8 of a task that brings its photos along.
    """

    key: int | str
    sentences: tuple[str, ...]
    photos: tuple[int | str, ...]
    worth: Mapping[str, float] | None
    example: Any
    pixels: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Reader:
    """What is known of a task's files.

    Attributes:
      read: `questions` and `annotations` → entries.
      labels: entries, and how often an answer must be given → the answers by number.
    """

    read: Callable[[str, str | None], Iterator[Entry]]
    labels: Callable[[Sequence[Entry], int], tuple[str, ...]]


def read(name: str, questions: str | None, annotations: str | None = None) -> list[Entry]:
    """Entries of the task `name`.

    Raises:
      UsageError: no file is named, it has a fault, or it has no entry.
    """
    if questions is None:
        raise UsageError(
            f"the task {name} needs its published file: give config.task.questions, or --questions "
            f"of `mmt eval`"
        )
    entries = list(READERS[name].read(questions, annotations))
    if not entries:
        raise UsageError(f"{questions} has no entry; download it again")
    return entries


def _questions(questions: str, annotations: str | None) -> Iterator[Entry]:
    try:
        with files.open_text(questions) as file:
            listed = file.read(256).lstrip().startswith("[")
    except UnicodeDecodeError:
        raise UsageError(f"{questions} is not UTF-8; give the JSON file, unpacked") from None
    ours = vqa.read_lxmert(questions) if listed else vqa.read_vqa(questions, annotations)
    return map(_question, ours)


def _question(question: vqa.Question) -> Entry:
    return Entry(
        question.question_id, (question.text,), (question.image_id,), question.scores, question
    )


def _nlvr2(questions: str, annotations: str | None) -> Iterator[Entry]:
    del annotations
    for pair in nlvr2.read(questions):
        yield Entry(pair.identifier, (pair.text,), pair.image_ids, {str(pair.label): 1.0}, pair)


def _snli_ve(questions: str, annotations: str | None) -> Iterator[Entry]:
    del annotations
    for each in snli_ve.read(questions):
        worth = {snli_ve.LABELS[each.label]: 1.0}
        yield Entry(each.pair_id, (each.text,), (each.image_id,), worth, each)


def _glue(questions: str, annotations: str | None, *, task: str) -> Iterator[Entry]:
    del annotations
    classes = glue.TASKS[task].classes
    for number, example in enumerate(glue.read(task, questions)):
        worth = None
        if example.label is not None:
            worth = (
                {classes[int(example.label)]: 1.0} if classes else {"score": float(example.label)}
            )
        yield Entry(number, example.sentences, (), worth, example)


def _cifar(questions: str, annotations: str | None) -> Iterator[Entry]:
    del annotations
    folder, _, split = questions.rpartition(":")
    if split not in cifar.SPLITS:
        folder, split = questions, "train"
    photos = cifar.read(folder, split)
    for number, (pixels, label) in enumerate(zip(photos.pixels, photos.labels)):
        worth = {photos.classes[label]: 1.0}
        yield Entry(number, (), (number,), worth, photos.classes[label], pixels)


def _lxmert(questions: str, annotations: str | None) -> Iterator[Entry]:
    """Each sentence of each photo is an entry; those of question answering have answers."""
    del annotations
    number = 0
    for where, _, entry in files.json_entries(questions):
        photo = files.field(entry, "img_id", str, where)
        answered = entry.get("labelf", {})
        for source, sentences in files.field(entry, "sentf", dict, where).items():
            worths = answered.get(source, [{}] * len(sentences))
            if len(worths) != len(sentences):
                raise UsageError(
                    f"{where}: {len(sentences)} sentences of {source} and {len(worths)} answers"
                )
            for sentence, worth in zip(sentences, worths):
                yield Entry(number, (sentence,), (photo,), worth, None)
                number += 1


def _normalised(entries: Sequence[Entry], least: int) -> tuple[str, ...]:
    """VQA's: by the answer that is given most, which some files leave to be found."""
    return answers.frequent(
        (
            getattr(entry.example, "consensus", "") or max(entry.worth, key=entry.worth.__getitem__)
            for entry in entries
            if entry.worth
        ),
        least,
    )


def _to_the_letter(entries: Sequence[Entry], least: int) -> tuple[str, ...]:
    counts = collections.Counter(answer for entry in entries for answer in entry.worth or ())
    kept = [answer for answer, count in counts.items() if count >= least]
    return tuple(sorted(kept, key=lambda answer: (-counts[answer], answer)))


def _classes(entries: Sequence[Entry], least: int) -> tuple[str, ...]:
    """CIFAR's: those that occur, by alphabet, as published."""
    del least
    return tuple(sorted({entry.example for entry in entries}))


def _fixed(names: tuple[str, ...]) -> Callable[[Sequence[Entry], int], tuple[str, ...]]:
    return lambda entries, least: names


READERS: dict[str, Reader] = {
    "vqa": Reader(_questions, _normalised),
    "gqa": Reader(lambda path, _: map(_question, vqa.read_gqa(path)), _to_the_letter),
    "nlvr2": Reader(_nlvr2, _fixed(("False", "True"))),
    "snli_ve": Reader(_snli_ve, _fixed(snli_ve.LABELS)),
    "cifar": Reader(_cifar, _classes),
    **{
        f"glue/{name}": Reader(
            functools.partial(_glue, task=name), _fixed(glue.TASKS[name].classes or ("score",))
        )
        for name in GLUE
    },
    "lxmert": Reader(_lxmert, _normalised),
}
