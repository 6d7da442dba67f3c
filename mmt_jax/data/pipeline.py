"""From corpora to batches: everything that is fixed is laid out once, a batch is a gather.

The order of examples is a function of the seed and the step alone. grain shuffles and mixes photo
numbers; the records themselves are touched once a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import grain
import numpy as np

from mmt_jax.config import Config, UsageError
from mmt_jax.data import regions
from mmt_jax.data.corpus import Corpus
from mmt_jax.data.text import Tokenizer
from mmt_jax.typing import Batch, Image, Text

SAMPLING = ("instance", "dataset")


class Examples:
    """Corpora as one list of N photos and one list of M captions.

    Shapes are static: T is the longest caption's, at most `text_length`; the most regions that a
    photo keeps, at most `max_regions`, and the global region make R.

    Attributes:
      sizes: photos of each corpus, in order.
      image_ids: [N] i64, as the corpora have them. Photos of equal id count as the same photo, so
        that two corpora over the same photos never make each other's mismatched pairs.
      captions: the M captions as they are written.
      caption_to_image: [M] i64, the photo of each caption.
      num_classes: of the class distributions; 0 = none.
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
        tokenizer: Tokenizer,
        *,
        text_length: int = 25,
        max_regions: int = 100,
        reading: str = "plain",
        patch_size: int | None = None,
        layout: str = "release",
        global_region: bool = True,
    ):
        """Lays corpora out.

        Args:
          corpora: one, or the parts of a mixture; records of one detector.
          tokenizer: makes tokens of captions.
          text_length: T at most, `[SEP]` and `[CLS]` included; longer captions are cut.
          max_regions: of a photo, the global one not counted.
          reading: "plain" or "release", see `regions`.
          patch_size: given, records are patches of the photos' pixels in place of their regions.
          layout: of captions, see `Tokenizer.layout`.
          global_region: whether the whole photo follows a photo's regions as the last of them.

        Raises:
          UsageError: the corpora do not fit together, or a caption is empty.
        """
        self.sizes = tuple(len(corpus) for corpus in corpora)
        self.image_ids = np.concatenate([corpus.image_ids for corpus in corpora])
        self._photo_ids = np.unique(self.image_ids, return_inverse=True)[1].astype(np.int32)
        self._patch_size, self._global_region = patch_size, global_region
        self._corpora = tuple(corpora)
        if patch_size:
            self.num_classes = 0
            self._lay_out_pixels()
        else:
            self.num_classes = max(corpus.num_classes for corpus in corpora)
            self._lay_out_regions(max_regions, reading)
        self._lay_out_captions(tokenizer, text_length, layout)

    @classmethod
    def of(cls, config: Config, corpora: Sequence[Corpus], tokenizer: Tokenizer) -> Examples:
        """Examples as a config asks for them.

        Raises:
          UsageError: also where `config.data.text_length` is more than the model's positions.
        """
        if config.data.text_length > config.model.max_positions:
            raise UsageError(
                f"config.data.text_length is {config.data.text_length}, but the model has only "
                f"{config.model.max_positions} positions (config.model.max_positions)"
            )
        return cls(
            corpora,
            tokenizer,
            text_length=config.data.text_length,
            max_regions=config.data.max_regions,
            reading=config.data.regions,
            patch_size=config.model.patch_size if config.model.pixels else None,
            layout=config.model.layout,
            global_region=config.model.global_region,
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    def _lay_out_pixels(self) -> None:
        shapes = set()
        for corpus in self._corpora:
            if corpus.pixels is None:
                raise UsageError(f"{corpus.name} has no pixels, which config.model.pixels asks for")
            shapes.add(corpus.pixels.shape[1:])
        if len(shapes) > 1:
            raise UsageError(f"the corpora have photos of different sizes: {sorted(shapes)}")
        self._image_starts = _starts(self.sizes)
        self.images(np.arange(0))  # cut nothing, but say now if the patches do not fit

    def _lay_out_regions(self, max_regions: int, reading: str) -> None:
        _check_agreement(self._corpora)
        self._reading = reading
        self._row_starts = _starts([len(corpus.features) for corpus in self._corpora])
        tables = [
            regions.slots(
                c.offsets,
                c.scores,
                max_regions=max_regions,
                reading=reading,
                global_region=self._global_region,
            )
            for c in self._corpora
        ]
        width = max(table.shape[1] for table in tables)
        self._slots = np.full((len(self), width), -1, np.int64)
        for table, photo, row in zip(tables, _starts(self.sizes), self._row_starts, strict=False):
            block = self._slots[photo : photo + len(table), width - table.shape[1] :]
            block[:] = np.where(table >= 0, table + row, -1)
        self._boxes = np.concatenate([regions.with_area(c.boxes) for c in self._corpora])
        self._class_ids = self._class_probs = None
        if self.num_classes:
            self._class_ids, self._class_probs = _class_distributions(self._corpora)

    def _lay_out_captions(self, tokenizer: Tokenizer, text_length: int, layout: str) -> None:
        per_photo = [photo for corpus in self._corpora for photo in corpus.captions]
        self.captions = tuple(caption for photo in per_photo for caption in photo)
        counts = np.array([len(photo) for photo in per_photo], np.int64)
        if not counts.all():
            missing = self.image_ids[np.flatnonzero(counts == 0)[0]]
            raise UsageError(f"photo {missing} has no caption; leave it out")
        self._caption_starts = _starts(counts)
        self.caption_to_image = np.repeat(np.arange(len(counts)), counts)
        encoded = tokenizer.encode_all(self.captions)
        longest = max(map(len, encoded)) + 2
        self._texts = tokenizer.layout(encoded, length=min(longest, text_length), layout=layout)

    def images(self, indices: np.ndarray) -> Image:
        """Photos [B] of 0 ≤ index < N as numpy arrays."""
        if self._patch_size:
            pixels = _gather([c.pixels for c in self._corpora], self._image_starts, indices)
            return regions.pixel_image(
                pixels.astype(np.float32) / 255,
                self._patch_size,
                global_region=self._global_region,
            )
        return regions.assemble(
            self._slots[indices],
            features=self._features,
            boxes=self._boxes,
            class_ids=self._class_ids,
            class_probs=self._class_probs,
            reading=self._reading,
            global_region=self._global_region,
        )

    def _features(self, rows: np.ndarray) -> np.ndarray:
        parts = [corpus.features for corpus in self._corpora]
        return _gather(parts, self._row_starts, rows, regions.decode)

    def texts(self, indices: np.ndarray) -> Text:
        """Captions [B] of 0 ≤ index < M as numpy arrays."""
        texts = self._texts
        return Text(
            texts.token_ids[indices],
            texts.segment_ids[indices],
            texts.word_ids[indices],
            texts.mask[indices],
        )

    def batch(self, image_indices: np.ndarray, caption_indices: np.ndarray) -> Batch:
        """Pairs of photo and caption, row by row."""
        return Batch(
            self.texts(caption_indices), self.images(image_indices), self._photo_ids[image_indices]
        )

    def all_images(self, chunk: int = 256) -> Iterator[Image]:
        """Every photo once, in order, `chunk` at a time; the last chunk may be smaller."""
        for start in range(0, len(self), chunk):
            yield self.images(np.arange(start, min(start + chunk, len(self))))

    def random_captions(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One caption [B] for each of the photos [B], uniformly among its own."""
        start = self._caption_starts[images]
        count = self._caption_starts[images + 1] - start
        return start + (rng.random(len(images)) * count).astype(np.int64)


def batches(
    examples: Examples,
    *,
    seed: int,
    batch_size: int,
    sampling: str = "instance",
    start_step: int = 0,
) -> grain.DatasetIterator[Batch]:
    """Endless batches of numpy arrays, prefetched in threads.

    Each time a photo is drawn, one of its captions is drawn at random.

    Args:
      examples: what to draw from.
      seed: batch number `step` is a function of it, the step and the other arguments alone.
      batch_size: B.
      sampling: of a mixture. "instance": each photo of all corpora once an epoch, every epoch in an
        order of its own. "dataset": the corpora take turns, each in epochs of its own.
      start_step: number of the first batch.

    Returns:
      An iterator with grain's `get_state` and `set_state`.

    Raises:
      UsageError: unknown sampling, or a batch size below 1.
    """
    if batch_size < 1:
        raise UsageError(f"config.batch_size is {batch_size}; it must be at least 1")

    def gather(step: int, images: np.ndarray) -> Batch:
        captions = examples.random_captions(images, np.random.default_rng([seed, step]))
        return examples.batch(images, captions)

    order = _order(examples.sizes, seed, sampling)
    # Dropping the (infinitely far) remainder keeps the length a machine integer.
    data = order.batch(batch_size, drop_remainder=True, batch_fn=np.array).map_with_index(gather)
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    iterator = iter(data.to_iter_dataset(options))
    iterator.set_state({"next_index": start_step})
    return iterator


def _order(sizes: Sequence[int], seed: int, sampling: str) -> grain.MapDataset[int]:
    """Photo numbers without end."""
    if sampling not in SAMPLING:
        raise UsageError(f"unknown sampling {sampling!r}; it is one of {SAMPLING}")
    # grain adds the epoch to the seed, so seeds next to each other must not stay so.
    seeds = np.random.SeedSequence(seed).generate_state(len(sizes)).tolist()
    if sampling == "instance":
        return grain.MapDataset.range(sum(sizes)).shuffle(seeds[0]).repeat()
    starts = _starts(sizes).tolist()
    turns = [
        grain.MapDataset.range(start, stop).shuffle(seed).repeat()
        for start, stop, seed in zip(starts[:-1], starts[1:], seeds, strict=True)
    ]
    return grain.MapDataset.mix(turns)


def _starts(sizes: Sequence[int] | np.ndarray) -> np.ndarray:
    """[n] sizes → [n + 1]: where each part starts when they are joined, and where the last ends."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _gather(parts, starts, indices, decode=lambda values: values) -> np.ndarray:
    """`decode(concatenate(parts)[indices])` without concatenating; parts may differ in dtype."""
    if len(parts) == 1:
        return decode(parts[0][indices])
    owner = np.searchsorted(starts, indices, side="right") - 1
    out = np.empty((len(indices), *parts[0].shape[1:]), decode(parts[0][:0]).dtype)
    for number in np.unique(owner):
        mine = owner == number
        out[mine] = decode(parts[number][indices[mine] - starts[number]])
    return out


def _check_agreement(corpora: Sequence[Corpus]) -> None:
    first = corpora[0]
    for corpus in corpora[1:]:
        if corpus.feature_dim != first.feature_dim:
            raise UsageError(
                f"{first.name} has features of width {first.feature_dim}, {corpus.name} of "
                f"{corpus.feature_dim}; a mixture needs records of one detector"
            )
    if len({corpus.num_classes for corpus in corpora} - {0}) > 1:
        raise UsageError(
            "the corpora have different numbers of classes: "
            + ", ".join(f"{corpus.name} {corpus.num_classes}" for corpus in corpora)
            + "; a mixture needs records of one detector"
        )


def _class_distributions(corpora: Sequence[Corpus]) -> tuple[np.ndarray, np.ndarray]:
    """[rows, k] ids and probabilities of all corpora; both 0 where a corpus has fewer, or none."""
    rows = sum(len(corpus.features) for corpus in corpora)
    width = max(c.class_ids.shape[1] for c in corpora if c.class_ids is not None)
    ids, probs = np.zeros((rows, width), np.int32), np.zeros((rows, width), np.float32)
    start = 0
    for corpus in corpora:
        stop = start + len(corpus.features)
        if corpus.class_ids is not None:
            k = corpus.class_ids.shape[1]
            ids[start:stop, :k], probs[start:stop, :k] = corpus.class_ids, corpus.class_probs
        start = stop
    return ids, probs
