"""Answers of a model to a task's questions, by the task's own metric and in its own file."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mmt_jax import placement
from mmt_jax.configs.config import Config
from mmt_jax.configs.tasks import GLUE, PAIR, TASKS, TaskConfig
from mmt_jax.data import sources
from mmt_jax.errors import UsageError
from mmt_jax.infer.retrieval import check_width
from mmt_jax.models.base import Model
from mmt_jax.objectives import answers
from mmt_jax.tasks import glue_metric as glue
from mmt_jax.tasks import gqa_metric as gqa
from mmt_jax.tasks import nlvr2_metric as nlvr2
from mmt_jax.tasks import predictions, readers
from mmt_jax.tasks import snli_ve_metric as snli_ve
from mmt_jax.tasks import vqa_metric as vqa
from mmt_jax.tasks.readers import Entry
from mmt_jax.tasks.records import Records
from mmt_jax.tasks.snli_ve import LABELS
from mmt_jax.text.base import Tokenizer
from mmt_jax.typing import Batch, Params

Answers = Mapping[Any, Any]  # key of an entry → the answer, as the task has it


@dataclasses.dataclass(frozen=True)
class Row:
    """A task's rules.

    Attributes:
      answer: a label's name → the answer as its files have it.
      metrics: examples and answers → values by name, the first of which counts.
      write: makes a file of answers.
    """

    answer: Callable[[str], Any]
    metrics: Callable[[Sequence[Any], Answers], dict[str, float]]
    write: Callable[[str | os.PathLike, Answers], None]


def answering(model: Model, task: str, names: Sequence[str]) -> Model:
    """A model as it answers the questions of a task; imported weights have a head and no task.

    Raises:
      UsageError: it was trained on another task, has no head, or one of another size.
    """
    config = model.config
    trained, size = config.task.name, config.model.num_answers
    fits = trained == task or (not trained and TASKS[task].reads == PAIR)
    if not size or not fits:
        was = f"was trained on {trained}" if trained else f"has no head for {task}"
        raise UsageError(
            f"{config.tag or 'this model'} {was}; train it with experiments/tasks.py:{task}"
        )
    if size != len(names):
        raise UsageError(f"the model has {size} answers, but {len(names)} are listed")
    asked = dataclasses.replace(config.task, name=task)
    return dataclasses.replace(model, config=dataclasses.replace(config, task=asked))


def answered(
    model: Model,
    params: Params,
    records: Records,
    names: Sequence[str],
    *,
    batch_size: int = 64,
) -> dict[Any, Any]:
    """The likeliest answer to each entry, by its key (of STS-B the number).

    Args:
      model: of the task.
      params: its parameters.
      records: N entries.
      names: labels by number.
      batch_size: entries answered at once.
    """
    task = model.config.task.name
    rows = np.arange(-(-len(records) // batch_size) * batch_size) % len(records)
    params, whole, _ = placement.of(params)
    parts = []
    for part in rows.reshape(-1, min(batch_size, len(rows))):
        batch = placement.put(_inputs(records.batch(part)), whole)
        parts.append(np.asarray(jax.device_put(_logits(model, params, batch), whole)))
    logits = np.concatenate(parts)[: len(records)]
    if TASKS[task].loss == "value":
        found = logits[:, 0].tolist()
    else:
        found = [ROWS[task].answer(names[int(best)]) for best in logits.argmax(axis=-1)]
    return {entry.key: value for entry, value in zip(records.entries, found)}


def _inputs(batch: Batch) -> Batch:
    return dataclasses.replace(batch, targets=None)


@functools.partial(jax.jit, static_argnums=0)
def _logits(model: Model, params: Params, batch: Batch) -> jax.Array:
    return answers.logits(model, params, batch)


def evaluate(task: str, entries: Sequence[Entry], found: Answers) -> dict[str, float]:
    """The task's metric of answers, each in 0..1 but for correlations.

    Raises:
      UsageError: answers are missing or too many, or nobody has answered the entries.
    """
    known(task)
    return ROWS[task].metrics([entry.example for entry in entries], found)


def write(task: str, path: str | os.PathLike, found: Answers) -> None:
    """Writes answers as the task's server or official script takes them.

    Raises:
      UsageError: the file exists.
    """
    known(task)
    ROWS[task].write(path, found)


def known(task: str) -> None:
    """Refuses a task without a metric.

    Raises:
      UsageError: naming those that there are.
    """
    if task not in ROWS:
        raise UsageError(f"there is no metric of {task or 'no task'}; there are {', '.join(ROWS)}")


def evaluator(
    config: Config, tokenizer: Tokenizer, names: Sequence[str]
) -> Callable[[Model, Params], dict[str, float]] | None:
    """What the loop calls while training; None where the config names nothing to evaluate on.

    Args:
      config: of the run, sizes filled in.
      tokenizer: the run's.
      names: labels by number.

    Raises:
      UsageError: the questions cannot be read, some have no published answer, or their metric is
        not `config.eval.best`.
    """
    task = config.task
    if task.eval_questions is None or task.name not in ROWS:
        return None
    entries = readers.read(task.name, task.eval_questions, task.eval_annotations)
    entries = entries[: config.eval.limit or None]
    _check_metric(task, entries, config.eval.best)

    @functools.cache
    def records() -> Records:
        corpora = []
        if {"text", "image"} <= set(TASKS[task.name].reads):
            corpora = sources.load(*sources.eval_source(config), pixels=config.model.pixels)
            if not config.model.pixels:
                check_width(corpora[0].feature_dim, config.model.feature_dim)
        return Records(config, entries, names, tokenizer, corpora)

    def evaluation(model: Model, params: Params) -> dict[str, float]:
        return evaluate(task.name, entries, answered(model, params, records(), names))

    return evaluation


def _check_metric(task: TaskConfig, entries: Sequence[Entry], best: str) -> None:
    """Refuses, before training, what an evaluation would refuse after hours of it."""
    right = {}
    for entry in entries:
        if entry.worth is None:
            raise UsageError(
                f"{task.eval_questions} has no answer to {entry.key}, as in test splits; evaluate "
                f"on a split that has them, or leave config.task.eval_questions unset"
            )
        label = max(entry.worth, key=entry.worth.__getitem__, default="")
        of_value = TASKS[task.name].loss == "value"
        right[entry.key] = entry.worth[label] if of_value else ROWS[task.name].answer(label)
    metrics = evaluate(task.name, entries, right)
    if best not in metrics:
        raise UsageError(
            f"config.eval.best={best!r} cannot choose a checkpoint; {task.name} has "
            f"{', '.join(metrics)}"
        )


def _accuracy(classes: Sequence[str], found: Answers) -> dict[str, float]:
    """CIFAR's."""
    predictions.check(range(len(classes)), found)
    return predictions.means(("", float(found[n] == name)) for n, name in enumerate(classes))


