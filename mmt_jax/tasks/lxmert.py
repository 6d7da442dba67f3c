"""LXMERT's pre-training (Tan and Bansal, 2019, arXiv 1908.07490): captions and questions."""

from __future__ import annotations

import os
from collections.abc import Iterator

from mmt_jax import readers as files
from mmt_jax.errors import UsageError
from mmt_jax.tasks import base, vqa


def read(path: str | os.PathLike) -> Iterator[base.Entry]:
    """Reads its sentences, such as `mscoco_train.json`: an entry for each of each photo.

    Questions of VQAv2, GQA and Visual Genome have answers, captions have none.
    """
    number = 0
    for where, _, entry in files.json_entries(path):
        photo = files.field(entry, "img_id", str, where)
        answered = entry.get("labelf", {})
        for source, sentences in files.field(entry, "sentf", dict, where).items():
            worths = answered.get(source, [{}] * len(sentences))
            if len(worths) != len(sentences):
                raise UsageError(
                    f"{where}: {len(sentences)} sentences of {source} and {len(worths)} answers"
                )
            for sentence, worth in zip(sentences, worths):
                scored = vqa.scored(worth, where)
                yield base.Entry(number, (sentence,), (photo,), scored, vqa.normalise)
                number += 1


TASKS = {"lxmert": base.Task(read, listed=vqa.listed)}
