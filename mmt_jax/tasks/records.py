"""A task's entries laid out as batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import jax
import numpy as np

from mmt_jax.configs.config import Config
from mmt_jax.configs.tasks import TASKS
from mmt_jax.corpus import Photos
from mmt_jax.data import regions
from mmt_jax.data.pipeline import Examples
from mmt_jax.errors import UsageError
from mmt_jax.photo import image_id
from mmt_jax.photos import processors
from mmt_jax.photos.processors import Processor
from mmt_jax.tasks import labels, registry
from mmt_jax.tasks.base import Entry
from mmt_jax.text.base import Tokenizer
from mmt_jax.typing import Batch, Image, Text


def asked(config: Config, workdir: str | os.PathLike) -> tuple[list[Entry], tuple[str, ...]]:
    """Entries and labels of a run's task; the labels are the workdir's, where it has some.

    Raises:
      UsageError: an unknown task, a file with a fault, or no labels.
    """
    task, about = config.task, registry.get(config.task.name)
    entries = registry.read(task.name, task.questions, task.annotations)
    names = labels.known(workdir) or (labels.read(task.labels) if task.labels else about.classes)
    names = names or about.listed(entries, task.least)
    if not names:
        raise UsageError(
            f"no answer of {task.questions} is given {task.least} times; lower config.task.least, "
            f"or name a list of answers as config.task.labels"
        )
    return entries, names


class Records:
    """Entries as one list, from which `feed.batches` draws.

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
        *,
        say: Callable[[str], None] | None = None,
        cache: str | None = None,
        processor: Processor | None = None,
    ):
        """Lays entries out.

        `names` are the labels by number. The photos that entries name are each in one of `corpora`;
        `say` is told how many entries are left out for want of theirs, None = these are refused;
        `cache` and `processor` are as of `Examples.of`.
        """
        self._config, self._reads = config, TASKS[config.task.name].reads
        self._photos = self._texts = None
        if TASKS[config.task.name].photos:
            bare = [corpus.bare() for corpus in corpora]  # captions are the entries' own
            self._photos = Examples.of(
                config, bare, tokenizer, bare=True, cache=cache, processor=processor
            )
            entries, self._numbers = _joined(entries, self._photos.image_ids, corpora, say)
        else:
            self._numbers = np.arange(len(entries))[:, None]
        if "text" in self._reads:
            self._texts = texts(config, [entry.sentences for entry in entries], tokenizer)
        self.entries, self.sizes = entries, (len(entries),)
        self._targets = labels.Targets(names)

    def __len__(self) -> int:
        return len(self.entries)

    def random_captions(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """An entry's sentence is its own."""
        del rng
        return rows

    def batch(
        self,
        rows: np.ndarray,
        sentences: np.ndarray | None = None,
        keys: np.ndarray | None = None,
    ) -> Batch:
        """Entries [B] as numpy arrays; `keys` as of `Examples.batch`."""
        del sentences
        images = [self._images(rows, place, keys) for place in range(self._reads.count("image"))]
        text = None
        if self._texts is not None:
            text = jax.tree.map(lambda values: values[rows], self._texts)
        first = self._numbers[rows, 0].astype(np.int32)
        targets = self._targets([self.entries[row] for row in rows])
        return Batch(text, images[0] if images else None, first, tuple(images[1:]), targets)

    def _images(self, rows: np.ndarray, place: int, keys: np.ndarray | None) -> Image:
        if self._photos is not None:
            # Two photos of an entry are changed each in its own way.
            keys = None if keys is None else keys + np.eye(1, keys.shape[1], 3, int) * place
            return self._photos.images(self._numbers[rows, place], keys)
        model = self._config.model
        processor = processors.Processor(model.image_size)
        pixels = [processor(self.entries[row].pixels) for row in rows]
        return regions.pixel_image(np.stack(pixels), model.patch_size, global_region=False)


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


def _joined(
    entries: Sequence[Entry],
    image_ids: np.ndarray,
    corpora: Sequence[Photos],
    say: Callable[[str], None] | None,
) -> tuple[Sequence[Entry], np.ndarray]:
    """The N entries whose photos are there, and [N, n] i64: which photo stands where in each."""
    source = ", ".join(corpus.name for corpus in corpora)
    ids, rows, counts = np.unique(image_ids, return_index=True, return_counts=True)
    where, twice = dict(zip(ids.tolist(), rows.tolist())), {*ids[counts > 1].tolist()}
    kept, numbers, lacking = [], [], []
    for entry in entries:
        wanted = [p if isinstance(p, int) else image_id(p) for p in entry.photos]
        if shared := twice.intersection(wanted):
            raise UsageError(
                f"photo {shared.pop()} is in {source} more than once; give the one source that the "
                f"task's photos are of"
            )
        if where.keys() >= {*wanted}:
            kept.append(entry)
            numbers.append([where[number] for number in wanted])
        else:
            lacking.append(entry)
    if lacking:
        told = (
            f"{len(lacking)} of {len(entries)} entries are about photos that {source} lacks, the "
            f"first is {lacking[0].key!r} about {' and '.join(map(str, lacking[0].photos))}"
        )
        if say is None or not kept:
            remedy = f"give the source and split that hold them ({len(where):,} photos were read)"
            raise UsageError(f"{told}; {remedy}")
        say(f"{told}; they are left out")
    return kept, np.array(numbers, np.int64)
