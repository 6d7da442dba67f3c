"""Photos, through a detector, into a region folder.

Until the end, finished photos lie in splits of a hidden region folder beside the target, some tens
of them each. What stops the work costs one of these at most; the same command goes on from there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from mmt_jax import detectors
from mmt_jax.config import UsageError
from mmt_jax.data import schema
from mmt_jax.data.photos import Photo
from mmt_jax.data.writer import FolderWriter
from mmt_jax.detectors import albums, base
from mmt_jax.detectors.albums import Album, Shot
from mmt_jax.detectors.base import Detections, Detector

SHARD = 64  # photos that are kept together
BATCH = 8  # pictures in memory at once


@dataclasses.dataclass
class Summary:
    """What became of an album.

    Attributes:
      photos: in the region folder.
      kept: of these, found finished from an earlier run.
      skipped: of each photo that is not in it, where it lies and the reason.
    """

    photos: int = 0
    kept: int = 0
    skipped: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def skip(self, shot: Shot, reason: object) -> None:
        """Counts a photo that is left out."""
        self.skipped.append((shot.where, str(reason)))


def extract(
    detector: str,
    images: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    split: str = "train",
    captions: str | os.PathLike | None = None,
    dtype: str = "float16",
    track: Callable[[Sequence], Iterable] = iter,
) -> Summary:
    """Makes one split of a region folder.

    A photo that cannot be read, on which the detector fails or finds nothing, whose id another one
    has, or without a caption where there are captions, is left out and listed in
    `<split>.skipped.jsonl`; the rest goes on.

    Args:
      detector: as `detectors.load` takes it.
      images: a folder, below which photos are found by the endings of their names, or a prepared
        corpus, of which `split` is read.
      folder: the region folder; the split must not be there yet.
      split: to write.
      captions: file of captions (`mmt_jax.data.features.captions`); None = photos have none.
      dtype: of the stored features, "float16" or "float32".
      track: goes over the batches, as a progress bar does.

    Raises:
      UsageError: no such folder, detector or captions, the split is there already or was begun
        otherwise, or no photo could be taken.
    """
    folder, shards = pathlib.Path(folder), pathlib.Path(folder) / f".{split}.shards"
    for target in (folder / f"{split}.npz", folder / f"{split}.jsonl"):
        if target.exists():
            raise UsageError(f"{target} exists and is not overwritten; remove it or name another")
    album = albums.find(images, split, captions=captions)
    loaded, summary = detectors.load(detector), Summary()
    _claim(shards, {"detector": detector, "images": str(images), "dtype": dtype})
    done = {line["file"] for shard in _shards(shards) for line in _lines(shards, shard)}
    wanted = _distinct(album, summary)
    summary.kept = sum(name in done for name in wanted)
    pending = [shot for name, shot in wanted.items() if name not in done]
    groups = [pending[i : i + SHARD] for i in range(0, len(pending), SHARD)]
    writing = {"dtype": dtype, "num_classes": loaded.num_classes or None}
    first = 1 + max((int(shard) for shard in _shards(shards)), default=-1)
    for number, group in enumerate(track(groups), first):
        _fill(shards, f"{number:06d}", group, loaded, writing, summary)
    summary.photos = _join(shards, folder, split, writing, set(wanted), summary)
    _report(folder / f"{split}.skipped.jsonl", summary)
    shutil.rmtree(shards)
    return summary


def _claim(shards: pathlib.Path, about: dict[str, str]) -> None:
    """Begins the shards, or goes on with those of the same command."""
    path = shards / "about.json"
    if path.exists():
        if (begun := json.loads(path.read_text(encoding="utf-8"))) != about:
            raise UsageError(
                f"{shards} was begun with {begun}, and now there is {about}; finish it so, or "
                f"remove it"
            )
        return
    try:
        shards.mkdir(parents=True, exist_ok=True)
        part = shards / f".about.{os.getpid()}"
        part.write_text(json.dumps(about), encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise UsageError(f"{shards} cannot be written ({error}); name another folder") from None


def _shards(shards: pathlib.Path) -> list[str]:
    """Names of the finished shards, in order."""
    names = {path.stem for path in shards.glob("*.npz")}
    return sorted(names & {path.stem for path in shards.glob("*.jsonl")})


def _lines(shards: pathlib.Path, shard: str) -> list[dict]:
    text = (shards / f"{shard}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _distinct(album: Album, summary: Summary) -> dict[str, Shot]:
    """Photos by name, each with an id, and a caption where there are captions, of its own."""
    found: dict[int, str] = {}
    wanted = {}
    for shot in album.shots:
        if (number := shot.image_id) in found:
            summary.skip(shot, f"{shot.where} has the id {number}, as {found[number]} has")
        elif album.captioned and not shot.captions:
            summary.skip(shot, f"{shot.where} has no caption")
        else:
            found[number] = shot.name
            wanted[shot.name] = shot
    return wanted


def _fill(
    shards: pathlib.Path,
    shard: str,
    group: Sequence[Shot],
    detector: Detector,
    writing: dict,
    summary: Summary,
) -> None:
    """Detects the photos of one shard and writes it, unless none could be taken."""
    found = _detected(group, detector, summary)
    begun = next(found, None)
    if begun is None:
        return
    with contextlib.suppress(_Empty), FolderWriter(shards, shard, **writing) as writer:
        for shot, picture, detections in itertools.chain([begun], found):
            height, width = picture.shape[:2]
            try:
                photo = base.photo(
                    detections,
                    image_id=shot.image_id,
                    captions=shot.captions,
                    file=shot.name,
                    width=width,
                    height=height,
                )
                writer.add(photo)
            except UsageError as error:
                if isinstance(error.__cause__, OSError):  # no photo's fault
                    raise
                summary.skip(shot, f"{shot.where}: {error}")
        if not len(writer):
            raise _Empty


class _Empty(UsageError):
    """No photo of a shard could be taken."""


def _detected(
    group: Sequence[Shot], detector: Detector, summary: Summary
) -> Iterator[tuple[Shot, np.ndarray, Detections]]:
    for start in range(0, len(group), BATCH):
        batch = []
        for shot in group[start : start + BATCH]:
            try:
                batch.append((shot, shot.read()))
            except UsageError as error:
                summary.skip(shot, error)
        answers = _answers([picture for _, picture in batch], detector)
        for (shot, picture), answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                summary.skip(shot, f"{shot.where}: the detector failed on it ({answer})")
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
    folder: pathlib.Path,
    split: str,
    writing: dict,
    wanted: set[str],
    summary: Summary,
) -> int:
    """Streams the shards into the split; returns the number of photos."""
    names = _shards(shards)
    if not names:
        shutil.rmtree(shards)
        first = f"; the first reason: {summary.skipped[0][1]}" if summary.skipped else ""
        raise UsageError(f"not one photo could be taken{first}")
    with FolderWriter(folder, split, **writing) as writer:
        for shard in names:
            with schema.open_npz(path := shards / f"{shard}.npz") as file:
                arrays = {name: schema.read_array(file, name, path) for name in file.files}
            for line, ends in zip(_lines(shards, shard), itertools.pairwise(arrays["offsets"])):
                if line["file"] in wanted:
                    writer.add(_photo(arrays, slice(*ends), line))
        return len(writer)


def _photo(arrays: dict[str, np.ndarray], rows: slice, line: dict) -> Photo:
    names = ("features", "boxes", "scores", "class_ids", "class_probs")
    columns = {name: arrays[name][rows] for name in names if name in arrays}
    return Photo(line.pop("image_id"), tuple(line.pop("captions")), **columns, info=line)


def _report(path: pathlib.Path, summary: Summary) -> None:
    """A line for each photo that was left out; no file where none was."""
    path.unlink(missing_ok=True)
    if not summary.skipped:
        return
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with open(part, "w", encoding="utf-8", errors="replace") as file:
        for where, reason in summary.skipped:
            file.write(json.dumps({"where": where, "reason": reason}) + "\n")
    os.replace(part, path)
