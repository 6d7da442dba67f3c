"""What a corpus is: which published files it is made of, and the examples that they hold.

A corpus's own module only turns its files into `Item`s; photos, hashes, exclusion and writing are
the same for all of them.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmt_jax.errors import UsageError
from mmt_jax.ingest import boxes
from mmt_jax.tasks.base import Entry

CAPTIONS = {"text/captions": "texts"}  # `Corpus.fields` of a photo and its captions
UNDIVIDED = "full"  # the split of a corpus that nobody divided; "all" is TFDS's for all splits
_FLICKR = re.compile(r"flickr\.com/(?:\d+/)+(\d+)_[0-9a-f]+")


@dataclasses.dataclass(frozen=True)
class Picture:
    """A photo that annotations speak of.

    Its `ids` are its names in other corpora too, such as "coco:391895" and "flickr:3715786136", by
    which a photo of one is known in another.
    """

    id: str  # in its corpus
    files: tuple[str, ...]  # where it may lie in the raw folder; the first that is there counts
    ids: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Item:
    """An example whose photos are still to be read."""

    key: str  # unique within the split
    where: str  # the file and line, or the file, that it comes from
    pictures: tuple[Picture, ...]  # as many as the corpus has `pictures`
    fields: Mapping[str, Any]  # values by name, of the kinds that the corpus's `fields` says
    # Width and height that the annotators of its boxes saw, which tell whether the photo was turned
    # by its EXIF tag then.
    frame: tuple[int, int] | None = None
    cut: int = 0  # how many of its boxes were cut at the photo's edges


@dataclasses.dataclass(frozen=True)
class Skipped:
    """An entry, or a part of one, that is left out."""

    where: str  # the file, and the line where it is known
    reason: str  # one of a few words, by which they are counted
    text: str  # what is wrong with it


Entries = Iterator[Item | Skipped]


@dataclasses.dataclass(frozen=True)
class Corpus:
    """One corpus."""

    name: str  # as `--corpus` takes it
    title: str  # what it is, with its paper
    wants: str  # the files that the raw folder must hold
    splits: Callable[[Raw], tuple[str, ...]]  # those whose files a raw folder has
    # Entries of one of them, duplicates included; a UsageError where a file is not as published.
    read: Callable[[Raw, str], Entries]
    # Kind by name of what an example holds beside its photos: "text", "texts", "int", "ints",
    # "floats", or "boxes", which are [n, 4] f32: ymin, xmin, ymax, xmax in 0..1.
    fields: Mapping[str, str] = dataclasses.field(default_factory=lambda: CAPTIONS)
    # The field whose elements are counted beside the examples, and compared with what is published.
    counts: str = "text/captions"
    pictures: tuple[str, ...] = ("image",)  # names of an example's photos
    large: bool = False  # millions of photos or texts: Beam prepares it where no runner is named

    def entries(self, raw: Raw, split: str) -> Entries:
        """The entries of a split; of items with the same key only the first is one."""
        seen: set[str] = set()
        for entry in self.read(raw, split):
            if isinstance(entry, Item):
                if entry.key in seen:
                    yield Skipped(entry.where, "duplicate id", f"{entry.key} is there twice")
                    continue
                seen.add(entry.key)
            yield entry


class Raw:
    """A folder of published files, which may be packed by gzip and lie one folder down."""

    def __init__(self, folder: str | os.PathLike):
        self.folder = pathlib.Path(folder).absolute()  # workers may stand elsewhere
        if not self.folder.is_dir():
            raise UsageError(f"there is no folder {folder}")

    def find(self, *names: str) -> pathlib.Path | None:
        """The first file of one of these names, or None."""
        return next((path for name in names for path in self.glob(name)), None)

    def glob(self, pattern: str) -> list[pathlib.Path]:
        """All files whose name fits, in the folder or right below, sorted by name."""
        found: dict[str, pathlib.Path] = {}
        for prefix, suffix in itertools.product(("", "*/"), ("", ".gz")):
            for path in filter(is_file, self.folder.glob(prefix + pattern + suffix)):
                found.setdefault(path.name.removesuffix(".gz"), path)
        return [found[name] for name in sorted(found)]

    def need(self, name: str) -> pathlib.Path:
        """The file of that name, or a UsageError."""
        if path := self.find(name):
            return path
        raise UsageError(f"{self.folder} has no {name}, nor {name}.gz, nor a folder that holds it")

    def picture(self, names: Sequence[str]) -> pathlib.Path | None:
        """The first of a photo's files that is there; None if none is.

        Links are followed, wherever they lead: who has the folder has made them.

        Raises:
          ValueError: a name leads out of the folder.
        """
        for name in names:
            path = pathlib.PurePosixPath(name.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or "\0" in name:
                raise ValueError(f"{name!r} leads out of {self.folder}")
            if is_file(self.folder / path):
                return self.folder / path
        return None


def is_file(path: pathlib.Path) -> bool:
    """Whether there is such a file; no for names that cannot be one, such as too long ones."""
    with contextlib.suppress(OSError, ValueError):
        return path.is_file()
    return False


def splits(names: Mapping[str, str | Sequence[str]]) -> Callable[[Raw], tuple[str, ...]]:
    """`Corpus.splits` where each split has files, or patterns of them, which must all be there."""

    def there(raw: Raw, found: str | Sequence[str]) -> bool:
        return all(map(raw.find, [found] if isinstance(found, str) else found))

    return lambda raw: tuple(split for split, found in names.items() if there(raw, found))


def training(split: str) -> bool:
    """Whether models may be trained on a split of that name."""
    return "train" in split or split == UNDIVIDED


def flickr_ids(url: str) -> tuple[str, ...]:
    """The photo's id on Flickr, from its address there; nothing where it lies elsewhere."""
    match = _FLICKR.search(url)
    return (f"flickr:{match[1]}",) if match else ()


