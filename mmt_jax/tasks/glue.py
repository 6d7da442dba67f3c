"""GLUE (Wang et al., 2019, arXiv 1804.07461): nine tasks on one or two sentences."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Iterator

from mmt_jax import readers as files
from mmt_jax.errors import UsageError

_BINARY = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")


@dataclasses.dataclass(frozen=True)
class Task:
    """What a task's tables hold.

    Attributes:
      sentences: names of the columns with the one or two sentences.
      label: that of the label.
      classes: the labels; () = the label is a number.
      metrics: those that the benchmark reports (see `glue_metric`), the first chosen by.
      header: whether the first line of train and dev names the columns; CoLA's does not.
      gaps: whether published tables hold broken lines, which are left out; QQP's do.
    """

    sentences: tuple[str, ...]
    label: str
    classes: tuple[str, ...]
    metrics: tuple[str, ...]
    header: tuple[str, ...] = ()
    gaps: bool = False


_TWO = ("sentence1", "sentence2")
TASKS = {
    "CoLA": Task(
        ("sentence",),
        "label",
        _BINARY,
        ("matthews",),
        header=("source", "label", "mark", "sentence"),
    ),
    "SST-2": Task(("sentence",), "label", _BINARY, ("accuracy",)),
    "MRPC": Task(("#1 String", "#2 String"), "Quality", _BINARY, ("f1", "accuracy")),
    "STS-B": Task(_TWO, "score", (), ("spearman", "pearson")),
    "QQP": Task(("question1", "question2"), "is_duplicate", _BINARY, ("f1", "accuracy"), gaps=True),
    "MNLI": Task(_TWO, "gold_label", ("contradiction", "entailment", "neutral"), ("accuracy",)),
    "QNLI": Task(("question", "sentence"), "label", _ENTAILMENT, ("accuracy",)),
    "RTE": Task(_TWO, "label", _ENTAILMENT, ("accuracy",)),
    "WNLI": Task(_TWO, "label", _BINARY, ("accuracy",)),
}


@dataclasses.dataclass(frozen=True)
class Example:
    """One or two sentences and what is asked of them.

    Attributes:
      sentences: one or two.
      label: an index into the task's `classes`, or a number where it has none; None in test tables.
    """

    sentences: tuple[str, ...]
    label: int | float | None


def read(task: str, path: str | os.PathLike) -> Iterator[Example]:
    """Reads a table as published, such as `RTE/dev.tsv`.

    Args:
      task: a name in `TASKS`.
      path: of the table; one without a column of labels is a test table.

    Raises:
      UsageError: no such task, the file cannot be read, or a line is not what the task has.
    """
    if task not in TASKS:
        raise UsageError(f"GLUE has no task {task!r}; it has {', '.join(TASKS)}")
    about, table = TASKS[task], files.lines(path)
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
    label = names.index(about.label) if about.label in names else None
    for where, line in table:
        cells = line.split("\t")
        if len(cells) == len(names):
            value = None if label is None else _label(about, cells[label], where)
            yield Example(tuple(cells[column] for column in columns), value)
        elif not about.gaps:
            raise UsageError(
                f"{where}: {len(cells)} columns, but the table has {len(names)}; download it again"
            )


def _label(about: Task, cell: str, where: str) -> int | float:
    if about.classes and cell in about.classes:
        return about.classes.index(cell)
    try:
        if not about.classes and math.isfinite(value := float(cell)):
            return value
    except ValueError:
        pass
    wanted = " or ".join(about.classes) or "a number"
    raise UsageError(f"{where}: `{about.label}` is {cell!r}; it must be {wanted}")
