"""Photos that wait for a detector: a folder of files, or a corpus that `mmt data prepare` made."""

from __future__ import annotations

import dataclasses
import functools
import io
import os
import pathlib
from collections.abc import Callable

import numpy as np

from mmt_jax import photo as photos
from mmt_jax import progress
from mmt_jax.data import captions as captions_lib
from mmt_jax.data.captions import Captions
from mmt_jax.errors import UsageError
from mmt_jax.ingest import corpora
from mmt_jax.photos import pictures

PICTURE, CAPTIONS = "image", "text/captions"  # of a corpus's example


@dataclasses.dataclass(frozen=True)
class Shot:
    """One photo of an album.

    Attributes:
      name: unique in the album, such as the file's path within its folder.
      where: what is told of it where something is wrong.
      read: decodes it, [H, W, 3] uint8; raises UsageError where it cannot be.
    """

    name: str
    where: str
    read: Callable[[], np.ndarray]

    @property
    def image_id(self) -> int:
        """The id that it has in a region folder."""
        return photos.image_id(self.name)


# Photos in order, and their captions; None where there are none, so that they are no fault.
Album = tuple[list[Shot], Captions | None]


def find(
    place: str | os.PathLike, split: str, *, captions: str | os.PathLike | None = None
) -> Album:
    """The photos below a folder, or of a split of a prepared corpus.

    Args:
      place: either; the examples of a corpus are each read whole for their ids and captions.
      split: which, of a corpus or of a Karpathy file of captions.
      captions: file of the captions (`mmt_jax.data.captions`); a corpus has its own.

    Raises:
      UsageError: no such folder, no photo in it, no such split or file of captions, or captions
        beside those of a corpus.
    """
    folder = pathlib.Path(place)
    if not folder.is_dir():
        raise UsageError(f"there is no folder {place}")
    if corpora.is_prepared(place):
        if captions is not None:
            raise UsageError(
                f"{place} is a prepared corpus, which has captions of its own; leave out --captions"
            )
        return _of_corpus(place, split)
    known = None if captions is None else captions_lib.read(pathlib.Path(captions), split)
    shots = [
        Shot(path.relative_to(folder).as_posix(), str(path), functools.partial(pictures.read, path))
        for path in pictures.find(folder)
    ]
    return shots, known


def _of_corpus(folder: str | os.PathLike, split: str) -> Album:
    examples = corpora.read(folder, split)
    if f"{PICTURE}/encoded" not in examples.names:
        raise UsageError(
            f"{folder}: an example of this corpus has several photos; regions are made of corpora "
            f"whose examples have one"
        )

    def read(index: int, where: str) -> np.ndarray:
        return pictures.decode(io.BytesIO(examples[index][f"{PICTURE}/encoded"]), where)

    shots, known = [], Captions(str(folder))
    for index, example in enumerate(progress.track(examples, "ids and captions")):
        name = example[f"{PICTURE}/id"]
        where = f"{folder}, photo {name}"
        shots.append(shot := Shot(name, where, functools.partial(read, index, where)))
        if texts := example.get(CAPTIONS):
            known.of.setdefault(shot.image_id, tuple(texts))
            known.names.setdefault(shot.image_id, name)
    return shots, known if CAPTIONS in examples.names else None
