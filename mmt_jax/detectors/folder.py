"""Photos, through a detector, into a region folder.

Until the end, finished photos lie in splits of a hidden region folder beside the target, some tens
of them each. What stops the work costs one of these at most; the same command goes on from there.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mmt_jax import detectors, progress
from mmt_jax.data import formats
from mmt_jax.data.captions import Captions
from mmt_jax.data.writer import FLOATS, FolderWriter
from mmt_jax.detectors import albums, base
from mmt_jax.detectors.albums import Shot
from mmt_jax.detectors.base import Detections, Detector
from mmt_jax.errors import NoRoomError, UsageError, reason
from mmt_jax.files import lock, tidy, whole
from mmt_jax.ingest.report import Report
from mmt_jax.photo import Photo

SHARD = 64  # photos that are kept together
BATCH = 8  # pictures in memory at once


def extract(
    detector: str,
    images: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    split: str = "train",
    captions: str | os.PathLike | None = None,
    dtype: str = "float16",
) -> Report:
    """Makes one split of a region folder.

    A photo that cannot be read, on which the detector fails or finds nothing, whose id another one
    has, or without a caption where there are captions, is left out and listed in
    `<split>.skipped.jsonl`, as damaged captions and those of no photo are; the rest goes on.

    Args:
      detector: as `detectors.load` takes it.
      images: a folder, below which photos are found by the endings of their names, or a prepared
        corpus, of which `split` is read.
      folder: the region folder; the split must not be there yet.
      captions: file of captions (`mmt_jax.data.captions`); None = photos have none.
      dtype: of the stored features, "float16" or "float32".

    Raises:
      UsageError: no such folder, detector or captions, the split is there already, was begun
        otherwise or is being written by another run, or no photo could be taken.
    """
    folder, shards = pathlib.Path(folder), pathlib.Path(folder) / f".{split}.shards"
    if dtype not in FLOATS:
        raise UsageError(f"unknown dtype {dtype!r}; it is {' or '.join(FLOATS)}")
    writer = FolderWriter(folder, split, dtype=dtype)  # which refuses what cannot be written
    shots, known = albums.find(images, split, captions=captions)
    loaded = detectors.load(detector)
    writer.num_classes = loaded.num_classes or None
    about = {"detector": detector, "images": str(pathlib.Path(images)), "dtype": dtype}
    report = Report(folder, split)
    with tidy(folder), _claimed(shards, about):
        done = {line["file"] for shard in _shards(shards) for line in _lines(shards, shard)}
        wanted = _distinct(shots, known, report)
        report.kept = len(done & wanted.keys())
        pending = [shot for name, shot in wanted.items() if name not in done]
        groups = [pending[i : i + SHARD] for i in range(0, len(pending), SHARD)]
        first = 1 + max((int(path.stem) for path in shards.glob("*.npz")), default=-1)
        with progress.Counter("photos", len(wanted), done=report.kept) as counter:
            for number, group in enumerate(groups, first):
                shard = FolderWriter(
                    shards, f"{number:06d}", dtype=dtype, num_classes=writer.num_classes
                )
                _fill(shard, group, loaded, report, counter)
        _join(shards, writer, wanted, known, report)
    shutil.rmtree(shards)
    report.store()
    return report


@contextlib.contextmanager
def _claimed(shards: pathlib.Path, about: dict[str, str]) -> Iterator[None]:
    """Begins the shards, or goes on with those of the same command, which must have ended."""
    path = shards / "about.json"
    if not path.exists():
        with whole(path) as part:
            part.write_text(json.dumps(about), encoding="utf-8")
    elif (begun := json.loads(path.read_text(encoding="utf-8"))) != about:
        flags = " ".join(f"--{name}={value}" for name, value in begun.items())
        raise UsageError(f"{shards} was begun with {flags}; go on with these, or remove it")
    with (shards / "lock").open("wb") as file:
        if not lock(file):
            raise UsageError(
                f"another run is writing {shards}; wait until it ends, or name another split or "
                f"folder"
            )
        yield


def _shards(shards: pathlib.Path) -> list[str]:
    """Names of the finished shards, in order."""
    names = {path.stem for path in shards.glob("*.npz")}
    return sorted(names & {path.stem for path in shards.glob("*.jsonl")}, key=int)


def _lines(shards: pathlib.Path, shard: str) -> list[dict]:
    text = (shards / f"{shard}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _distinct(shots: list[Shot], known: Captions | None, report: Report) -> dict[str, Shot]:
    """Photos by name, each with an id, and a caption where there are captions, of its own.

    Of several with one id that is taken which the file of captions names, else the first.
    """
    photos: dict[int, list[Shot]] = {}
    for shot in shots:
        if known and shot.image_id not in known.of:
            report.add("without caption", shot.where, "it has no caption")
        else:
            photos.setdefault(shot.image_id, []).append(shot)
    named = known.names if known else {}
    wanted = {}
    for number, same in photos.items():
        taken = next((shot for shot in same if shot.name == named.get(number)), same[0])
        wanted[taken.name] = taken
        for shot in same:
            if shot is not taken:
                reason = f"it has the id {number}, as {taken.name} has; rename one"
                report.add("same id", shot.where, reason)
    return wanted


def _fill(
    shard: FolderWriter,
    group: Sequence[Shot],
    detector: Detector,
    report: Report,
    counter: progress.Counter,
) -> None:
    """Detects the photos of one shard and writes it, unless none could be taken."""
    with contextlib.suppress(_Empty), shard as writer:
        for start in range(0, len(group), BATCH):
            batch = group[start : start + BATCH]
            for shot, picture, answer in _detected(batch, detector, report):
                height, width = picture.shape[:2]
                info = {"file": shot.name, "width": width, "height": height}
                try:
                    writer.add(base.photo(answer, image_id=shot.image_id, **info))
                except NoRoomError:
                    raise
                except UsageError as error:
                    report.add("not detected", shot.where, error)
            counter.add(len(batch))
        if not len(writer):
            raise _Empty


class _Empty(UsageError):
    """No photo of a shard could be taken."""


def _detected(
    shots: Sequence[Shot], detector: Detector, report: Report
) -> Iterator[tuple[Shot, np.ndarray, Detections]]:
    """Those of a batch that can be read and detected."""
    batch = []
    for shot in shots:
        try:
            batch.append((shot, shot.read()))
        except UsageError as error:
            report.add("damaged", shot.where, error)
    answers = _answers([picture for _, picture in batch], detector)
    for (shot, picture), answer in zip(batch, answers, strict=True):
        if isinstance(answer, Exception):
            told = f"the detector failed on it ({reason(answer)})"
            report.add("not detected", shot.where, told)
        else:
            yield shot, picture, answer


def _answers(batch: list[np.ndarray], detector: Detector) -> list[Detections | Exception]:
    """Of all pictures together; where that fails, of each, so that one does not cost the others."""
    if not batch:
        return []
    try:
        return list(detector.detect(batch))
    except Exception as error:  # of TensorFlow, torch or onnxruntime, which share no class
        if len(batch) == 1:
            return [error]
        return [answer for picture in batch for answer in _answers([picture], detector)]


def _join(
    shards: pathlib.Path,
    writer: FolderWriter,
    wanted: Mapping[str, Shot],
    known: Captions | None,
    report: Report,
) -> None:
    """Streams the shards into the split."""
    if not (names := _shards(shards)):
        shutil.rmtree(shards, ignore_errors=True)
        raise UsageError(f"not one photo could be taken{report.because}")
    with writer:
        for shard in names:
            found, lines = formats.read(shards, shard, bare=True), _lines(shards, shard)
            for photo, line in zip(formats.photos(found), lines, strict=True):
                if shot := wanted.get(line["file"]):
                    # A shard is written without captions, which may be others now.
                    own = known.of.get(shot.image_id, ()) if known else ()
                    info = {name: line[name] for name in ("file", "width", "height")}
                    writer.add(Photo(shot.image_id, own, photo.rows, info))
                    report.written[shot.image_id] = len(own)
    if known:
        report.join(known)
