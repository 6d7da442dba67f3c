"""Photos of any format, joined with their captions, into a split of a region folder."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import TextIO

from mmt_jax.config import UsageError
from mmt_jax.data.features import FORMATS, Format, Item, captions, detections
from mmt_jax.data.text import prepare
from mmt_jax.data.writer import FolderWriter, NoRoomError

CATEGORIES = "categories.txt"  # of features that are made of them; all splits share it


@dataclasses.dataclass(frozen=True)
class Summary:
    """What became of the photos.

    Attributes:
      photos: written.
      captions: of these.
      left: how many were left out, by why: "damaged", "without caption", "caption without photo"
        (these are photos of the captions file), "damaged caption".
      report: the file that lists them, or None.
      first: the first reason.
    """

    photos: int
    captions: int
    left: dict[str, int]
    report: pathlib.Path | None
    first: str | None


def convert(
    format: str,
    source: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    captions_file: str | os.PathLike | None = None,
    split: str = "train",
    dtype: str = "float16",
    track: Callable[[Iterable[Item]], Iterable[Item]] = iter,
) -> Summary:
    """Converts.

    A photo that is damaged, or has no caption where there are captions, is left out and listed in
    `<folder>/<split>.skipped.jsonl`; the rest goes on.

    Args:
      format: a name in `FORMATS`.
      source: the file or folder to read.
      folder: the region folder; the split must not be there yet.
      captions_file: see `captions`; None = those of the format, or none.
      split: to write.
      dtype: of the features, "float16" or "float32".
      track: goes over the items, as a progress bar does.

    Raises:
      UsageError: unknown format, a file that cannot be read, or no photo in it that can; nothing is
        written then.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}; it is one of {', '.join(FORMATS)}")
    if dtype not in ("float16", "float32"):
        raise UsageError(f"unknown dtype {dtype!r}; it is float16 or float32")
    row, source, folder = FORMATS[format], pathlib.Path(source), pathlib.Path(folder)
    if not source.exists():
        raise UsageError(f"there is no {source}")
    with _Report(folder, split) as report, FolderWriter(folder, split, dtype=dtype) as writer:
        joined = captions.read(pathlib.Path(captions_file), split) if captions_file else None
        for where, reason in joined.faults if joined else ():
            report.add("damaged caption", where, reason)
        read = row.read
        if row.categories is not None:
            names = _categories(row.categories, source, folder)
            writer.num_classes = len(names)
            read = functools.partial(read, categories=names)
        written = _write(track(read(source)), row, writer, joined, report)
        if not written:
            raise UsageError(f"{source} has no photo to write{report.because}")
        for number in sorted(joined.of.keys() - written) if joined else ():
            reason = f"photo {number} has captions, but was not written"
            report.add("caption without photo", str(captions_file), reason)
    return Summary(
        len(written), sum(written.values()), dict(report.left), report.path, report.first
    )


def _write(
    items: Iterable[Item],
    row: Format,
    writer: FolderWriter,
    joined: captions.Captions | None,
    report: _Report,
) -> dict[int, int]:
    """Writes the photos; returns how many captions each has."""
    written = {}
    for item in items:
        try:
            found = item.load()
            if joined is None:
                texts = tuple(text for text in found.captions if prepare(text))
            else:
                texts = joined.of.get(found.image_id, ())
            if not texts and (row.captions or joined):
                report.add("without caption", item.where, f"photo {found.name} has no caption")
                continue
            photo = detections.photo(found, row.boxes, texts, item.where)
            classes = writer.num_classes if found.num_classes is None else found.num_classes
            if writer.num_classes not in (None, classes):
                raise UsageError(
                    f"{item.where}: {classes} classes, the photos before it {writer.num_classes}"
                )
            writer.add(photo)
            writer.num_classes = classes
            written[photo.image_id] = len(texts)
        except NoRoomError:
            raise
        except UsageError as error:
            report.add("damaged", item.where, str(error))
    return written


def _categories(
    read: Callable[[pathlib.Path], list[str]], source: pathlib.Path, folder: pathlib.Path
) -> list[str]:
    """The categories that the folder's splits share; its first split says which."""
    path = folder / CATEGORIES
    try:
        if path.exists():
            return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error}); it names a category a line") from None
    if not (names := read(source)):
        raise UsageError(f"{source} names no category, of which features could be made")
    for name in names:
        if name.splitlines() != [name]:
            raise UsageError(f"{source} has the category {name!r}; a category is one line of text")
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        os.replace(part, path)
    except (OSError, UnicodeEncodeError) as error:
        raise NoRoomError(f"{path} cannot be written ({error})") from None
    finally:
        part.unlink(missing_ok=True)
    return names


class _Report:
    """A line of JSON for each photo or caption that was left out; no file where there is none."""

    def __init__(self, folder: pathlib.Path, split: str):
        self._target = folder / f"{split}.skipped.jsonl"
        self._part = folder / f".{split}.skipped.{os.getpid()}"
        self._file: TextIO | None = None
        self.left: collections.Counter[str] = collections.Counter()
        self.first: str | None = None

    @property
    def path(self) -> pathlib.Path | None:
        return self._target if self.left else None

    @property
    def because(self) -> str:
        return f"; the first reason: {self.first}" if self.first else ""

    def add(self, kind: str, where: str, reason: str) -> None:
        self.left[kind] += 1
        self.first = self.first or reason
        line = {"kind": kind, "where": where, "reason": reason}
        try:
            if self._file is None:
                self._file = self._part.open("w", encoding="utf-8", errors="replace")
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            raise NoRoomError(f"{self._target} cannot be written ({error.strerror})") from None

    def __enter__(self) -> _Report:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._file is None:
            return
        try:
            self._file.close()
            if kind is None:
                os.replace(self._part, self._target)
        except OSError as error:
            raise NoRoomError(f"{self._target} cannot be written ({error.strerror})") from None
        finally:
            self._part.unlink(missing_ok=True)
