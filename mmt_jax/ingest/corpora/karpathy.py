"""The splits of Karpathy and Li (2015, arXiv 1412.2306): a JSON file for each of three."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from mmt_jax import readers as files
from mmt_jax.ingest.corpora import base
from mmt_jax.ingest.features import captions

SPLITS = tuple(captions.KARPATHY)


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
        if files.field(entry, "split", str, where) not in captions.KARPATHY[split]:
            continue
        photo = picture(where, entry)
        texts = base.captions(captions.karpathys(entry, where))
        if not texts:
            yield base.Skipped(where, "no caption", f"photo {photo.id} has no caption")
            continue
        yield base.Item(photo.id, where, (photo,), {"text/captions": texts})
