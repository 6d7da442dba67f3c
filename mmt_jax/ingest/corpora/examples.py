"""Items become examples: their photos are read, hashed, and kept out where they must be."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from mmt_jax.errors import UsageError
from mmt_jax.ingest import boxes, corpora
from mmt_jax.ingest.corpora import base, hashes
from mmt_jax.photos import pictures

# Reasons why the photos of an evaluation are not trained on.
REMOVED = ("evaluation photo by id", "evaluation photo by hash")

MISSING = "missing photo"


@dataclasses.dataclass(frozen=True)
class Maker:
    """Makes examples of one split; small enough to be sent to workers."""

    corpus: str
    folder: str  # of the raw files
    split: str
    exclusion: hashes.Exclusion | None  # photos to be kept out

    def items(self) -> Any:
        """The split's items."""
        entries = corpora.get(self.corpus).entries(base.Raw(self.folder), self.split)
        return (entry for entry in entries if isinstance(entry, base.Item))

    def example(self, item: base.Item) -> tuple[str, dict[str, Any]] | base.Skipped:
        """Key and values of an example, or why there is none."""
        corpus = corpora.get(self.corpus)
        values: dict[str, Any] = {}
        orientation = 1
        for name, picture in zip(corpus.pictures, item.pictures, strict=True):
            photo = self._photo(item, picture)
            if isinstance(photo, base.Skipped):
                return photo
            found, orientation = photo
            values |= {f"{name}/{part}": value for part, value in found.items()}
        for name, kind in corpus.fields.items():
            values[name] = _KINDS[kind](item.fields[name])
            if kind == "boxes":
                values[name] = boxes.upright(values[name], orientation)
        return _text(item.key), values

    def _photo(
        self, item: base.Item, picture: base.Picture
    ) -> tuple[dict[str, Any], int] | base.Skipped:
        """Values, and the orientation of its boxes."""
        out, where = self.exclusion, item.where
        if out and (found := out.by_id(picture.ids)):
            return base.Skipped(where, REMOVED[0], f"photo {picture.id}: {found}")
        try:
            path = base.Raw(self.folder).picture(picture.files)
        except ValueError as error:
            return base.Skipped(where, "unsafe path", str(error))
        if path is None:
            text = f"photo {picture.id}: there is no {picture.files[0]}"
            return base.Skipped(where, MISSING, text)
        try:
            pixels = pictures.read(path)
            plain, orientation = pictures.stored(path, item.frame)
            encoded = path.read_bytes() if plain else pictures.png(pixels)
        except (UsageError, OSError) as error:
            return base.Skipped(where, "unreadable photo", str(error))
        value = hashes.dhash(pixels)
        if out and (found := out.by_hash(value)):
            return base.Skipped(where, REMOVED[1], f"photo {picture.id}: {found}")
        values = {
            "encoded": encoded,
            "id": _text(picture.id),
            "ids": [_text(name) for name in picture.ids],
            "height": pixels.shape[0],
            "width": pixels.shape[1],
            "hash": f"{value:016x}",
        }
        return values, orientation


def rejected(folder: str | os.PathLike, split: str) -> pathlib.Path:
    """The list of what is left out of a split, a JSON object a line."""
    return pathlib.Path(folder) / f"rejected-{split}.jsonl"


def _text(text: str) -> str:
    """JSON may hold halves of characters, which cannot be written."""
    return text.encode("utf-8", "replace").decode()


_KINDS = {  # of `base.Corpus.fields`
    "text": _text,
    "texts": lambda texts: list(map(_text, texts)),
    "int": int,
    "ints": lambda values: np.asarray(values, np.int64),
    "floats": lambda values: np.asarray(values, np.float32),
    "boxes": lambda values: np.asarray(values, np.float32).reshape(-1, 4),
}
