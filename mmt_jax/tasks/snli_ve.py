"""SNLI-VE (Xie et al., 2019, arXiv 1901.06706): what does a photo say about a sentence?"""

from __future__ import annotations

import os
from collections.abc import Iterator

from mmt_jax import readers as files
from mmt_jax.errors import UsageError
from mmt_jax.tasks import base

LABELS = ("contradiction", "neutral", "entailment")


def read(path: str | os.PathLike) -> Iterator[base.Entry]:
    """Reads a split as published, such as `snli_ve_dev.jsonl`; an entry's kind is its label."""
    for where, entry in files.json_lines(path):
        label = files.field(entry, "gold_label", str, where)
        if label not in LABELS:
            raise UsageError(
                f"{where}: `gold_label` is {label!r}; it must be {', '.join(LABELS[:-1])} or "
                f"{LABELS[-1]}"
            )
        yield base.Entry(
            files.field(entry, "pairID", str, where),
            (files.field(entry, "sentence2", str, where),),
            (files.field(entry, "Flickr30K_ID", str, where),),
            {label: 1.0},
            kind=label,
            where=where,
        )


# Nobody has published a form of answers, so they have the names of the data set's files.
TASKS = {"snli_ve": base.Task(read, base.rows("pairID", "gold_label"), classes=LABELS)}
