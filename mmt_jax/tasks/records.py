"""A task's entries laid out as batches, and its labels, which live in the workdir."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from mmt_jax import photo as photo_names
from mmt_jax.configs.config import Config
from mmt_jax.configs.tasks import TASKS
from mmt_jax.corpus import Photos
from mmt_jax.data import regions
from mmt_jax.data.pipeline import Examples
from mmt_jax.errors import UsageError
from mmt_jax.files import whole
from mmt_jax.photos import processors
from mmt_jax.tasks import answers, readers
from mmt_jax.tasks.readers import Entry
from mmt_jax.text.base import Tokenizer
from mmt_jax.typing import Batch, Image, Text

LABELS = "labels.json"


def labels(config: Config, entries: Sequence[Entry], workdir: str | os.PathLike) -> tuple[str, ...]:
    """The answers by number: the workdir's, `config.task.labels`, or those of the entries.

    Raises:
      UsageError: there is none.
    """
    if stored := known_labels(workdir):
        return stored
    if config.task.labels:
        return answers.read_classes(config.task.labels)
    found = readers.READERS[config.task.name].labels(entries, config.task.least)
    if not found:
        raise UsageError(
            f"no answer of {config.task.questions} is given {config.task.least} times; lower "
            f"config.task.least, or name a list of answers as config.task.labels"
        )
    return found


def stored_labels(workdir: str | os.PathLike) -> tuple[str, ...]:
    """The labels of a run.

    Raises:
      UsageError: it has none.
    """
    names = known_labels(workdir)
    if not names:
        raise UsageError(
            f"{workdir} has no {LABELS}: it was not trained on a task; of imported weights, give "
            f"the published list of answers as --labels"
        )
    return names


def known_labels(workdir: str | os.PathLike) -> tuple[str, ...]:
    """The labels of a run; () = it has none."""
    path = pathlib.Path(workdir) / LABELS
    return answers.read_classes(path) if path.is_file() else ()


def store_labels(names: Sequence[str], workdir: str | os.PathLike) -> None:
    """Writes them, whole or not at all."""
    with whole(pathlib.Path(workdir) / LABELS) as part:
        part.write_bytes(as_json(names))


def as_json(names: Sequence[str]) -> bytes:
    """What `labels.json` holds."""
    return (json.dumps(names, ensure_ascii=False, indent=1) + "\n").encode()


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a run is trained to answer."""

    entries: list[Entry]
    labels: tuple[str, ...]
    photos: bool  # whether the source's photos are needed

    @property
    def sentences(self) -> list[str]:
        """All of them, for a vocabulary."""
        return [sentence for entry in self.entries for sentence in entry.sentences]


def asked(config: Config, workdir: str | os.PathLike) -> Asked:
    """Entries and labels of a run's task.

    Raises:
      UsageError: an unknown task, a file with a fault, or no labels.
    """
    name = config.task.name
    if name not in TASKS:
        raise UsageError(f"config.task.name={name!r} is unknown; there are {', '.join(TASKS)}")
    entries = readers.read(name, config.task.questions, config.task.annotations)
    photos = {"text", "image"} <= set(TASKS[name].reads)
    return Asked(entries, labels(config, entries, workdir), photos)


