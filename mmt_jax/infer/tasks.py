"""Answers of a model to a task's questions, and how good they are while it trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mmt_jax.configs.config import Config
from mmt_jax.configs.tasks import PAIR, TASKS
from mmt_jax.data import sources
from mmt_jax.errors import UsageError
from mmt_jax.infer import retrieval
from mmt_jax.infer.predict import Predictor
from mmt_jax.models.base import Model
from mmt_jax.tasks import registry
from mmt_jax.tasks.records import Records
from mmt_jax.text.base import Tokenizer
from mmt_jax.typing import Params


def answering(model: Model, task: str, names: Sequence[str]) -> Model:
    """A model as it answers the questions of a task; imported weights have a head and no task.

    UsageError: it was trained on another task, has no head, or one of another size.
    """
    config = model.config
    trained, size = config.task.name, config.model.num_answers
    fits = trained == task or (not trained and TASKS[task].reads == PAIR)
    if not size or not fits:
        was = f"was trained on {trained}" if trained else f"has no head for {task}"
        raise UsageError(
            f"{config.tag or 'this model'} {was}; train it with --config=tasks:{task},model=NAME"
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
    """The likeliest label of each entry, by its key; where a number is asked for, that.

    `names` are labels by number. UsageError: the model's answers are not finite.
    """
    rows = np.arange(-(-len(records) // batch_size) * batch_size) % len(records)
    predictor = Predictor(model, params)
    parts = rows.reshape(-1, batch_size)
    logits = np.concatenate([predictor.answers(records.batch(part)) for part in parts])
    logits = logits[: len(records)]
    if not np.isfinite(logits).all():
        key = records.entries[np.argwhere(~np.isfinite(logits))[0, 0]].key
        raise UsageError(f"the model's answer to {key!r} is not finite, nor are its parameters")
    if TASKS[model.config.task.name].loss == "value":
        found = logits[:, 0].tolist()
    else:
        found = [names[best] for best in logits.argmax(axis=-1)]
    return {entry.key: value for entry, value in zip(records.entries, found)}


def evaluator(
    config: Config, tokenizer: Tokenizer, names: Sequence[str] | None
) -> Callable[[Model, Params], dict[str, float]] | None:
    """What the loop calls while training: the task's metric or, without one, retrieval.

    `names` are labels by number. None where the config names nothing to evaluate on.
    UsageError: the questions or their photos cannot be read, some have no published answer, or
    their metric is not `config.eval.best`.
    """
    if names is None:
        return retrieval.evaluator(config, tokenizer)
    task, row = config.task, TASKS[config.task.name]
    if task.eval_questions is None or not row.metric:
        return None
    entries = registry.read(task.name, task.eval_questions, task.eval_annotations)
    entries = entries[: config.eval.limit or None]
    # Refused now, and not after hours of training: what nobody has answered, and an unknown metric.
    metrics = registry.get(task.name).metrics
    right = {e.key: e.value(e.best) if row.loss == "value" else e.best for e in entries}
    if config.eval.best not in (found := metrics(entries, right)):
        raise UsageError(
            f"config.eval.best={config.eval.best!r} cannot choose a checkpoint; {task.name} has "
            f"{', '.join(found)}"
        )
    corpora = []
    if row.photos:
        photos = sources.eval_source(config)
        corpora = sources.load(*photos, pixels=config.model.pixels, bare=True)
    records = Records(config, entries, names, tokenizer, corpora, cache=config.data.cache)
    return lambda model, params: metrics(entries, answered(model, params, records, names))
