"""GQA (Hudson and Manning, 2019, arXiv 1902.09506): questions with one right answer."""

from __future__ import annotations

import os
from collections.abc import Iterator

from mmt_jax import readers as files
from mmt_jax.tasks import base


def read(path: str | os.PathLike) -> Iterator[base.Entry]:
    """Reads questions as published, such as `testdev_balanced_questions.json`.

    Their kind is "binary" or "open". As in the official evaluation balanced questions alone count,
    which in `*_all_questions.json` are the fewest.
    """
    for where, name, entry in files.json_entries(path):
        photo = files.field(entry, "imageId", str, where)
        text = files.field(entry, "question", str, where)
        worth, kind = None, ""
        if "answer" in entry:  # not in test and challenge
            worth = {files.field(entry, "answer", str, where): 1.0}
            types = files.field(entry, "types", dict, where)
            query = files.field(types, "structural", str, where) == "query"
            kind = "open" if query else "binary"
        counts = entry.get("isBalanced", True)
        yield base.Entry(name, (text,), (photo,), worth, kind=kind, counts=counts, where=where)


TASKS = {"gqa": base.Task(read, base.rows("questionId", "prediction"))}  # right to the letter
