"""Photos that wait for a detector: a folder of files, or a corpus that `mmt data prepare` made."""

from __future__ import annotations

import dataclasses
import functools
import io
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from mmt_jax import photo as photos
from mmt_jax.errors import UsageError
from mmt_jax.ingest import corpora
from mmt_jax.ingest.features import captions as captions_lib
from mmt_jax.ingest.features.captions import Captions
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


@dataclasses.dataclass(frozen=True)
class Album:
    """Photos in order.

    Attributes:
      shots: of them.
      captions: of the photos by their ids, or None where there are none, so that they are no fault.
    """

    shots: tuple[Shot, ...]
    captions: Captions | None


def find(
    place: str | os.PathLike,
    split: str,
    *,
    captions: str | os.PathLike | None = None,
    track: Callable[[Sequence], Iterable] = iter,
) -> Album:
    """The photos below a folder, or of a split of a prepared corpus.

    Args:
      place: either.
      split: which, of a corpus or of a Karpathy file of captions.
      captions: file of the captions (`mmt_jax.ingest.features.captions`); a corpus has its own.
      track: goes over the examples of a corpus, each of which is read whole for its id and
        captions, as a progress bar does.

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
        return _of_corpus(place, split, track)
    return _of_folder(pathlib.Path(place), split, captions)


def _of_folder(folder: pathlib.Path, split: str, captions: str | os.PathLike | None) -> Album:
    def shot(path: pathlib.Path) -> Shot:
        name = path.relative_to(folder).as_posix()
        return Shot(name, str(path), functools.partial(pictures.read, path))

    known = None if captions is None else captions_lib.read(pathlib.Path(captions), split)
    return Album(tuple(map(shot, pictures.find(folder))), known)


def _of_corpus(
    folder: str | os.PathLike, split: str, track: Callable[[Sequence], Iterable]
) -> Album:
    examples = corpora.read(folder, split)
    if f"{PICTURE}/encoded" not in examples.names:
        raise UsageError(
            f"{folder}: an example of this corpus has several photos; regions are made of corpora "
            f"whose examples have one"
        )

    def read(index: int, name: str) -> np.ndarray:
        encoded = examples[index][f"{PICTURE}/encoded"]
        return pictures.decode(io.BytesIO(encoded), f"{folder}, photo {name}")

    shots, known = [], Captions(str(folder))
    for index, example in enumerate(track(examples)):
        name = example[f"{PICTURE}/id"]
        shot = Shot(name, f"{folder}, photo {name}", functools.partial(read, index, name))
        shots.append(shot)
        if texts := example.get(CAPTIONS):
            known.of.setdefault(shot.image_id, tuple(texts))
            known.names.setdefault(shot.image_id, name)
    return Album(tuple(shots), known if CAPTIONS in examples.names else None)