def _write_classes(path: str | os.PathLike, found: Answers) -> None:
    """CIFAR's, as Kaggle takes them: photos count from 1."""
    lines = [f"{number + 1},{name}\n" for number, name in found.items()]
    predictions.write(path, "id,label\n" + "".join(lines))


def _write_labels(path: str | os.PathLike, found: Answers) -> None:
    """SNLI-VE's: nobody has published a form, so it has the names of the data set's files."""
    rows = ({"pairID": key, "gold_label": LABELS[label]} for key, label in found.items())
    predictions.write_rows(path, rows)


def _glue(task: str) -> Row:
    classes = readers.glue.TASKS[task].classes

    def metrics(examples: Sequence[Any], found: Answers) -> dict[str, float]:
        return glue.evaluate(task, examples, list(found.values()))

    def write(path: str | os.PathLike, found: Answers) -> None:
        glue.write(path, task, list(found.values()))

    return Row(classes.index, metrics, write)


ROWS: dict[str, Row] = {
    "vqa": Row(str, vqa.evaluate, vqa.write),
    "gqa": Row(str, gqa.evaluate, gqa.write),
    "nlvr2": Row("True".__eq__, nlvr2.evaluate, nlvr2.write),
    "snli_ve": Row(LABELS.index, snli_ve.evaluate, _write_labels),
    "cifar": Row(str, _accuracy, _write_classes),
    **{f"glue/{name}": _glue(name) for name in GLUE},
}
