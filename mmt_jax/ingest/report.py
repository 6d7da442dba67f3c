"""What became of a split of a region folder; what is left out of it is counted, and listed."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import pathlib
from typing import TextIO

from mmt_jax.data.captions import Captions
from mmt_jax.files import whole
from mmt_jax.photo import stem


class Report(contextlib.ExitStack):
    """What became of a split; its text is what a command says of it.

    A context manager. What is left out is listed in `<folder>/<split>.skipped.jsonl`, a line of
    kind, where and reason each, which appears where the block ends without an exception. Where
    nothing is left out there is none, and that of an earlier run goes.

    Attributes:
      written: how many captions each photo of the split has, by its id.
      left: how many were left out, by kind: photos that are "damaged", have the "same id" as
        another, are "not detected" or "without caption"; each "damaged caption" and "box without
        area"; and "caption without photo", which counts photos of the file of captions.
      cut: how many boxes were cut at the edge of their photo, which are not listed.
      kept: of the photos, found finished from an earlier run.
    """

    def __init__(self, folder: str | os.PathLike, split: str):
        super().__init__()
        self.folder = pathlib.Path(folder)
        self.written: dict[int, int] = {}
        self.left: collections.Counter[str] = collections.Counter()
        self.first: str | None = None
        self.cut = self.kept = 0
        self._path = self.folder / f"{split}.skipped.jsonl"
        self._file: TextIO | None = None
        self.push(self._tidy)

    @property
    def photos(self) -> int:
        """Of the split."""
        return len(self.written)

    @property
    def captions(self) -> int:
        """Of its photos."""
        return sum(self.written.values())

    @property
    def report(self) -> pathlib.Path | None:
        """The list of what is left out, or None where there is none."""
        return self._path if self.left else None

    @property
    def because(self) -> str:
        """The first reason, as the end of a sentence."""
        return f"; the first reason: {self.first}" if self.first else ""

    def add(self, kind: str, where: str, reason: object, count: int = 1) -> None:
        """Counts and lists what is left out; a reason that does not say where is told where.

        Raises:
          NoRoomError: the folder cannot be written; so does the end of the block.
        """
        self.left[kind] += count
        reason = str(reason) if where in str(reason) else f"{where}: {reason}"
        self.first = self.first or reason
        if self._file is None:
            part = self.enter_context(whole(self._path))
            self._file = self.enter_context(part.open("w", encoding="utf-8", errors="replace"))
        line = {"kind": kind, "where": where, "reason": reason}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def join(self, captions: Captions) -> None:
        """Lists the captions that could not be taken, and those of photos that were not written."""
        for where, reason in captions.faults:
            self.add("damaged caption", where, reason)
        for number in sorted(captions.of.keys() - self.written.keys()):
            name = stem(str(captions.names[number]))
            reason = f"photo {name} has captions, but was not written"
            self.add("caption without photo", captions.source, reason)

    def _tidy(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._file is None and kind is None:
            self._path.unlink(missing_ok=True)

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
