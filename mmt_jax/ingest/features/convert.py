"""Photos of any format, joined with their captions, into a split of a region folder."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator

from mmt_jax import progress
from mmt_jax import readers as files
from mmt_jax.data import captions
from mmt_jax.data.captions import Captions
from mmt_jax.data.writer import FLOATS, FolderWriter
from mmt_jax.errors import NoRoomError, UsageError
from mmt_jax.files import tidy, whole
from mmt_jax.ingest import guarded
from mmt_jax.ingest.features import FORMATS, entries
from mmt_jax.ingest.features.detections import Detections, Format
from mmt_jax.ingest.report import Report
from mmt_jax.text.base import prepare

CATEGORIES = "categories.txt"  # of features that are made of them; all splits share it


def convert(
    format: str,
    source: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    captions_file: str | os.PathLike | None = None,
    split: str = "train",
    dtype: str = "float16",
) -> Report:
    """Converts.

    A photo that is damaged, or has no caption where there are captions, is left out and listed in
    `<folder>/<split>.skipped.jsonl`; the rest goes on.

    Args:
      format: a name in `FORMATS`.
      folder: the region folder; the split must not be there yet.
      captions_file: see `captions`; None = those of the format, or none.
      dtype: of the features, "float16" or "float32".

    Raises:
      UsageError: unknown format, a file that cannot be read, or no photo in it that can; nothing is
        written then.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}; it is one of {', '.join(FORMATS)}")
    if dtype not in FLOATS:
        raise UsageError(f"unknown dtype {dtype!r}; it is {' or '.join(FLOATS)}")
    row, source, folder = FORMATS[format], pathlib.Path(source), pathlib.Path(folder)
    if not source.exists():
        raise UsageError(f"there is no {source}")
    writer, report = FolderWriter(folder, split, dtype=dtype), Report(folder, split)
    with tidy(folder), _categories(row, source, folder) as names, writer:
        joined = captions.read(pathlib.Path(captions_file), split) if captions_file else None
        writer.num_classes = None if names is None else len(names)
        photos = guarded.read(entries, source, format, *([] if names is None else [names]))
        for where, found in progress.track(photos, "photos"):
            try:
                if isinstance(found, UsageError):
                    raise found
                _add(found, where, row, writer, joined, report)
            except NoRoomError:
                raise
            except UsageError as error:
                report.add("damaged", where, error)
        if not report.written:
            raise UsageError(f"{source} has no photo to write{report.because}")
        if joined:
            report.join(joined)
    report.store()
    return report


def _add(
    found: Detections,
    where: str,
    row: Format,
    writer: FolderWriter,
    joined: Captions | None,
    report: Report,
) -> None:
    """Writes a photo, if it has a caption or needs none."""
    photo = found.photo
    if joined is None:
        texts = tuple(text for text in photo.captions if prepare(text))
        if 0 < len(texts) < len(photo.captions):
            report.add("damaged caption", where, f"one of photo {found.name} is empty")
    else:
        texts = joined.of.get(photo.image_id, ())
    if not texts and (row.captions or joined):
        report.add("without caption", where, f"photo {found.name} has no caption")
        return
    classes = writer.num_classes if found.num_classes is None else found.num_classes
    if writer.num_classes not in (None, classes):
        raise UsageError(f"{where}: {classes} classes, the photos before it {writer.num_classes}")
    writer.add(dataclasses.replace(photo, captions=texts))
    writer.num_classes = classes
    report.written[photo.image_id] = len(texts)
    report.cut += found.cut
    if found.lost:
        reason = f"{found.lost} of the boxes of photo {found.name} have no area within it"
        report.add("box without area", where, reason, found.lost)


@contextlib.contextmanager
def _categories(
    row: Format, source: pathlib.Path, folder: pathlib.Path
) -> Iterator[list[str] | None]:
    """The categories that the folder's splits share, or None where features are not made of them.

    Its first split says which; where that fails, they go with it.
    """
    path = folder / CATEGORIES
    if row.categories is None:
        yield None
    elif path.exists():
        yield [name for _, name in files.lines(path)]
    else:
        names = row.categories(source)
        if not names:
            raise UsageError(f"{source} names no category, of which features could be made")
        for name in names:
            if name.encode("utf-8", "replace").decode().splitlines() != [name]:
                raise UsageError(
                    f"{source} has the category {name!r}; a category is one line of text"
                )
        try:
            with whole(path) as part:
                part.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
            yield names
        except BaseException:
            path.unlink(missing_ok=True)
            raise
