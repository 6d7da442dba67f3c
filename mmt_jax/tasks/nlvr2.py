"""NLVR2 (Suhr et al., 2019, arXiv 1811.00491): is a sentence true of two photos side by side?"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence

from mmt_jax import readers as files
from mmt_jax.errors import UsageError
from mmt_jax.tasks import base

_IDENTIFIER = re.compile(r"\w+-\d+-\d+-\d+")  # split, set, pair, sentence
_DIRECTORY = re.compile(r"\d*")


@dataclasses.dataclass(frozen=True, slots=True)
class Pair(base.Entry):
    """A sentence about two photos; its key is such as "dev-850-0-0": split, set, pair, sentence."""

    directory: str = ""  # of train, the folder of its photos

    @property
    def sentence_id(self) -> str:
        """Equal for all pairs of photos that the same sentence was written about."""
        split, group, _, sentence = str(self.key).split("-")
        return f"{split}-{group}-{sentence}"


def read(path: str | os.PathLike) -> Iterator[Pair]:
    """Reads a split as published, such as `dev.json`, which has one object a line."""
    for where, entry in files.json_lines(path):
        name = files.field(entry, "identifier", str, where)
        if not _IDENTIFIER.fullmatch(name):
            raise UsageError(f"{where}: `identifier` is {name!r}; it must be like dev-850-0-0")
        label = str(entry.get("label")).capitalize()
        if label not in ("True", "False"):
            raise UsageError(
                f"{where}: `label` is {entry.get('label')!r}; it must be True or False"
            )
        text = files.field(entry, "sentence", str, where)
        directory = str(entry.get("directory", ""))
        if not _DIRECTORY.fullmatch(directory):
            raise UsageError(f"{where}: `directory` is {directory!r}; it must be a number")
        stem = name.rpartition("-")[0]
        photos = f"{stem}-img0", f"{stem}-img1"
        yield Pair(name, (text,), photos, {label: 1.0}, where=where, directory=directory)


def metrics(pairs: Sequence[Pair], found: base.Answers) -> dict[str, float]:
    """`accuracy`, and `consistency`: the share of sentences that are right of all their photos."""
    result = base.accuracy(pairs, found)
    sentences: dict[str, bool] = {}
    for pair in pairs:
        right = pair.value(found[pair.key]) == 1
        sentences[pair.sentence_id] = sentences.get(pair.sentence_id, True) and right
    return result | {"consistency": sum(sentences.values()) / len(sentences)}


TASKS = {
    "nlvr2": base.Task(
        read,
        lambda found: "".join(f"{name},{label}\n" for name, label in found.items()),
        metrics,
        classes=("False", "True"),
    )
}
