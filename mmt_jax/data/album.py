"""Photos as sources, decoded when they are drawn: folders and shards of them, and TFDS.

Only names and captions are in memory. A photo is made what the model sees by who draws it: one of
`config.data.workers`, or a thread of the feed.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import io
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmt_jax import progress
from mmt_jax.corpus import Corpus, Photos, Processor, no_regions
from mmt_jax.data import decoded, layouts, prepared
from mmt_jax.data.layouts import Found, Left
from mmt_jax.data.source import Source, Spec, portion, within
from mmt_jax.errors import UsageError
from mmt_jax.photo import PIXELS, image_id
from mmt_jax.photos import pictures
from mmt_jax.photos.augment import Recipe
from mmt_jax.text.base import prepare


@dataclasses.dataclass(frozen=True, kw_only=True)
class Album(Photos):
    """Photos that are decoded whenever they are taken; they have no regions.

    Attributes:
      photos: where each of them is.
      processor: makes of a photo what a model is shown; None = `picture` alone is asked for.
      side: of what it makes.
      augment: how photos that are `drawn` are changed; None = not at all.
      cache: holds what the processor made, see `decoded`; None = it is made when it is taken.
    """

    photos: Sequence[Found]
    processor: Processor | None = None
    side: int = 0
    augment: Recipe | None = None
    cache: pathlib.Path | None = None

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {PIXELS: (self.side, self.side, 3)} if self.processor else {}

    def shown(
        self, processor: Any, augment: Recipe | None = None, cache: str | os.PathLike | None = None
    ) -> Album:
        cut, side, path = processor.cut, processor.side, None
        if cache:
            path = decoded.kept(
                cache,
                [self.name, *(photo.name for photo in self.photos)],
                (photo.file for photo in self.photos),
                how=repr(processor),
                side=side,
                decode=lambda index: cut(self.picture(index)),
            )
        return dataclasses.replace(self, processor=cut, side=side, augment=augment, cache=path)

    def photo_name(self, index: int) -> str:
        return self.photos[index].name

    def picture(self, index: int) -> np.ndarray:
        """Upright, and of its own size."""
        photo = self.photos[index]
        return pictures.decode(io.BytesIO(photo.read()), f"{self.name}, photo {photo.name}")

    def take(self, photos: np.ndarray) -> Corpus:
        return self._made(photos, (None,) * len(photos))

    def drawn(self, photos: np.ndarray, keys: np.ndarray) -> Corpus:
        return self._made(photos, list(keys))

    def _made(self, photos: np.ndarray, keys: Sequence[np.ndarray | None]) -> Corpus:
        if (cut := self.processor) is None:
            raise UsageError(
                f"{self.name} holds photos as they are, of any size; a model that reads pixels "
                f"takes them, and `mmt features` makes records of them"
            )
        pixels = []
        for photo, key in zip(photos, keys, strict=True):
            if key is None or self.augment is None:
                kept = self.cache
                pixels.append(
                    decoded.opened(kept)[photo] if kept else cut(self.picture(int(photo)))
                )
            else:
                picture = self.picture(int(photo))
                rng = np.random.default_rng(key)
                pixels.append(self.augment(picture, cut, self.side, rng))
        shape = (len(photos), *self.shapes[PIXELS])
        return Corpus(
            name=self.name,
            image_ids=self.image_ids[photos],
            offsets=np.arange(len(photos) + 1),
            captions=tuple(self.captions[photo] for photo in photos),
            rows={},
            pixels=np.array(pixels, np.uint8).reshape(shape),
        )

    def head(self, count: int) -> Album:
        return self.only(np.arange(min(count, len(self))))

    def only(self, photos: np.ndarray) -> Album:
        """Some of the photos, none of them read."""
        return dataclasses.replace(
            self,
            image_ids=self.image_ids[photos],
            offsets=np.arange(len(photos) + 1),
            captions=tuple(self.captions[photo] for photo in photos),
            photos=[self.photos[photo] for photo in photos],
            cache=None,  # whose rows are those of all
        )


class _Albums(Source):
    """Sources of photos; the last few splits that were listed stay listed."""

    def spec(self) -> Spec:
        """Raises UsageError: there are no regions to have features."""
        raise no_regions(str(self))

    def load(self, split: str, *, seed: int, size: int | None, pixels: bool, bare: bool) -> Album:
        del seed, size, pixels
        name, part = portion(split)
        if name not in (known := self.splits()):
            raise UsageError(f"{self} has no split {name!r}; it has {', '.join(known)}")
        album = _album(self, name, self.changed(name))
        asked = within(album.image_ids, part, split)
        rows = asked if bare else asked[album.caption_counts[asked] > 0]
        if not len(rows):
            raise UsageError(
                f"{self}: no photo of the split {split} has a caption; put a file of captions "
                f"beside the photos, such as captions.jsonl, or name it: "
                f"photos:FOLDER?captions=FILE"
            )
        if silent := len(asked) - len(rows):
            first = album.photo_name(int(np.setdiff1d(asked, rows)[0]))
            _tell(
                f"{self}, {split}: left out {silent:,} photos without caption; the first: {first}"
            )
        return album.only(rows)

    def blocks(self, split: str, *, pixels: bool, photos: int = 256) -> Iterator[Corpus]:
        """Raises UsageError: there are no regions to be packed."""
        raise no_regions(str(self))

    def changed(self, split: str) -> tuple[int, ...]:
        """Numbers that change where the files do."""
        raise NotImplementedError

    def listed(self, split: str) -> Iterator[Found | Left]:
        """The photos of a split, and what is left out of it."""
        raise NotImplementedError


class PhotoFolder(_Albums):
    """`photos:FOLDER`: see `layouts`."""

    kind = "photos"
    form = "photos:FOLDER (with ?captions=FILE)"

    def _files(self) -> tuple[pathlib.Path, dict[str, list[pathlib.Path]]]:
        folder, _, given = self.name.partition("?captions=")
        path = pathlib.Path(folder)
        return path, layouts.splits(path, pathlib.Path(given) if given else None)

    def splits(self) -> tuple[str, ...]:
        return tuple(sorted(self._files()[1]))

    def changed(self, split: str) -> tuple[int, ...]:
        folder, files = self._files()
        return tuple(path.stat().st_mtime_ns for path in (folder, *files[split]))

    def listed(self, split: str) -> Iterator[Found | Left]:
        folder, files = self._files()
        return layouts.entries(folder, split, files[split], only=len(files) == 1)


class Prepared(_Albums):
    """`tfds:DIR/NAME`: what `mmt data prepare` wrote, or any with a photo and a text."""

    kind = "tfds"
    form = "tfds:DIR/NAME"

    def splits(self) -> tuple[str, ...]:
        return prepared.splits(self.name)

    def changed(self, split: str) -> tuple[int, ...]:
        return ((prepared.find(self.name) / prepared.INFO).stat().st_mtime_ns,)

    def listed(self, split: str) -> Iterator[Found]:
        return of_examples(prepared.read(self.name, split), self.name)


def of_examples(examples: prepared.Examples, folder: str | os.PathLike) -> Iterator[Found]:
    """The photos of a prepared split of `folder`; each example is read whole for its captions."""
    if not examples.photos:
        raise UsageError(f"{folder} has no feature that is an image")
    texts = prepared.caption_feature(examples.names)
    about = prepared.find(folder) / prepared.INFO
    for index, example in enumerate(examples):
        said = example.get(texts, ()) if texts else ()
        said = tuple(text for text in ([said] if isinstance(said, str) else said) if prepare(text))
        for photo in examples.photos:
            of = photo.removesuffix("/encoded")
            name = str(
                example.get(f"{of}/id", index if len(examples.photos) == 1 else f"{index}-{of}")
            )
            read = functools.partial(_value, examples, index, photo)
            yield Found(image_id(name), name, said, about, read)


def _value(examples: prepared.Examples, index: int, name: str) -> bytes:
    return examples[index][name]


_tell = functools.lru_cache(progress.say)  # once a process


@functools.lru_cache(maxsize=8)
def _album(source: _Albums, split: str, changed: tuple[int, ...]) -> Album:
    """All photos of a split, each once; what is left out is told, once a process."""
    del changed  # only there so that files that changed are listed again
    left: collections.Counter[str] = collections.Counter()
    first: dict[str, str] = {}
    found: dict[int, Found] = {}
    for entry in progress.track(source.listed(split), "photos listed"):
        if isinstance(entry, Found):
            if (twin := found.setdefault(entry.image_id, entry)) is entry:
                continue
            entry = Left("photos of one id", f"{entry.name} has the id of {twin.name}")
        left[entry.kind] += entry.count
        first.setdefault(entry.kind, entry.why)
    for kind, count in left.items():
        progress.say(f"{source}, {split}: left out {count:,} {kind}; the first: {first[kind]}")
    if not found:
        raise UsageError(f"{source} has not one photo of the split {split} that can be read")
    photos = tuple(found.values())
    return Album(
        name=str(source),
        image_ids=np.array(list(found), np.int64),
        offsets=np.arange(len(found) + 1),
        captions=tuple(photo.captions for photo in photos),
        photos=photos,
    )
