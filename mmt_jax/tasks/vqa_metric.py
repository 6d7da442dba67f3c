"""VQAv2's accuracy over ten answers, and the file that EvalAI takes.

The accuracy is that of the official evaluation (Antol et al., 2015, arXiv 1505.00468, and its code
GT-Vision-Lab/VQA): see `mmt_jax.tasks.answers`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmt_jax.errors import UsageError
from mmt_jax.tasks import answers, predictions
from mmt_jax.tasks.vqa import Question


def evaluate(questions: Sequence[Question], answered: Mapping[int, str]) -> dict[str, float]:
    """Accuracy in 0..1: `accuracy` of all questions, and of the kinds yes/no, number and other.

    Args:
      questions: with their scores.
      answered: question_id → answer, in any spelling that normalises to an annotator's.

    Raises:
      UsageError: as `accuracy`.
    """
    return accuracy(questions, answered, spelling=answers.normalise)


def accuracy(
    questions: Sequence[Question],
    answered: Mapping[Any, str],
    *,
    spelling: Callable[[str], str],
) -> dict[str, float]:
    """What the answers by question, spelled as its scores are, are worth on average.

    Raises:
      UsageError: answers are missing or too many, or the questions have no scores.
    """
    predictions.check([question.question_id for question in questions], answered)
    worths = []
    for question in questions:
        if question.scores is None:
            raise UsageError(
                f"question {question.question_id} has no published answer, as in test splits; send "
                f"the answers to the task's server, or evaluate on a split that has them"
            )
        given = spelling(answered[question.question_id])
        worths.append((question.kind, question.scores.get(given, 0.0)))
    return predictions.means(worths)


def write(path: str | os.PathLike, answered: Mapping[int, str]) -> None:
    """Writes the JSON file that EvalAI takes: a list of `question_id` and `answer`.

    Raises:
      UsageError: the file exists.
    """
    rows = ({"question_id": key, "answer": answer} for key, answer in answered.items())
    predictions.write_rows(path, rows)


def read(path: str | os.PathLike) -> dict[int, str]:
    """Reads what `write` wrote.

    Raises:
      UsageError: the file is another.
    """
    return predictions.read_rows(path, ("question_id", int), ("answer", str))
