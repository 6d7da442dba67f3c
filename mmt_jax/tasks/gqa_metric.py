"""GQA's accuracy (Hudson and Manning, 2019, arXiv 1902.09506), and the file that EvalAI takes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from mmt_jax.tasks import predictions
from mmt_jax.tasks import vqa_metric as vqa
from mmt_jax.tasks.vqa import Question


def evaluate(questions: Sequence[Question], answered: Mapping[str, str]) -> dict[str, float]:
    """Shares of right answers in 0..1: `accuracy` of all, `binary` and `open` of each kind.

    An answer is right if it is the published one to the letter.

    Args:
      questions: with their scores.
      answered: question_id → answer.

    Raises:
      UsageError: as `vqa.accuracy`.
    """
    return vqa.accuracy(questions, answered, spelling=str)


def write(path: str | os.PathLike, answered: Mapping[str, str]) -> None:
    """Writes the JSON file that EvalAI takes: a list of `questionId` and `prediction`.

    Raises:
      UsageError: the file exists.
    """
    rows = ({"questionId": key, "prediction": answer} for key, answer in answered.items())
    predictions.write_rows(path, rows)


def read(path: str | os.PathLike) -> dict[str, str]:
    """Reads what `write` wrote.

    Raises:
      UsageError: the file is another.
    """
    return predictions.read_rows(path, ("questionId", str), ("prediction", str))
