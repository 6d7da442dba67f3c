"""Which pairs make a batch, and in which order.

That is a function of the seed and the step alone: neither of the number of hosts and processes that
read, nor of where a run was stopped. grain shuffles and mixes photo numbers; the records themselves
are touched once a batch.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import jax
import numpy as np
from absl import flags

from mmt_jax.corpus import starts as starts_of
from mmt_jax.data import buckets as buckets_lib
from mmt_jax.data.buckets import WINDOW, Size
from mmt_jax.errors import UsageError
from mmt_jax.typing import Batch

_ENDLESS = 2**62  # batches
_GUARD = (
    "a script that uses config.data.workers is imported by each of them; put what it does "
    "under `if __name__ == '__main__':`"
)


class Feed(Iterator[Batch]):
    """Endless batches, and the place among them."""

    def __init__(self, data: grain.MapDataset[Batch], *, workers: int):
        """`data` yields a step's batch by its number; `workers` 0 reads it in threads."""
        self._data, self._workers = data, workers
        self._iterator: grain.DatasetIterator[Batch] | None = None
        self.set_state({"next_index": 0})

    def get_state(self) -> dict[str, int]:
        """The number of the next batch; the same whatever the number of workers."""
        return {"next_index": self._next}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes on from there."""
        self.close()
        self._next = state["next_index"]

    def __next__(self) -> Batch:
        if self._iterator is None:
            options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
            data = self._data[self._next :].to_iter_dataset(options)
            if self._workers:
                if not flags.FLAGS.is_parsed():  # grain reads its own, in notebooks too
                    flags.FLAGS.mark_as_parsed()
                data = data.mp_prefetch(grain.MultiprocessingOptions(num_workers=self._workers))
            self._iterator = iter(data)
        try:
            batch = next(self._iterator)
        except RuntimeError as error:
            if "process was terminated" not in str(error):  # grain has no class for it
                raise
            self.close()
            raise UsageError(
                f"a process of config.data.workers died ({error}) If it could not even start: "
                f"{_GUARD}"
            ) from None
        self._next += 1
        # Shared memory of workers leaks where a batch lives until the process ends, as in jax's CPU
        # arrays, which take numpy's memory as it is.
        return jax.tree.map(np.array, batch) if self._workers else batch

    def close(self) -> None:
        """Ends threads and processes."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None


def batches(
    examples: Any,
    *,
    seed: int,
    batch_size: int,
    sampling: str = "instance",
    buckets: Sequence[Size] = (),
    rows: slice = slice(None),
    workers: int = 0,
) -> Feed:
    """Endless batches of numpy arrays, prefetched in threads or processes.

    Each time a photo is drawn, one of its captions is drawn at random.

    Args:
      examples: what to draw from: `Examples`, or without buckets what has its `sizes`,
        `random_captions` and `batch`.
      seed: batch number `step` is a function of it, the step and the other arguments alone.
      batch_size: B.
      sampling: of a mixture. "instance": each photo of all corpora once an epoch, every epoch in an
        order of its own. "dataset": the corpora take turns, each in epochs of its own.
      buckets: sizes that batches are cut to, see `data.buckets`; none = pairs are not grouped.
      rows: of each batch, those that are read; its size and order do not depend on it.
      workers: processes that read; 0 = threads of this one. Changes nothing but speed.

    Raises:
      UsageError: a bucket without room, or workers are asked for by one that is only being
        started; later, a worker died.
    """
    if workers and getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UsageError(_GUARD)  # multiprocessing asks the same, but not before it is half-way
    order = _order(examples.sizes, seed, sampling)
    sizes = buckets_lib.sizes(buckets, examples.size) if buckets else ()
    draw = _Draw(examples, order, seed=seed, batch_size=batch_size, sizes=sizes, rows=rows)
    return Feed(grain.MapDataset.range(_ENDLESS).map(draw), workers=workers)


class _Draw:
    """A step's number → its batch."""

    def __init__(self, examples, order, *, seed, batch_size, sizes, rows):
        self._examples, self._seed, self._sizes, self._rows = examples, seed, sizes, rows
        self._together = WINDOW if sizes else 1  # batches that are drawn at once
        # Dropping the (infinitely far) remainder keeps the length a machine integer.
        self._order = order.batch(
            batch_size * self._together, drop_remainder=True, batch_fn=np.array
        )
        self._window: tuple[int, list[tuple[np.ndarray, np.ndarray, Size]]] = (-1, [])

    def __call__(self, step: int) -> Batch:
        if not self._sizes:
            images = self._order[step]
            return self._batch(images, self._captions(images, step), step)
        window, place = divmod(step, self._together)
        known = self._window  # once, for another thread may replace it
        if known[0] != window:
            known = self._window = window, self._grouped(window)
        images, captions, size = known[1][place]
        return self._examples.cut(self._batch(images, captions, step), size)

    def _captions(self, images: np.ndarray, step: int) -> np.ndarray:
        return self._examples.random_captions(images, np.random.default_rng([self._seed, step]))

    def _batch(self, images: np.ndarray, captions: np.ndarray, step: int) -> Batch:
        # numpy reads no zeros at the end: without the 1, row 0 would be drawn as captions are.
        keys = np.full((len(images), 4), (self._seed, step, 0, 1), np.int64)
        keys[:, 2] = np.arange(len(images))
        return self._examples.batch(images[self._rows], captions[self._rows], keys[self._rows])

    def _grouped(self, window: int) -> list[tuple[np.ndarray, np.ndarray, Size]]:
        """Photos, captions and size of each batch of a window."""
        parts = np.split(self._order[window], self._together)
        first = window * self._together
        captions = [self._captions(images, first + i) for i, images in enumerate(parts)]
        pairs = np.concatenate(parts), np.concatenate(captions)
        needed = self._examples.needed(*pairs)
        rng = np.random.default_rng([self._seed, window, self._together])
        found = []
        for mine in buckets_lib.grouped(needed, self._sizes, self._together, rng):
            (size,) = buckets_lib.smallest(needed[mine].max(axis=0)[None], self._sizes)
            found.append((pairs[0][mine], pairs[1][mine], self._sizes[size]))
        return found


def _order(sizes: Sequence[int], seed: int, sampling: str) -> grain.MapDataset[int]:
    """Photo numbers without end."""
    # grain adds the epoch to the seed, so seeds next to each other must not stay so.
    seeds = np.random.SeedSequence(seed).generate_state(len(sizes)).tolist()
    if sampling == "instance":
        return grain.MapDataset.range(sum(sizes)).shuffle(seeds[0]).repeat()
    starts = starts_of(sizes).tolist()
    turns = [
        grain.MapDataset.range(start, stop).shuffle(seed).repeat()
        for start, stop, seed in zip(starts[:-1], starts[1:], seeds, strict=True)
    ]
    return grain.MapDataset.mix(turns)
