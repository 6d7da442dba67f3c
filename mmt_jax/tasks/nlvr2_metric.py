"""NLVR2's accuracy, consistency and prediction file (Suhr et al., 2019, arXiv 1811.00491)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from mmt_jax import readers as files
from mmt_jax.errors import UsageError
from mmt_jax.tasks import predictions
from mmt_jax.tasks.nlvr2 import Pair


def evaluate(pairs: Sequence[Pair], judged: Mapping[str, bool]) -> dict[str, float]:
    """`accuracy` and `consistency`, shares in 0..1.

    Consistency counts sentences: one is right if it is judged rightly for all of its photo pairs.

    Args:
      pairs: sentences with their labels.
      judged: identifier → whether the sentence is held to be true.

    Raises:
      UsageError: judgements are missing or too many.
    """
    predictions.check([pair.identifier for pair in pairs], judged)
    right = {pair.identifier: judged[pair.identifier] == pair.label for pair in pairs}
    sentences: dict[str, bool] = {}
    for pair in pairs:
        before = sentences.get(pair.sentence_id, True)
        sentences[pair.sentence_id] = before and right[pair.identifier]
    return {
        "accuracy": predictions.means(("", float(value)) for value in right.values())["accuracy"],
        "consistency": sum(sentences.values()) / len(sentences),
    }


def write(path: str | os.PathLike, judged: Mapping[str, bool]) -> None:
    """Writes the CSV file that the official script takes: `identifier,True` a line.

    Raises:
      UsageError: the file exists.
    """
    lines = (f"{identifier},{bool(value)}\n" for identifier, value in judged.items())
    predictions.write(path, "".join(lines))


def read(path: str | os.PathLike) -> dict[str, bool]:
    """Reads what `write` wrote.

    Raises:
      UsageError: naming the first line that is another.
    """
    judged: dict[str, bool] = {}
    for where, line in files.lines(path):
        identifier, _, value = line.partition(",")
        if value.lower() not in ("true", "false"):
            raise UsageError(f"{where}: {line!r} must be like dev-850-0-0,True")
        if identifier in judged:
            raise UsageError(f"{where}: {identifier} is there twice")
        judged[identifier] = value.lower() == "true"
    return judged
