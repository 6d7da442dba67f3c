"""A corpus: photos as rows of regions, each photo with its captions."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from mmt_jax.errors import UsageError
from mmt_jax.photo import FEATURES, PIXELS, Rows

Processor = Callable[[np.ndarray], np.ndarray]  # [H, W, 3] uint8 → [side, side, 3] uint8


@dataclasses.dataclass(frozen=True)
class Outline:
    """What is known of a corpus without its features."""

    captions: Sequence[tuple[str, ...]]  # of each photo; parsed when asked for, where on disk
    regions: np.ndarray  # [N] i64, regions of each photo, the whole photo not counted

    def all_captions(self) -> Iterator[str]:
        """One after the other."""
        for photo in self.captions:
            yield from photo


@dataclasses.dataclass(frozen=True, kw_only=True)
class Photos(abc.ABC):
    """What training and evaluation ask of a corpus, in memory or on disk."""

    name: str  # what errors and tables call it
    image_ids: np.ndarray  # [N] i64, unique
    # [N + 1] i64, ascending from 0: photo i has the rows `offsets[i]:offsets[i + 1]`, its regions
    # in any order and, last, the whole photo.
    offsets: np.ndarray
    captions: Sequence[tuple[str, ...]]  # of each photo; all in a tuple where they are in memory
    num_classes: int = 0  # of the detector; 0 where there is no class distribution
    num_attributes: int = 0  # likewise
    # Names of classes by id, where they are known.
    labels: Mapping[int, str] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    @abc.abstractmethod
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of one row by key; under `PIXELS` that of a photo's, where there are some."""

    @property
    def feature_dim(self) -> int:
        """F, of photos with regions."""
        if FEATURES not in self.shapes:
            raise no_regions(self.name)
        return self.shapes[FEATURES][0]

    def shown(self, processor: Processor, augment: Any = None, cache: Any = None) -> Photos:
        """The same photos as a model is shown them; pixels that are stored stay as they are.

        `augment`, a `photos.augment.Recipe`, changes those that are `drawn`; `cache` is a folder to
        keep them in as they are shown, see `data.decoded`.
        """
        del processor, augment, cache
        return self

    def picture(self, index: int) -> np.ndarray:
        """[H, W, 3] uint8: a photo to be looked at."""
        pixels = self.take(np.array([index])).pixels
        if pixels is None:
            raise UsageError(f"the photos of {self.name} have no pixels")
        return pixels[0]

    def photo_name(self, index: int) -> str:
        """What people call a photo: the path of its file within the data's folder, or its id."""
        return str(self.image_ids[index])

    @property
    def caption_counts(self) -> np.ndarray:
        """[N] i64: captions of each photo."""
        return np.array([len(photo) for photo in self.captions], np.int64)

    @abc.abstractmethod
    def take(self, photos: np.ndarray) -> Corpus:
        """Some photos [n] in memory, in this order, any of them more than once.

        Captions come along only where they are in memory.
        """

    def drawn(self, photos: np.ndarray, keys: np.ndarray) -> Corpus:
        """As `take`, for a step of training, which may change photos; see `shown`.

        What is random of a photo is a function of its own of the `keys` [n, k].
        """
        del keys
        return self.take(photos)

    def head(self, count: int) -> Self:
        """The first `count` photos, their captions in memory; nothing else is copied."""
        return dataclasses.replace(
            self,
            image_ids=self.image_ids[:count],
            offsets=self.offsets[: count + 1],
            captions=self.captions[:count],
        )

    def bare(self) -> Self:
        """The same photos without captions."""
        return dataclasses.replace(self, captions=((),) * len(self))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus(Photos):
    """Photos and captions in memory, column by column."""

    # Of all photos, by key, see `photo`; features f32 or f16, or uint8 companded as
    # `regions.encode` does.
    rows: Rows
    pixels: np.ndarray | None = None  # [N, H, W, 3] uint8

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        found = {key: values.shape[1:] for key, values in self.rows.items()}
        return found if self.pixels is None else found | {PIXELS: self.pixels.shape[1:]}

    def take(self, photos: np.ndarray) -> Corpus:
        """Captions are those of the photos."""
        counts = np.diff(self.offsets)[photos]
        offsets = starts(counts)
        rows = np.repeat(self.offsets[photos] - offsets[:-1], counts) + np.arange(offsets[-1])
        return dataclasses.replace(
            self,
            image_ids=self.image_ids[photos],
            offsets=offsets,
            captions=tuple(self.captions[photo] for photo in photos),
            rows={key: values[rows] for key, values in self.rows.items()},
            pixels=None if self.pixels is None else self.pixels[photos],
        )

    def head(self, count: int) -> Corpus:
        """Shares memory."""
        return dataclasses.replace(
            super().head(count),
            rows={key: values[: self.offsets[count]] for key, values in self.rows.items()},
            pixels=None if self.pixels is None else self.pixels[:count],
        )


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


def agreed(parts: Iterable[tuple[str, Any]], field: str) -> int:
    """The value that a field has in all the parts, by name, that have it; 0 = none has.

    `field` is "feature_dim", or a number of `photo.LABELS`. Values that differ are refused.
    """
    values = [(name, getattr(part, field)) for name, part in parts]
    if len({value for _, value in values} - {0}) > 1:
        what = "feature widths" if field == "feature_dim" else field.replace("num_", "numbers of ")
        found = ", ".join(f"{name} {value}" for name, value in values)
        raise UsageError(
            f"the corpora have different {what}: {found}; a mixture needs records of one detector"
        )
    return max(value for _, value in values)


def no_regions(name: str) -> UsageError:
    """What to raise where photos are given to who wants regions."""
    return UsageError(
        f"{name} has photos and no regions; have a detector find them with `mmt features`, or take "
        f"a model that reads pixels: CLIP, BridgeTower or pixel_vilbert_cc-full-image"
    )


def starts(sizes: Sequence[int] | np.ndarray) -> np.ndarray:
    """[n] sizes → [n + 1]: where each part starts when they are joined, and where the last ends."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
