"""What became of a split of a region folder; what is left out of it is counted, and listed."""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib

from mmt_jax.data.captions import Captions
from mmt_jax.files import whole
from mmt_jax.photo import stem


@dataclasses.dataclass
class Report:
    """What became of a split of a region folder; its text is what a command says of it.

    Attributes:
      written: how many captions each photo of the split has, by its id.
      left: how many were left out, by kind: photos that are "damaged", have the "same id" as
        another, are "not detected" or "without caption"; each "damaged caption" and "box without
        area"; and "caption without photo", which counts photos of the file of captions.
      cut: how many boxes were cut at the edge of their photo, which are not listed.
      kept: of the photos, found finished from an earlier run.
    """

    folder: pathlib.Path
    split: str
    written: dict[int, int] = dataclasses.field(default_factory=dict)
    left: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    first: str | None = None  # reason
    cut: int = 0
    kept: int = 0
    _lines: list[str] = dataclasses.field(default_factory=list)

    @property
    def _path(self) -> pathlib.Path:
        return self.folder / f"{self.split}.skipped.jsonl"

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
        """Counts and lists what is left out; a reason that does not say where is told where."""
        self.left[kind] += count
        reason = str(reason) if where in str(reason) else f"{where}: {reason}"
        self.first = self.first or reason
        line = {"kind": kind, "where": where, "reason": reason}
        self._lines.append(json.dumps(line, ensure_ascii=False) + "\n")

    def join(self, captions: Captions) -> None:
        """Lists the captions that could not be taken, and those of photos that were not written."""
        for where, reason in captions.faults:
            self.add("damaged caption", where, reason)
        for number in sorted(captions.of.keys() - self.written.keys()):
            name = stem(str(captions.names[number]))
            reason = f"photo {name} has captions, but was not written"
            self.add("caption without photo", captions.source, reason)

    def store(self) -> None:
        """Writes `<folder>/<split>.skipped.jsonl`: kind, where and reason of what is left out.

        Where nothing is, there is none, and that of an earlier run goes.

        Raises:
          NoRoomError: it cannot be written.
        """
        if self.report:
            with whole(self.report) as part:
                part.write_text("".join(self._lines), encoding="utf-8", errors="replace")
        else:
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