class Records:
    """Entries as one list, from which `pipeline.batches` draws.

    Attributes:
      entries: N of them.
      sizes: (N,).
    """

    def __init__(
        self,
        config: Config,
        entries: Sequence[Entry],
        names: Sequence[str],
        tokenizer: Tokenizer,
        corpora: Sequence[Photos],
    ):
        """Lays entries out.

        Args:
          config: of the run.
          entries: see `readers.read`.
          names: the labels by number.
          tokenizer: of the run.
          corpora: hold the photos that entries name; none where these bring theirs along.

        Raises:
          UsageError: a photo is in no corpus.
        """
        self.entries, self.sizes, self._config = entries, (len(entries),), config
        reads = TASKS[config.task.name].reads
        self._texts = self._photos = None
        if "text" in reads:
            self._texts = texts(config, [entry.sentences for entry in entries], tokenizer)
        if reads == ("image",):
            self._numbers = np.arange(len(entries))[:, None]
            self._processor = processors.Processor(config.model.image_size)
        elif "image" in reads:
            bare = [corpus.bare() for corpus in corpora]  # captions are the entries' own
            self._photos = Examples.of(config, bare, tokenizer, bare=True)
            self._numbers = _numbers(entries, self._photos.image_ids, corpora)
        else:
            self._numbers = np.arange(len(entries))[:, None]
        self._reads = reads
        self._targets = answers.targets([entry.worth or {} for entry in entries], names)

    def __len__(self) -> int:
        return len(self.entries)

    def random_captions(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """An entry's sentence is its own."""
        del rng
        return rows

    def batch(self, rows: np.ndarray, sentences: np.ndarray | None = None) -> Batch:
        """Entries [B] as numpy arrays."""
        del sentences
        images = [self._images(rows, place) for place in range(self._reads.count("image"))]
        text = None
        if self._texts is not None:
            text = Text(*(getattr(self._texts, f.name)[rows] for f in dataclasses.fields(Text)))
        first = self._numbers[rows, 0].astype(np.int32)
        image = images[0] if images else None
        return Batch(text, image, first, tuple(images[1:]), self._targets[rows])

    def _images(self, rows: np.ndarray, place: int) -> Image:
        if self._photos is not None:
            return self._photos.images(self._numbers[rows, place])
        pixels = [self._processor(self.entries[row].pixels) for row in rows]
        return regions.pixel_image(
            np.stack(pixels), self._config.model.patch_size, global_region=False
        )


def texts(config: Config, sentences: Sequence[tuple[str, ...]], tokenizer: Tokenizer) -> Text:
    """One or two sentences a row, as the model reads them.

    Of two, the longer is cut until both fit. Between them stand one [SEP] or, in models without
    segments, as RoBERTa's, two; what follows is segment 1 in models that have one, but for those
    with the release's layout, whose segments are others.

    Raises:
      UsageError: no room for a word.
    """
    model, most = config.model, config.data.text_length
    encoded = tokenizer.encode_all([s for row in sentences for s in row])
    parts, start = [], 0
    segments = getattr(model, "segments", 2)
    separators = [tokenizer.sep_id] * (2 if segments == 1 else 1)
    for row in sentences:
        ids = [list(part) for part in encoded[start : start + len(row)]]
        start += len(row)
        room = most - 2 - len(separators) * (len(ids) - 1)
        while len(ids) > 1 and sum(map(len, ids)) > max(room, len(ids)):
            max(ids, key=len).pop()
        parts.append(ids)
    joined = [ids[0] + [i for part in ids[1:] for i in separators + part] for ids in parts]
    length = min(max(map(len, joined)) + 2, most)
    laid = tokenizer.layout(joined, length=length, layout=model.layout)
    if model.layout == "cls_first" and segments > 1:
        for row, ids in enumerate(parts):
            if len(ids) > 1:
                second = np.arange(length) > len(ids[0]) + 1
                laid.segment_ids[row] = second & laid.mask[row]
    return laid


def _numbers(
    entries: Sequence[Entry], image_ids: np.ndarray, corpora: Sequence[Photos]
) -> np.ndarray:
    """[N, n] i64: which photo stands where in each entry."""
    where = {int(number): row for row, number in enumerate(image_ids)}
    wanted = [[_id(photo) for photo in entry.photos] for entry in entries]
    if len(where) < len(image_ids):
        numbers, counts = np.unique(image_ids, return_counts=True)
        twice = {*numbers[counts > 1].tolist()}
        asked = [number for ids in wanted for number in ids if number in twice]
        if asked:
            raise UsageError(
                f"photo {asked[0]} is in {' and '.join(corpus.name for corpus in corpora)} more "
                f"than once; give the one source that the task's photos are of"
            )
    missing = [
        entry for entry, ids in zip(entries, wanted) if any(number not in where for number in ids)
    ]
    if missing:
        photos = " and ".join(str(photo) for photo in missing[0].photos)
        raise UsageError(
            f"{len(missing)} of {len(entries)} entries are about photos that "
            f"{', '.join(corpus.name for corpus in corpora)} lacks, the first is "
            f"{missing[0].key!r} about {photos}; give the source and split that hold them"
        )
    return np.array([[where[number] for number in ids] for ids in wanted], np.int64)


def _id(photo: int | str) -> int:
    return photo if isinstance(photo, int) else photo_names.image_id(photo)
