"""The labels of an answer head by number: targets of training, and files of labels."""

from __future__ import annotations

import collections
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mmt_jax.errors import UsageError, reading, trying
from mmt_jax.files import whole
from mmt_jax.tasks.base import Entry

FILE = "labels.json"  # of a workdir


class Targets:
    """Soft targets over the labels, of each what the metric would give for it."""

    def __init__(self, names: Sequence[str]):
        self._names = names
        self._columns: dict[Callable[[str], str], dict[str, list[int]]] = {}

    def __call__(self, entries: Sequence[Entry]) -> np.ndarray:
        """[B, A] f32 of B entries; answers that are no label are left out."""
        targets = np.zeros((len(entries), len(self._names)), np.float32)
        for row, entry in zip(targets, entries):
            if entry.form not in self._columns:
                columns = self._columns[entry.form] = {}
                for column, name in enumerate(self._names):
                    columns.setdefault(entry.form(name), []).append(column)
            for answer, worth in (entry.worth or {}).items():
                row[self._columns[entry.form].get(answer, [])] = worth
        return targets


def read(path: str | os.PathLike) -> tuple[str, ...]:
    """The labels by number, from a JSON list such as LXMERT's label2ans.json.

    Its list of pre-training, all_ans.json, has each answer as the `ans` of an object.

    Raises:
      UsageError: the file is not such a list, or has an answer twice.
    """
    with trying(f"{path}: not JSON"), reading(path):
        listed = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    names: list[Any] = [None]
    if isinstance(listed, list):
        names = [each.get("ans") if isinstance(each, dict) else each for each in listed]
    if not all(isinstance(name, str) for name in names):
        raise UsageError(f"{path} must be a JSON list of answers, such as trainval_label2ans.json")
    if twice := [name for name, count in collections.Counter(names).items() if count > 1]:
        raise UsageError(f"{path} has the answer {twice[0]!r} twice")
    return tuple(names)


def known(workdir: str | os.PathLike) -> tuple[str, ...]:
    """The labels of a run; () = it has none."""
    path = pathlib.Path(workdir) / FILE
    return read(path) if path.is_file() else ()


def stored(workdir: str | os.PathLike) -> tuple[str, ...]:
    """The labels of a run, which must have some."""
    if names := known(workdir):
        return names
    raise UsageError(
        f"{workdir} has no {FILE}: it was not trained on a task; of imported weights, give the "
        f"published list of answers as --labels"
    )


def store(names: Sequence[str], workdir: str | os.PathLike) -> None:
    """Writes the labels of a run, whole or not at all."""
    with whole(pathlib.Path(workdir) / FILE) as part:
        part.write_bytes(as_json(names))


def as_json(names: Sequence[str]) -> bytes:
    """What `labels.json` holds."""
    return (json.dumps(names, ensure_ascii=False, indent=1) + "\n").encode()
