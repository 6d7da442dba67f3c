"""GQA (Hudson and Manning, 2019, arXiv 1902.09506): questions with one right answer."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence

from mmt_jax import readers as files
from mmt_jax.tasks import base


@dataclasses.dataclass(frozen=True, slots=True)
class Question(base.Entry):
    """Its `kind` is "binary" or "open".

    Attributes:
      balanced: whether it counts, as in the official evaluation; in `*_all_questions.json` most do
        not.
    """

    balanced: bool = True


def read(path: str | os.PathLike) -> Iterator[Question]:
    """Reads questions as published, such as `testdev_balanced_questions.json`.

    Raises:
      UsageError: the file cannot be read, or an entry lacks something.
    """
    for where, name, entry in files.json_entries(path):
        photo = files.field(entry, "imageId", str, where)
        text = files.field(entry, "question", str, where)
        question = Question(name, (text,), (photo,), where=where)
        if "answer" in entry:  # not in test and challenge
            answer = files.field(entry, "answer", str, where)
            types = files.field(entry, "types", dict, where)
            query = files.field(types, "structural", str, where) == "query"
            question = dataclasses.replace(
                question,
                worth={answer: 1.0},
                kind="open" if query else "binary",
                balanced=entry.get("isBalanced", True),
            )
        yield question


def metrics(questions: Sequence[Question], found: base.Answers) -> dict[str, float]:
    """`accuracy` of balanced questions, `binary` and `open` of each kind, to the letter."""
    base.check(questions, found)
    counted = [question for question in questions if question.balanced]
    return base.accuracy(counted, {question.key: found[question.key] for question in counted})


TASKS = {"gqa": base.Task(read, base.rows("questionId", "prediction"), metrics)}
