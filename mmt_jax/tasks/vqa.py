"""VQAv2 (Goyal et al., 2017, arXiv 1612.00837) and GQA (Hudson and Manning, 2019, 1902.09506).

Both ask questions about pictures. VQAv2 has ten annotators' answers to each, of which every one is
worth something; GQA has one right answer.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping

from mmt_jax import readers as files
from mmt_jax.errors import UsageError
from mmt_jax.tasks import answers

_COCO_NAME = re.compile(r"COCO_\w+_(\d{12})")


@dataclasses.dataclass(frozen=True)
class Question:
    """A question about one picture.

    Attributes:
      question_id: unique; a number in VQAv2, text in GQA.
      image_id: of the picture; COCO's number in VQAv2, text in GQA.
      text: the question.
      scores: answer → its worth in 0..1; {} = none has any, None = unknown, as in test splits.
      kind: "yes/no", "number" or "other" in VQAv2, "binary" or "open" in GQA; "" in test splits.
      consensus: the answer that counts for `answers.frequent`; "" where none is published.
      where: the file and line that it was read from; "" elsewhere.
    """

    question_id: int | str
    image_id: int | str
    text: str
    scores: Mapping[str, float] | None
    kind: str = ""
    consensus: str = ""
    where: str = dataclasses.field(default="", compare=False)


def read_vqa(
    questions: str | os.PathLike, annotations: str | os.PathLike | None = None
) -> Iterator[Question]:
    """Reads VQAv2 as published, such as `v2_OpenEnded_mscoco_val2014_questions.json`.

    Args:
      questions: the file of questions.
      annotations: that of the same split's answers (`v2_mscoco_val2014_annotations.json`), which
        is held in memory; None for test splits.

    Raises:
      UsageError: a file cannot be read, an entry lacks something, or the two do not belong
        together.
    """
    answered = {} if annotations is None else _annotations(annotations)
    seen = set()
    for where, _, entry in files.json_entries(questions, "questions"):
        number = files.field(entry, "question_id", int, where)
        if number in seen:
            raise UsageError(f"{where}: question {number} is there twice")
        seen.add(number)
        question = Question(
            number,
            files.field(entry, "image_id", int, where),
            files.field(entry, "question", str, where),
            None,
            where=where,
        )
        if annotations is not None:
            if number not in answered:
                raise UsageError(
                    f"{where}: question {number} has no answers in {annotations}; give the "
                    f"annotations of the same split"
                )
            question = dataclasses.replace(question, **answered.pop(number))
        yield question
    if answered:
        raise UsageError(
            f"{questions} lacks question {next(iter(answered))}, which {annotations} answers; give "
            f"the files of the same split"
        )


def _annotations(path: str | os.PathLike) -> dict[int, dict]:
    """Scores, kind and consensus by question."""
    found = {}
    for where, _, entry in files.json_entries(path, "annotations"):
        rows = files.field(entry, "answers", list, where)
        if not rows or not all(isinstance(row, dict) for row in rows):
            raise UsageError(f"{where}: `answers` must hold an object for each annotator")
        found[files.field(entry, "question_id", int, where)] = {
            "scores": answers.soft_scores([files.field(row, "answer", str, where) for row in rows]),
            "kind": files.field(entry, "answer_type", str, where),
            "consensus": files.field(entry, "multiple_choice_answer", str, where),
        }
    return found


def read_lxmert(path: str | os.PathLike) -> Iterator[Question]:
    """Reads a split of VQAv2 as LXMERT publishes it (`minival.json`), answers scored already.

    Raises:
      UsageError: the file cannot be read, or an entry lacks something.
    """
    for where, _, entry in files.json_entries(path):
        name = files.field(entry, "img_id", str, where)
        if not (match := _COCO_NAME.fullmatch(name)):
            raise UsageError(
                f"{where}: `img_id` is {name!r}; it must be like COCO_val2014_000000393267"
            )
        scores = files.field(entry, "label", dict, where) if "label" in entry else None
        for answer, worth in (scores or {}).items():
            if not isinstance(worth, int | float):
                raise UsageError(f"{where}: `{answer}` must be a number, not {worth!r}")
        yield Question(
            files.field(entry, "question_id", int, where),
            int(match[1]),
            files.field(entry, "sent", str, where),
            scores,
            entry.get("answer_type", ""),
            where=where,
        )


def read_gqa(path: str | os.PathLike) -> Iterator[Question]:
    """Reads questions of GQA as published, such as `testdev_balanced_questions.json`.

    Raises:
      UsageError: the file cannot be read, or an entry lacks something.
    """
    for where, name, entry in files.json_entries(path):
        image_id = files.field(entry, "imageId", str, where)
        text = files.field(entry, "question", str, where)
        if "answer" not in entry:  # test and challenge
            yield Question(name, image_id, text, None, where=where)
            continue
        answer = files.field(entry, "answer", str, where)
        structure = files.field(files.field(entry, "types", dict, where), "structural", str, where)
        kind = "open" if structure == "query" else "binary"
        yield Question(name, image_id, text, {answer: 1.0}, kind, answer, where)
