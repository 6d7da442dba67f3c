"""Photos, through a detector, into a region folder.

Until the end, finished photos lie in splits of a hidden region folder beside the target, some tens
of them each. What stops the work costs one of these at most; the same command goes on from there.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence

from mmt_jax import detectors, progress
from mmt_jax.data import album, formats, layouts, prepared
from mmt_jax.data import captions as captions_lib
from mmt_jax.data.captions import Captions
from mmt_jax.data.layouts import Found
from mmt_jax.data.writer import FLOATS, FolderWriter, NoPhotoError
from mmt_jax.detectors import base
from mmt_jax.detectors.base import Detector
from mmt_jax.errors import NoRoomError, UsageError, trying
from mmt_jax.files import lock, tidy, whole
from mmt_jax.ingest.report import Report
from mmt_jax.photo import Photo, image_id
from mmt_jax.photos import pictures

SHARD = 64  # photos that are kept together


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
        corpus, of which `split` is read, each example whole for its id and captions.
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
    images = pathlib.Path(images)
    found, captioned, known = _listed(images, split, captions)
    loaded = detectors.load(detector)
    writer.num_classes = loaded.num_classes or None
    about = {"detector": detector, "images": str(images), "dtype": dtype}
    report = Report(folder, split)
    with tidy(folder), _claimed(shards, about):
        done = {line["file"] for shard in _shards(shards) for line in _lines(shards, shard)}
        if captioned:
            for photo in (photo for photo in found if not photo.captions):
                report.add("without caption", str(images / photo.name), "it has no caption")
            found = [photo for photo in found if photo.captions]
        wanted = _distinct(found, known, images, report)
        report.kept = len(done & wanted.keys())
        pending = [photo for name, photo in wanted.items() if name not in done]
        groups = [pending[i : i + SHARD] for i in range(0, len(pending), SHARD)]
        first = 1 + max((int(path.stem) for path in shards.glob("*.npz")), default=-1)
        with progress.Counter("photos", len(wanted), done=report.kept) as counter:
            for number, group in enumerate(groups, first):
                shard = FolderWriter(
                    shards, f"{number:06d}", dtype=dtype, num_classes=writer.num_classes
                )
                _fill(shard, images, group, loaded, report, counter)
        _join(shards, writer, wanted, report)
        if known:
            report.join(known)
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


def _listed(
    folder: pathlib.Path, split: str, captions: str | os.PathLike | None
) -> tuple[list[Found], bool, Captions | None]:
    """The photos in order, whether they have captions, and what the file of these holds."""
    if not prepared.is_prepared(folder):
        known = None if captions is None else captions_lib.read(pathlib.Path(captions), split)
        found = []
        for path in pictures.find(folder):
            number = image_id(name := path.relative_to(folder).as_posix())
            own = known.of.get(number, ()) if known else ()
            found.append(layouts.of_file(path, number, name, own))
        return found, known is not None, known
    if captions is not None:
        raise UsageError(
            f"{folder} is a prepared corpus, which has captions of its own; leave out --captions"
        )
    examples = prepared.read(folder, split)
    if len(examples.photos) != 1:
        raise UsageError(
            f"{folder}: an example of this corpus has several photos; regions are made of corpora "
            f"whose examples have one"
        )
    photos = album.of_examples(examples, folder)
    found = [*progress.track(photos, "ids and captions", total=len(examples))]
    return found, prepared.caption_feature(examples.names) is not None, None


def _distinct(
    found: list[Found], known: Captions | None, folder: pathlib.Path, report: Report
) -> dict[str, Found]:
    """Photos by name, each with an id of its own.

    Of several with one id that is taken which the file of captions names, else the first.
    """
    photos: dict[int, list[Found]] = {}
    for photo in found:
        photos.setdefault(photo.image_id, []).append(photo)
    named = known.names if known else {}
    wanted = {}
    for number, same in photos.items():
        taken = next((photo for photo in same if photo.name == named.get(number)), same[0])
        wanted[taken.name] = taken
        for photo in same:
            if photo is not taken:
                reason = f"it has the id {number}, as {taken.name} has; rename one"
                report.add("same id", str(folder / photo.name), reason)
    return wanted


def _fill(
    shard: FolderWriter,
    folder: pathlib.Path,
    group: Sequence[Found],
    detector: Detector,
    report: Report,
    counter: progress.Counter,
) -> None:
    """Detects the photos of one shard and writes it, unless none could be taken."""
    with contextlib.suppress(NoPhotoError), shard:
        for photo in group:
            where, kind = str(folder / photo.name), "damaged"
            try:
                picture = pictures.decode(io.BytesIO(photo.read()), where)
                kind = "not detected"
                with trying("the detector failed on it"):
                    answer = detector.detect(picture)
                height, width = picture.shape[:2]
                info = {"file": photo.name, "width": width, "height": height}
                shard.add(base.photo(answer, image_id=photo.image_id, **info))
            except NoRoomError:
                raise
            except UsageError as error:
                report.add(kind, where, error)
            counter.add(1)


def _join(
    shards: pathlib.Path,
    writer: FolderWriter,
    wanted: Mapping[str, Found],
    report: Report,
) -> None:
    """Streams the shards into the split."""
    if not (names := _shards(shards)):
        shutil.rmtree(shards, ignore_errors=True)
        raise UsageError(f"not one photo could be taken{report.because}")
    with writer:
        for shard in names:
            found, lines = formats.read(shards, shard, bare=True), _lines(shards, shard)
            for seen, line in zip(formats.photos(found), lines, strict=True):
                if photo := wanted.get(line["file"]):
                    # A shard is written without captions, which may be others now.
                    info = {name: line[name] for name in ("file", "width", "height")}
                    writer.add(Photo(photo.image_id, photo.captions, seen.rows, info))
                    report.written[photo.image_id] = len(photo.captions)
