"""The splits of Karpathy and Li (2015, arXiv 1412.2306): a JSON file for each of three."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

from mmt_jax.data.corpora import base
from mmt_jax.data.tasks import files

# COCO's file calls those photos of its val2014 "restval" that are for training too.
_SPLITS = {"train": ("train", "restval"), "val": ("val",), "test": ("test",)}
SPLITS = tuple(_SPLITS)


def read(
    path: pathlib.Path,
    split: str,
    picture: Callable[[str, dict], base.Picture],
) -> base.Entries:
    """The photos of a split with their captions, under `text/captions`.

    Args:
      path: `dataset_coco.json`, `dataset_flickr8k.json` or `dataset_flickr30k.json`.
      split: one of `SPLITS`.
      picture: makes a `Picture` of an entry, and of where it is for what it raises.

    Raises:
      UsageError: the file cannot be read, or an entry lacks something.
    """
    for where, _, entry in files.json_entries(path, "images"):
        if files.field(entry, "split", str, where) not in _SPLITS[split]:
            continue
        photo = picture(where, entry)
        texts = base.captions(sentences(entry, where))
        if not texts:
            yield base.Skipped(where, "no caption", f"photo {photo.id} has no caption")
            continue
        yield base.Item(photo.id, where, (photo,), {"text/captions": texts})


def sentences(entry: dict, where: str) -> Sequence[str]:
    """The raw captions of an entry."""
    rows = files.field(entry, "sentences", list, where)
    return [
        files.field(row if isinstance(row, dict) else {}, "raw", str, f"{where}, sentence {number}")
        for number, row in enumerate(rows)
    ]
