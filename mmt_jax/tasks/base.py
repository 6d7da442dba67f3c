"""What every task is made of: entries, what answers to them are worth, and files of answers."""

from __future__ import annotations

import collections
import dataclasses
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmt_jax.errors import UsageError

Answers = Mapping[Any, Any]  # key of an entry → a label, or the number that is asked for


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One record: what is shown and asked, and what answers are worth."""

    key: int | str  # names it in files of answers
    sentences: tuple[str, ...] = ()  # none, one or two
    photos: tuple[int | str, ...] = ()  # names or ids of what it shows, in order
    # Answer → what it is worth in 0..1, or the one label → the number that is asked for; {} = none
    # is worth anything, None = nobody has published what is right.
    worth: Mapping[str, float] | None = None
    form: Callable[[str], str] = str  # of an answer, by which it is found in `worth`
    kind: str = ""  # of the question, for metrics by kind
    consensus: str = ""  # the answer that counts for lists of the frequent ones; "" = the worthiest
    counts: bool = True  # whether metrics count it
    pixels: np.ndarray | None = None  # [H, W, 3] uint8 of a task that brings its photos along
    where: str = dataclasses.field(default="", compare=False)  # file and line it was read from

    def value(self, answer: str) -> float:
        """What an answer is worth, to the metric and as a target of training alike."""
        return (self.worth or {}).get(self.form(answer), 0.0)

    @property
    def best(self) -> str:
        """The worthiest answer; "" where none is worth anything."""
        worth = self.worth or {}
        return max(worth, key=worth.__getitem__, default="")


def accuracy(entries: Sequence[Entry], found: Answers) -> dict[str, float]:
    """`accuracy`, what answers are worth on average, and that of each kind; see `check`."""
    check(entries, found)
    kinds: dict[str, list[float]] = {}
    for entry in filter(lambda entry: entry.counts, entries):
        kinds.setdefault(entry.kind, []).append(entry.value(found[entry.key]))
    total = statistics.fmean(value for values in kinds.values() for value in values)
    return {"accuracy": total} | {k: statistics.fmean(kinds[k]) for k in sorted(kinds) if k}


def check(entries: Sequence[Entry], found: Answers) -> None:
    """Refuses answers that cannot be scored.

    Raises:
      UsageError: there is no entry that counts, answers are missing or too many, or nobody has
        published what is right; the first of these is named.
    """
    if not any(entry.counts for entry in entries):
        raise UsageError("there is no example to evaluate")
    keys = {entry.key for entry in entries}
    apart = {"missing": keys - found.keys(), "of no example": found.keys() - keys}
    for problem, names in apart.items():
        if names:
            raise UsageError(
                f"{len(names)} answers are {problem}, such as that to {min(names)!r}; there must "
                f"be one to each of the {len(keys)} examples"
            )
    for entry in entries:
        if entry.worth is None:
            raise UsageError(
                f"{entry.where}: {entry.key} has no published answer, as in test splits; send the "
                f"answers to the task's server, or evaluate on a split that has them"
            )


def frequent(
    entries: Sequence[Entry], least: int, form: Callable[[str], str] = str
) -> tuple[str, ...]:
    """Answers that `least` or more entries have as consensus, the most frequent first.

    Answers of one form are one, and equally frequent ones stand by alphabet. An answer is spelled
    as it is in most of those of its entries that take it to the letter, else in that form.
    """
    counts: collections.Counter[str] = collections.Counter()
    spelled: dict[str, collections.Counter[str]] = {}
    for entry in entries:
        if entry.worth:
            answer = entry.consensus or entry.best
            counts[common := form(answer)] += 1
            own = spelled.setdefault(common, collections.Counter())
            if entry.form is not form:
                own[answer] += 1

    def ordered(counted: collections.Counter[str]) -> list[str]:
        return sorted(counted, key=lambda answer: (-counted[answer], answer))

    kept = [answer for answer in ordered(counts) if counts[answer] >= least]
    return tuple(next(iter(ordered(spelled[answer])), answer) for answer in kept)


@dataclasses.dataclass(frozen=True)
class Task:
    """What a task's file says of it."""

    # The published file of questions and, if `annotations`, that of answers → entries. Raises
    # UsageError where one cannot be read, an entry lacks something, or they are of two splits.
    read: Callable[..., Iterator[Entry]]
    # Answers → the text of a file as the task's server or official script takes it.
    written: Callable[[Answers], str] = str
    # By name, each in 0..1 but for correlations; that of the task's row in `configs.tasks` first.
    metrics: Callable[[Sequence[Any], Answers], dict[str, float]] = accuracy
    classes: tuple[str, ...] = ()  # the labels by number, where it has them from the start
    # Entries, and how often a label must be given → the labels, where it has not.
    listed: Callable[[Sequence[Entry], int], tuple[str, ...]] = frequent
    annotations: bool = False  # whether the answers may be in a file of their own


def rows(key: str, answer: str) -> Callable[[Answers], str]:
    """Writes answers as a JSON list of objects with these two fields."""

    def written(found: Answers) -> str:
        listed = [{key: name, answer: value} for name, value in found.items()]
        return json.dumps(listed, indent=1) + "\n"

    return written
