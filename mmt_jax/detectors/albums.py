"""Photos that wait for a detector: a folder of files, or a corpus that `mmt data prepare` made."""

from __future__ import annotations

import dataclasses
import functools
import io
import os
import pathlib
from collections.abc import Callable, Iterator

import numpy as np

from mmt_jax.config import UsageError
from mmt_jax.data import corpora, photos, pictures
from mmt_jax.data.features import captions as captions_lib

PICTURE, CAPTIONS = "image", "text/captions"  # of a corpus's example


@dataclasses.dataclass(frozen=True)
class Shot:
    """One photo of an album.

    Attributes:
      name: unique in the album, such as the file's path within its folder.
      where: what is told of it where something is wrong.
      captions: none where they are not known.
      read: decodes it, [H, W, 3] uint8; raises UsageError where it cannot be.
    """

    name: str
    where: str
    captions: tuple[str, ...]
    read: Callable[[], np.ndarray]

    @property
    def image_id(self) -> int:
        """The id that it has in a region folder."""
        return photos.image_id(self.name)


@dataclasses.dataclass(frozen=True)
class Album:
    """Photos in order.

    Attributes:
      shots: of them.
      captioned: whether they come with captions, so that one without is left out.
    """

    shots: tuple[Shot, ...]
    captioned: bool


def find(
    place: str | os.PathLike, split: str, *, captions: str | os.PathLike | None = None
) -> Album:
    """The photos below a folder, or of a split of a prepared corpus.

    Args:
      place: either.
      split: which, of a corpus or of a Karpathy file of captions.
      captions: file of the captions (`mmt_jax.data.features.captions`); a corpus has its own.

    Raises:
      UsageError: no such folder, no photo in it, no such split or file of captions, or captions
        beside those of a corpus.
    """
    if not pathlib.Path(place).is_dir():
        raise UsageError(f"there is no folder {place}")
    if corpora.is_prepared(place):
        if captions is not None:
            raise UsageError(
                f"{place} is a prepared corpus, which has captions of its own; leave out --captions"
            )
        return _of_corpus(place, split)
    return _of_folder(pathlib.Path(place), split, captions)


def _of_folder(folder: pathlib.Path, split: str, captions: str | os.PathLike | None) -> Album:
    known = {} if captions is None else captions_lib.read(pathlib.Path(captions), split).of

    def shot(path: pathlib.Path) -> Shot:
        name = path.relative_to(folder).as_posix()
        own = known.get(photos.image_id(name), ())
        return Shot(name, str(path), own, functools.partial(pictures.read, path))

    return Album(tuple(map(shot, pictures.find(folder))), captions is not None)


def _of_corpus(folder: str | os.PathLike, split: str) -> Album:
    examples = corpora.read(folder, split)
    if f"{PICTURE}/encoded" not in examples.names:
        raise UsageError(
            f"{folder}: an example of this corpus has several photos; regions are made of corpora "
            f"whose examples have one"
        )

    def shots() -> Iterator[Shot]:
        for index, example in enumerate(examples):
            name, own = example[f"{PICTURE}/id"], tuple(example.get(CAPTIONS, ()))
            yield Shot(name, f"{folder}, photo {name}", own, functools.partial(read, index, name))

    def read(index: int, name: str) -> np.ndarray:
        encoded = examples[index][f"{PICTURE}/encoded"]
        return pictures.decode(io.BytesIO(encoded), f"{folder}, photo {name}")

    return Album(tuple(shots()), CAPTIONS in examples.names)
