"""What is left out of a split of a region folder: counted, and listed beside it."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, TextIO

from mmt_jax.files import whole


@dataclasses.dataclass(frozen=True)
class Summary:
    """What became of a split; its text is what a command says of it.

    Attributes:
      folder: the region folder.
      photos: that it holds.
      captions: of these.
      left: how many were left out, by kind: photos that are "damaged", have the "same id" as
        another, are "not detected" or "without caption"; each "damaged caption" and "box without
        area"; and "caption without photo", which counts photos of the file of captions.
      cut: how many boxes were cut at the edge of their photo.
      report: the file that lists them, or None.
      first: the first reason.
      kept: of the photos, found finished from an earlier run.
    """

    folder: pathlib.Path
    photos: int
    captions: int
    left: Mapping[str, int]
    report: pathlib.Path | None
    first: str | None
    kept: int = 0
    cut: int = 0

    def __str__(self) -> str:
        lines = []
        if self.left:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.left.items()))
            lines += [f"skipped: {kinds}; the first: {self.first}", f"{self.report} lists them"]
        if self.cut:
            lines.append(f"boxes that were cut at the edge of their photo: {self.cut}")
        kept = f", {self.kept} of them from before" if self.kept else ""
        lines.append(f"{self.folder} holds {self.photos} photos{kept} and {self.captions} captions")
        if not self.captions:
            lines.append("there are no captions: to train, begin anew with --captions=FILE")
        return "\n".join(lines)


class Skipped:
    """The list `<folder>/<split>.skipped.jsonl`: a line of kind, where and reason each.

    A context manager: the list appears where the block ends without an exception. Where nothing is
    left out there is none, and that of an earlier run goes.

    Attributes:
      left: how many, by kind.
      first: the first reason, or None.
      cut: how many boxes were cut at the edge of their photo, which are not listed.
    """

    def __init__(self, folder: str | os.PathLike, split: str):
        self.left: collections.Counter[str] = collections.Counter()
        self.first: str | None = None
        self.cut = 0
        self._path = pathlib.Path(folder) / f"{split}.skipped.jsonl"
        self._writing = contextlib.ExitStack()
        self._file: TextIO | None = None

    @property
    def path(self) -> pathlib.Path | None:
        """The list, or None where there is none."""
        return self._path if self.left else None

    @property
    def because(self) -> str:
        """The first reason, as the end of a sentence."""
        return f"; the first reason: {self.first}" if self.first else ""

    def add(self, kind: str, where: str, reason: object, count: int = 1) -> None:
        """Counts and lists one, or several of one place; a reason is told where it is one.

        Raises:
          NoRoomError: the folder cannot be written; so does the end of the block.
        """
        self.left[kind] += count
        reason = str(reason) if where in str(reason) else f"{where}: {reason}"
        self.first = self.first or reason
        if self._file is None:
            part = self._writing.enter_context(whole(self._path))
            self._file = self._writing.enter_context(
                part.open("w", encoding="utf-8", errors="replace")
            )
        line = {"kind": kind, "where": where, "reason": reason}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def __enter__(self) -> Skipped:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._file is None and error[0] is None:
            self._path.unlink(missing_ok=True)
        self._writing.__exit__(*error)
