"""GLUE (Wang et al., 2019, arXiv 1804.07461): nine tasks on one or two sentences."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy import stats

from mmt_jax import readers as files
from mmt_jax.configs import tasks as rows
from mmt_jax.errors import UsageError
from mmt_jax.tasks import base

_BINARY = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")
VALUE = "score"  # what stands for the label where a number is asked for


@dataclasses.dataclass(frozen=True)
class Table:
    """What a task's tables hold."""

    sentences: tuple[str, ...]  # names of the columns with the one or two sentences
    label: str = "label"  # that of the label
    classes: tuple[str, ...] = _BINARY  # the labels; () = the label is a number
    also: tuple[str, ...] = ()  # metrics reported beside that of the task's row in `configs.tasks`
    header: tuple[str, ...] = ()  # where the first line does not name the columns, as in CoLA
    gaps: bool = False  # whether published tables hold broken lines, which are left out; QQP's do


_TWO = ("sentence1", "sentence2")
_NLI = ("contradiction", "entailment", "neutral")
TABLES = {
    "CoLA": Table(("sentence",), header=("source", "label", "mark", "sentence")),
    "SST-2": Table(("sentence",)),
    "MRPC": Table(("#1 String", "#2 String"), "Quality", also=("accuracy",)),
    "STS-B": Table(_TWO, "score", (), ("pearson",)),
    "QQP": Table(("question1", "question2"), "is_duplicate", also=("accuracy",), gaps=True),
    "MNLI": Table(_TWO, "gold_label", _NLI),
    "QNLI": Table(("question", "sentence"), classes=_ENTAILMENT),
    "RTE": Table(_TWO, classes=_ENTAILMENT),
    "WNLI": Table(_TWO),
}


def read(path: str | os.PathLike, *, task: str) -> Iterator[base.Entry]:
    """Reads a table as published, such as `RTE/dev.tsv`; without labels it is a test table."""
    about, table = TABLES[task], files.lines(path)
    first = next(table, None)
    if first is None:
        raise UsageError(f"{path} is empty; download it again")
    names = first[1].split("\t")
    if about.header and not set(about.sentences) <= set(names):
        names, table = list(about.header), itertools.chain([first], table)
    missing = [name for name in about.sentences if name not in names]
    if missing:
        raise UsageError(
            f"{path} has no column {missing[0]!r}, which {task} has; it has {', '.join(names)}"
        )
    columns = [names.index(name) for name in about.sentences]
    number = 0
    for where, line in table:
        cells = line.split("\t")
        if len(cells) == len(names):
            sentences = tuple(cells[column] for column in columns)
            labelled = about.label in names
            worth = _worth(about, cells[names.index(about.label)], where) if labelled else None
            yield base.Entry(number, sentences, worth=worth, where=where)
            number += 1
        elif not about.gaps:
            raise UsageError(
                f"{where}: {len(cells)} columns, but the table has {len(names)}; download it again"
            )


def _worth(about: Table, cell: str, where: str) -> dict[str, float]:
    if cell in about.classes:
        return {cell: 1.0}
    with contextlib.suppress(ValueError):
        if not about.classes and math.isfinite(value := float(cell)):
            return {VALUE: value}
    wanted = " or ".join(about.classes) or "a number"
    raise UsageError(f"{where}: `{about.label}` is {cell!r}; it must be {wanted}")


def metrics(entries: Sequence[base.Entry], found: base.Answers, *, task: str) -> dict[str, float]:
    """The metrics that the benchmark reports for a task of `TABLES`; see `base.check`."""
    base.check(entries, found)
    about = TABLES[task]
    right = [entry.best if about.classes else entry.value(VALUE) for entry in entries]
    pair = right, [found[entry.key] for entry in entries]
    labels, predicted = (
        np.array([about.classes.index(x) if about.classes else x for x in side], float)
        for side in pair
    )
    if not np.isfinite(predicted).all():
        raise UsageError(f"an answer to {task} is not finite, which no metric can tell")
    names = (rows.TASKS[f"glue/{task}"].metric, *about.also)
    return {name: METRICS[name](labels, predicted) for name in names}


def _written(found: base.Answers, *, task: str) -> str:
    """The table that the benchmark's server takes."""
    names = found if TABLES[task].classes else {key: f"{x:.3f}" for key, x in found.items()}
    return "index\tprediction\n" + "".join(f"{key}\t{name}\n" for key, name in names.items())


def f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Harmonic mean of precision and recall of class 1; 0 where neither has any."""
    both = np.sum((labels == 1) & (predicted == 1))
    either = np.sum(labels == 1) + np.sum(predicted == 1)
    return float(2 * both / either) if either else 0.0


def pearson(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Pearson's correlation; 0 where one side is constant."""
    if np.ptp(labels) == 0 or np.ptp(predicted) == 0:  # rounding would make a correlation of it
        return 0.0
    a, b = labels - labels.mean(), predicted - predicted.mean()
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))


def spearman(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Pearson's correlation of the ranks; equals share the mean of theirs."""
    return pearson(stats.rankdata(labels), stats.rankdata(predicted))


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": lambda labels, predicted: float(np.mean(labels == predicted)),
    "f1": f1,
    "matthews": pearson,  # Matthews' correlation (1975) of two classes is Pearson's of 0 and 1
    "pearson": pearson,
    "spearman": spearman,
}

TASKS = {
    f"glue/{task}": base.Task(
        functools.partial(read, task=task),
        functools.partial(_written, task=task),
        functools.partial(metrics, task=task),
        classes=table.classes or (VALUE,),
    )
    for task, table in TABLES.items()
}
