"""Weights that were fine-tuned on a task: which one, and what their answers are called.

Published weights number their answers. What a number stands for is said by `id2label` in
`config.json`, by a file that came with them, or by the task itself.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmt_jax.configs.config import Config
from mmt_jax.configs.tasks import PAIR, TASKS
from mmt_jax.errors import UsageError
from mmt_jax.models import registry
from mmt_jax.tasks import labels as labels_lib
from mmt_jax.tasks import registry as tasks

TUNED_ON = "finetuning_task"  # where transformers' scripts write the task, in GLUE's case
UNNAMED = "LABEL_"  # and a number: what transformers writes where nobody gave a name
# What transformers' data sets call the classes that GLUE's tables number.
_CLASSES = {
    **dict.fromkeys(("label_0", "unacceptable", "negative"), "0"),
    **dict.fromkeys(("not_equivalent", "not_duplicate", "not_entailment"), "0"),
    **dict.fromkeys(("label_1", "acceptable", "positive"), "1"),
    **dict.fromkeys(("equivalent", "duplicate", "entailment"), "1"),
}
_GLUE = {
    name.removeprefix("glue/").replace("-", "").lower(): name
    for name in TASKS
    if name.startswith("glue/")
}


def asked(config: Config, foreign: Mapping[str, Any], task: str, *, name: str) -> Config:
    """The config with the task that its weights answer; without a head of answers, as it is.

    The weights may tell it, `config.json` and the user; `name` is what messages call the source.

    Raises:
      UsageError: the task is unknown, at odds with the weights, or not told where it must be.
    """
    if task and task not in TASKS:
        raise UsageError(f"--task={task} is unknown; there are {', '.join(TASKS)}")
    size = config.model.num_answers
    if task and not size:
        raise UsageError(
            f"{name} has no head that answers questions of {task}; take weights that were "
            f"fine-tuned on it, or leave --task out"
        )
    if not size:
        return config
    theirs = str(foreign.get(TUNED_ON)).replace("-", "").lower()
    told = config.task.name or _GLUE.get(theirs, "")
    if task and told and task != told:
        raise UsageError(f"{name} was fine-tuned on {told}, and not on {task}; leave --task out")
    if not (task or told) and PAIR not in registry.FAMILIES[config.model.family].answers_on:
        raise UsageError(
            f"{name} has a head of {size} answers and does not say to what; say it with --task, "
            f"such as --task=glue/RTE"
        )
    return dataclasses.replace(config, task=dataclasses.replace(config.task, name=task or told))


def saved(config: Config, labels: Sequence[str]) -> dict[str, Any]:
    """Fields of `config.json` that say what `asked` and `labels` read.

    Where no label is given they have numbers, for transformers counts them.
    """
    names = labels or [f"{UNNAMED}{number}" for number in range(config.model.num_answers or 0)]
    fields: dict[str, Any] = {}
    if names:
        fields["id2label"] = {str(number): name for number, name in enumerate(names)}
        fields["label2id"] = {name: number for number, name in enumerate(names)}
    for theirs, ours in _GLUE.items():
        if ours == config.task.name:
            fields[TUNED_ON] = theirs
    return fields


def labels(
    config: Config, foreign: Mapping[str, Any], given: str | os.PathLike | None, *, name: str
) -> tuple[str, ...]:
    """What the answers of weights are called, by number; () = not known, or there are none.

    The JSON list `given` counts before what `config.json` says.

    Raises:
      UsageError: a list that cannot be read, of another length, or not of the task's classes.
    """
    size, task = config.model.num_answers, config.task.name
    if given and not size:
        raise UsageError(f"--labels names answers, and {name} has no head of them; leave it out")
    if not size:
        return ()
    classes = tasks.get(task).classes if task else ()
    if classes and size != len(classes):
        raise UsageError(f"{name} has a head of {size} answers, and {task} has {len(classes)}")
    where, found = f"id2label of {name}/config.json", _named(foreign, size)
    if given:
        where, found = str(given), labels_lib.read(given)
        if len(found) != size:
            raise UsageError(f"{where} lists {len(found)} answers, and {name} has a head of {size}")
    if not classes:
        return () if all(name.startswith(UNNAMED) for name in found) else found
    # The releases number these as the field does, and the config beside them is another model's.
    if len(classes) == 1 or not (given or task.startswith("glue/")):
        return classes
    found = tuple(_class(name, classes) for name in found)
    if set(found) != set(classes):
        raise UsageError(
            f"{where} does not say which answer is which of {', '.join(classes)}; give a JSON list "
            f"of these, in the order of the weights, as --labels"
        )
    return found


def _named(foreign: Mapping[str, Any], size: int) -> tuple[str, ...]:
    """The labels of `config.json`, if it has as many; transformers leaves out those of its own."""
    if "id2label" not in foreign:
        return tuple(f"{UNNAMED}{number}" for number in range(size))
    found = foreign["id2label"]
    if not isinstance(found, Mapping) or len(found) != size:
        return ()
    names = [found.get(str(number)) for number in range(size)]
    told = tuple(name for name in names if isinstance(name, str))
    return told if len({*told}) == size else ()


def _class(label: str, classes: Sequence[str]) -> str:
    """The task's own name of a class."""
    plain = label.lower().replace(" ", "_").replace("-", "_")
    return plain if plain in classes else _CLASSES.get(plain, label)
