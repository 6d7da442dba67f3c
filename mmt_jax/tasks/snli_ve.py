"""SNLI-VE (Xie et al., 2019, arXiv 1901.06706): what does a photo say about a sentence?"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

from mmt_jax import readers as files
from mmt_jax.errors import UsageError

LABELS = ("contradiction", "neutral", "entailment")


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """A sentence that a photo entails, contradicts, or leaves open.

    Attributes:
      pair_id: unique, such as "4705552913.jpg#2r1n".
      image_id: Flickr30k's, such as "4705552913".
      text: the sentence.
      label: an index into `LABELS`.
      where: the file and line that it was read from; "" elsewhere.
    """

    pair_id: str
    image_id: str
    text: str
    label: int
    where: str = dataclasses.field(default="", compare=False)


def read(path: str | os.PathLike) -> Iterator[Hypothesis]:
    """Reads a split as published, such as `snli_ve_dev.jsonl`.

    Raises:
      UsageError: the file cannot be read, or a line lacks something.
    """
    for where, entry in files.json_lines(path):
        label = files.field(entry, "gold_label", str, where)
        if label not in LABELS:
            raise UsageError(
                f"{where}: `gold_label` is {label!r}; it must be {', '.join(LABELS[:-1])} or "
                f"{LABELS[-1]}"
            )
        yield Hypothesis(
            files.field(entry, "pairID", str, where),
            files.field(entry, "Flickr30K_ID", str, where),
            files.field(entry, "sentence2", str, where),
            LABELS.index(label),
            where,
        )