def captions(texts: Iterable[str]) -> list[str]:
    """Captions without blanks around them, empty ones left out."""
    return [text for text in (" ".join(text.split()) for text in texts) if text]


def captioned(where: str, photo: Picture, texts: Iterable[str]) -> Item | Skipped:
    """An example of a photo and its captions, if it has any."""
    if found := captions(texts):
        return Item(photo.id, where, (photo,), {"text/captions": found})
    return Skipped(where, "no caption", f"photo {photo.id} has no caption")


def by_photo(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Entries of a task by the one photo that each is about."""
    photos: dict[str, list[Entry]] = {}
    for entry in entries:
        photos.setdefault(str(entry.photos[0]), []).append(entry)
    return photos


class Grounded(NamedTuple):
    """Texts of one photo with a box each."""

    texts: list[str]  # with words in them
    boxes: np.ndarray  # [n, 4] f32: ymin, xmin, ymax, xmax in 0..1, cut at the photo's edges
    cut: int  # how many were
    skipped: list[Skipped]  # what has no words, or no box within the photo

    def fields(self, texts: str) -> dict[str, Any]:
        """Both under their names in an example: `phrase/texts` has `phrase/bboxes` beside it."""
        return {texts: self.texts, f"{texts.partition('/')[0]}/bboxes": self.boxes}


def ground(rows: Sequence[tuple[str, str, Sequence[Any]]], size: tuple[int, int]) -> Grounded:
    """Places the boxes that people drew for texts.

    Args:
      rows: place and text of each, and x and y of the upper left corner, width and height, in
        pixels, if they are numbers.
      size: the photo's width and height.
    """
    table = [box if all(map(number, box)) else (0, 0, 0, 0) for _, _, box in rows]
    shares = np.array(table, np.float64).reshape(-1, 4) / np.tile(np.maximum(size, 1), 2)
    found, skipped = boxes.placed(shares, "xywh 0..1", None, "boxes", little=np.inf), []
    for (place, text, box), empty in zip(rows, found.empty, strict=True):
        if not text:
            skipped.append(Skipped(place, "no caption", "a box without words"))
        elif empty:
            reason = f"x, y, width, height are {list(box)} in a photo of {size}: no box within it"
            skipped.append(Skipped(place, "box", reason))
    kept = np.array([bool(text) for _, text, _ in rows], bool) & ~found.empty
    texts = [text for (_, text, _), keep in zip(rows, kept, strict=True) if keep]
    return Grounded(texts, found.corners[kept], int(found.cut[kept].sum()), skipped)


def number(value: Any) -> bool:
    """Whether a value of JSON is a number that fits in f64."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def reasons(entries: Iterable[Skipped]) -> dict[str, int]:
    """How many are skipped for which reason."""
    return dict(sorted(collections.Counter(entry.reason for entry in entries).items()))
