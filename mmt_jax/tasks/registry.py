"""Tasks by name, and what is done with each in the same way.

A task is a row of `mmt_jax.configs.tasks` and the entry of that name in `TASKS` of the module that
has its name up to the slash.
"""

from __future__ import annotations

import importlib
import os

from mmt_jax.configs.tasks import TASKS
from mmt_jax.errors import UsageError
from mmt_jax.files import check_new, whole
from mmt_jax.tasks.base import Answers, Entry, Task


def get(name: str) -> Task:
    """A task by name."""
    if name not in TASKS:
        raise UsageError(f"there is no task {name!r}; there are {', '.join(TASKS)}")
    return importlib.import_module(f"mmt_jax.tasks.{name.partition('/')[0]}").TASKS[name]


def scored(name: str) -> Task:
    """A task by name, which must not be for pre-training alone."""
    task = get(name)
    if not TASKS[name].metric:
        raise UsageError(f"{name} is for pre-training and has no metric; name another task")
    return task


def read(
    name: str, questions: str | os.PathLike | None, annotations: str | os.PathLike | None = None
) -> list[Entry]:
    """Entries of a task's published files, of which there must be some."""
    task = get(name)
    if questions is None:
        raise UsageError(
            f"the task {name} needs its published file: give config.task.questions, or --questions "
            f"of `mmt eval`"
        )
    if annotations and not task.annotations:
        raise UsageError(f"{name} has its answers beside its questions; leave {annotations} out")
    entries = list(task.read(questions, annotations) if annotations else task.read(questions))
    if not entries:
        raise UsageError(f"{questions} has no entry; download it again")
    return entries


def write(name: str, path: str | os.PathLike, found: Answers) -> None:
    """Writes answers as the task's server or official script takes them, to a new file."""
    text = scored(name).written(found)
    with whole(check_new(path)) as part:
        part.write_text(text, encoding="utf-8")
