"""What every kind of source answers; `sources` lists the kinds."""

from __future__ import annotations

import abc
import dataclasses
import re
import zlib
from collections.abc import Iterator
from typing import ClassVar, Self

import numpy as np

from mmt_jax.corpus import Corpus, Outline, Photos
from mmt_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Spec:
    """What the records of a source look like."""

    feature_dim: int
    num_classes: int  # 0: no class distribution
    num_attributes: int  # 0: none
    unlabelled: bool  # some regions have no class distribution


@dataclasses.dataclass(frozen=True)
class Source(abc.ABC):
    """One part of a mixture: a subclass for each kind.

    Attributes:
      kind: the word that its name begins with.
      form: how users write it, for messages.
      generated: whether it is made here, and nothing of it is on disk.
      name: of the folder, or of the corpus.
    """

    kind: ClassVar[str]
    form: ClassVar[str]
    generated: ClassVar[bool] = False

    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"

    @classmethod
    def parse(cls, rest: str) -> Self | None:
        """The source whose name goes on so behind the kind's word; None = that is no such name."""
        return cls(rest[1:]) if rest[:1] == ":" and rest[1:] else None

    @abc.abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that there are.

        Raises:
          UsageError: the folder has none.
        """

    @abc.abstractmethod
    def spec(self) -> Spec:
        """What its records look like, read off the split `train`, or the first.

        Raises:
          UsageError: as `splits`, or that split cannot be read.
        """

    @abc.abstractmethod
    def load(self, split: str, *, seed: int, size: int | None, pixels: bool, bare: bool) -> Photos:
        """A split in memory, or opened where it is read photo by photo.

        Args:
          seed, size: of a generated corpus; None = its own size.
          pixels: whether the photos' pixels come along.
          bare: whether photos without captions are taken too.

        Raises:
          UsageError: no such split, or one with a fault.
        """

    def outline(self, split: str, *, size: int | None = None) -> Outline:
        """Captions and numbers of regions of a split; features on disk are not read."""
        photos = self.load(split, seed=0, size=size, pixels=False, bare=False)
        return Outline(photos.captions, np.diff(photos.offsets) - 1)

    def blocks(self, split: str, *, pixels: bool, photos: int = 256) -> Iterator[Corpus]:
        """A split, some photos at a time."""
        whole = self.load(split, seed=0, size=None, pixels=pixels, bare=False)
        for start in range(0, len(whole), photos):
            own = slice(start, min(start + photos, len(whole)))
            block = whole.take(np.arange(own.start, own.stop))
            yield dataclasses.replace(block, captions=whole.captions[own])


WHOLE = range(100)


def portion(split: str) -> tuple[str, range]:
    """`train[:90%]` → ("train", range(90)); a name alone is all of it.

    Raises:
      UsageError: a bound is above 100 %.
    """
    match = re.fullmatch(r"(.+)\[(?:(\d+)%)?:(?:(\d+)%)?\]", split)
    if match is None:
        return split, WHOLE
    first, end = int(match[2] or 0), int(match[3] or 100)
    if max(first, end) > 100:
        raise UsageError(
            f"the split {split} goes beyond 100 %; write train[90%:] for its last tenth"
        )
    return match[1], range(first, end)


def within(image_ids: np.ndarray, part: range, split: str) -> np.ndarray:
    """Rows of the photos whose ids fall into those of a hundred parts.

    Raises:
      UsageError: none does.
    """
    if part == WHOLE:
        return np.arange(len(image_ids))
    rows = [i for i, name in enumerate(image_ids) if zlib.crc32(b"%d" % name) % 100 in part]
    if not rows:
        raise UsageError(f"the split {split} holds no photo; write train[90%:] for its last tenth")
    return np.array(rows)
