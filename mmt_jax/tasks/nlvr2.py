"""NLVR2 (Suhr et al., 2019, arXiv 1811.00491): is a sentence true of two photos side by side?"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator

from mmt_jax import readers as files
from mmt_jax.errors import UsageError

_IDENTIFIER = re.compile(r"\w+-\d+-\d+-\d+")  # split, set, pair, sentence
_DIRECTORY = re.compile(r"\d*")


@dataclasses.dataclass(frozen=True)
class Pair:
    """A sentence about two photos.

    Attributes:
      identifier: unique, such as "dev-850-0-0": split, set, pair of photos, sentence.
      text: the sentence.
      label: whether it is true.
      directory: of train, the folder of its photos; "" elsewhere.
      where: the file and line that it was read from; "" elsewhere.
    """

    identifier: str
    text: str
    label: bool
    directory: str = ""
    where: str = dataclasses.field(default="", compare=False)

    @property
    def image_ids(self) -> tuple[str, str]:
        """Names of the left and the right photo, without ".png"."""
        stem = self.identifier.rpartition("-")[0]
        return f"{stem}-img0", f"{stem}-img1"

    @property
    def sentence_id(self) -> str:
        """Equal for all pairs of photos that the same sentence was written about."""
        split, group, _, sentence = self.identifier.split("-")
        return f"{split}-{group}-{sentence}"


def read(path: str | os.PathLike) -> Iterator[Pair]:
    """Reads a split as published, such as `dev.json`, which has one object a line.

    Raises:
      UsageError: the file cannot be read, or a line lacks something.
    """
    for where, entry in files.json_lines(path):
        identifier = files.field(entry, "identifier", str, where)
        if not _IDENTIFIER.fullmatch(identifier):
            raise UsageError(
                f"{where}: `identifier` is {identifier!r}; it must be like dev-850-0-0"
            )
        label = str(entry.get("label")).lower()
        if label not in ("true", "false"):
            raise UsageError(
                f"{where}: `label` is {entry.get('label')!r}; it must be True or False"
            )
        text = files.field(entry, "sentence", str, where)
        directory = str(entry.get("directory", ""))
        if not _DIRECTORY.fullmatch(directory):
            raise UsageError(f"{where}: `directory` is {directory!r}; it must be a number")
        yield Pair(identifier, text, label == "true", directory, where)
