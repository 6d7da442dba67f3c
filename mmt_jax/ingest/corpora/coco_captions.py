"""MSCOCO captions (Chen et al., 2015, arXiv 1504.00325), and files of Karpathy's.

Karpathy and Li (2015, arXiv 1412.2306) cut COCO, Flickr8k and Flickr30k into three splits, a JSON
file for each corpus.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

from mmt_jax import readers as files
from mmt_jax.data import captions
from mmt_jax.ingest.corpora import base

KARPATHY = tuple(captions.KARPATHY)  # his splits

_KARPATHY = "dataset_coco.json"
_ANNOTATIONS = "captions_{split}.json"
_OFFICIAL = ("train2014", "val2014", "train2017", "val2017")


def picture(
    number: int, folders: tuple[str, ...], ids: tuple[str, ...] = (), name: str | None = None
) -> base.Picture:
    """A COCO photo by its id.

    Its file has the number as name in folders of 2017, `COCO_<folder>_<number>` in those of 2014.
    """
    names = [f"{folder}/{name}" for folder in folders] if name else []
    for folder in folders:
        prefix = "" if folder.endswith("2017") else f"COCO_{folder}_"
        names.append(f"{folder}/{prefix}{number:012d}.jpg")
    return base.Picture(str(number), tuple(dict.fromkeys(names)), (f"coco:{number}", *ids))


def karpathy(path: pathlib.Path, split: str) -> Iterator[tuple[str, dict]]:
    """The photos of a split of `dataset_coco.json`, or Flickr's, and where each is."""
    for where, _, entry in files.json_entries(path, "images"):
        if files.field(entry, "split", str, where) in captions.KARPATHY[split]:
            yield where, entry


def _splits(raw: base.Raw) -> tuple[str, ...]:
    if raw.find(_KARPATHY):
        return KARPATHY
    return tuple(name for name in _OFFICIAL if raw.find(_ANNOTATIONS.format(split=name)))


def _read(raw: base.Raw, split: str) -> base.Entries:
    if split not in KARPATHY:
        yield from _official(raw.need(_ANNOTATIONS.format(split=split)), split)
        return
    for where, entry in karpathy(raw.need(_KARPATHY), split):
        number = files.field(entry, "cocoid", int, where)
        folders = (files.field(entry, "filepath", str, where), "train2017", "val2017")
        photo = picture(number, folders, name=files.field(entry, "filename", str, where))
        yield base.captioned(where, photo, captions.karpathys(entry, where))


def _official(path: pathlib.Path, split: str) -> base.Entries:
    texts: dict[int, list[str]] = {}
    lost: dict[int, str] = {}  # captions of photos that are not listed
    for where, _, entry in files.json_entries(path, "annotations"):
        number = files.field(entry, "image_id", int, where)
        texts.setdefault(number, []).append(files.field(entry, "caption", str, where))
        lost.setdefault(number, where)
    for where, _, entry in files.json_entries(path, "images"):
        number = files.field(entry, "id", int, where)
        lost.pop(number, None)
        name = files.field(entry, "file_name", str, where).rpartition("/")[2]
        ids = base.flickr_ids(str(entry.get("flickr_url")))
        yield base.captioned(where, picture(number, (split,), ids, name), texts.get(number, ()))
    for number, where in lost.items():
        yield base.Skipped(where, "no photo", f"a caption's photo {number} is not among the images")


CORPORA = (
    base.Corpus(
        name="coco_captions",
        title="MSCOCO captions (Chen et al., 2015, arXiv 1504.00325)",
        wants=(
            "dataset_coco.json (Karpathy's splits) or captions_{train,val}{2014,2017}.json; "
            "photos in {train,val}{2014,2017}/"
        ),
        splits=_splits,
        read=_read,
    ),
)
