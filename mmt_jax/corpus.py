"""A corpus: photos as rows of regions, each photo with its captions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from mmt_jax.photo import ROWS


@dataclasses.dataclass(frozen=True)
class Outline:
    """What is known of a corpus without its features.

    Attributes:
      captions: one tuple of captions a photo; parsed when asked for, where they lie on disk.
      regions: [N] i64, regions of each photo, the whole photo not counted.
    """

    captions: Sequence[tuple[str, ...]]
    regions: np.ndarray

    def all_captions(self) -> Iterator[str]:
        """One after the other."""
        for photo in self.captions:
            yield from photo


class Photos(Protocol):
    """What training and evaluation ask of a corpus, in memory or on disk."""

    @property
    def name(self) -> str:
        """What errors and tables call it."""
        ...

    @property
    def image_ids(self) -> np.ndarray:
        """[N] i64, unique."""
        ...

    @property
    def offsets(self) -> np.ndarray:
        """[N + 1] i64, ascending from 0: photo i has `offsets[i + 1] - offsets[i]` rows."""
        ...

    @property
    def captions(self) -> Sequence[tuple[str, ...]]:
        """One tuple of captions a photo; a tuple of these where they are in memory."""
        ...

    @property
    def num_classes(self) -> int:
        """0 where there is no class distribution."""
        ...

    @property
    def num_attributes(self) -> int:
        """Likewise."""
        ...

    @property
    def feature_dim(self) -> int:
        """F."""
        ...

    @property
    def classes_kept(self) -> int:
        """k, the likeliest classes that are kept of a distribution, or 0."""
        ...

    @property
    def attributes_kept(self) -> int:
        """Likewise."""
        ...

    @property
    def pixel_shape(self) -> tuple[int, ...] | None:
        """(H, W, 3), or None where there are no pixels."""
        ...

    @property
    def pixels(self) -> np.ndarray | None:
        """[N, H, W, 3] uint8, all of them in memory, or None."""
        ...

    @property
    def caption_counts(self) -> np.ndarray:
        """[N] i64: captions of each photo."""
        ...

    def __len__(self) -> int: ...

    def take(self, photos: np.ndarray) -> Corpus:
        """Photos [B] of 0 ≤ index < N in memory, in that order, again where one is named again."""
        ...

    def head(self, count: int) -> Photos:
        """The first `count` photos."""
        ...

    def bare(self) -> Photos:
        """The same photos without captions."""
        ...


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Photos and captions in memory, column by column.

    Rows `offsets[i]:offsets[i + 1]` belong to photo i; its first row is the whole photo, the others
    are its regions, in any order.

    Attributes:
      name: what errors and tables call it.
      image_ids: [N] i64, unique.
      offsets: [N + 1] i64, ascending from 0.
      features: [rows, F], f32 or f16, or uint8 companded as `(value / 8) ** 2 * FEATURE_SCALE`.
      boxes: [rows, 4] f32: ymin, xmin, ymax, xmax in 0..1.
      captions: one tuple of captions a photo.
      scores: [rows] f32, best non-background score of each region, or None.
      class_ids: [rows, k] i32 and class_probs: [rows, k] f32, the k likeliest of `num_classes`
        classes; what their probabilities leave over is spread evenly over the other classes.
      num_classes: 0 where there is no class distribution.
      attribute_ids: [rows, j] i32 and attribute_probs: [rows, j] f32, the j likeliest of
        `num_attributes` attributes.
      num_attributes: 0 where there are none.
      pixels: [N, H, W, 3] uint8, or None.
    """

    name: str
    image_ids: np.ndarray
    offsets: np.ndarray
    features: np.ndarray
    boxes: np.ndarray
    captions: tuple[tuple[str, ...], ...]
    scores: np.ndarray | None = None
    class_ids: np.ndarray | None = None
    class_probs: np.ndarray | None = None
    num_classes: int = 0
    attribute_ids: np.ndarray | None = None
    attribute_probs: np.ndarray | None = None
    num_attributes: int = 0
    pixels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def feature_dim(self) -> int:
        """See `Photos`."""
        return self.features.shape[1]

    @property
    def classes_kept(self) -> int:
        """See `Photos`."""
        return 0 if self.class_ids is None else self.class_ids.shape[1]

    @property
    def attributes_kept(self) -> int:
        """See `Photos`."""
        return 0 if self.attribute_ids is None else self.attribute_ids.shape[1]

    @property
    def pixel_shape(self) -> tuple[int, ...] | None:
        """See `Photos`."""
        return None if self.pixels is None else self.pixels.shape[1:]

    @property
    def caption_counts(self) -> np.ndarray:
        """See `Photos`."""
        return np.array([len(photo) for photo in self.captions], np.int64)

    def take(self, photos: np.ndarray) -> Corpus:
        """See `Photos.take`."""
        counts = np.diff(self.offsets)[photos]
        offsets = starts(counts)
        rows = np.repeat(self.offsets[photos] - offsets[:-1], counts) + np.arange(offsets[-1])
        captions = tuple(self.captions[photo] for photo in photos)
        return self._part(photos, rows, offsets, captions)

    def head(self, count: int) -> Corpus:
        """See `Photos.head`; shares memory."""
        rows = slice(self.offsets[count])
        return self._part(slice(count), rows, self.offsets[: count + 1], self.captions[:count])

    def bare(self) -> Corpus:
        """See `Photos.bare`; shares memory."""
        return dataclasses.replace(self, captions=((),) * len(self))

    def _part(
        self,
        photos: np.ndarray | slice,
        rows: np.ndarray | slice,
        offsets: np.ndarray,
        captions: tuple[tuple[str, ...], ...],
    ) -> Corpus:
        names = dict.fromkeys(ROWS, rows)
        names |= {"image_ids": photos, "pixels": photos}
        values = {name: getattr(self, name) for name in names}
        cut = {name: value[names[name]] for name, value in values.items() if value is not None}
        return dataclasses.replace(self, offsets=offsets, captions=captions, **cut)


class AllCaptions(Sequence[str]):
    """The captions of all photos, one after the other, read from where they are."""

    def __init__(self, corpora: Sequence[Photos]):
        """Counts them."""
        self._corpora = tuple(corpora)
        self._photos = starts([len(corpus) for corpus in corpora])
        self.starts = starts(np.concatenate([corpus.caption_counts for corpus in corpora]))

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: Any) -> Any:
        """A caption, or for a slice a tuple of them."""
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        index = range(len(self))[index]
        photo = int(np.searchsorted(self.starts, index, side="right")) - 1
        part = int(np.searchsorted(self._photos, photo, side="right")) - 1
        own = self._corpora[part].captions[photo - int(self._photos[part])]
        return own[index - int(self.starts[photo])]


def starts(sizes: Sequence[int] | np.ndarray) -> np.ndarray:
    """[n] sizes → [n + 1]: where each part starts when they are joined, and where the last ends."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
