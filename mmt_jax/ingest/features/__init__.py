"""Features that people already have: readers of published layouts, and what they are made into.

Each reader goes through its files photo by photo, so that memory does not grow with the corpus, and
yields an `Item` a photo: a photo that is damaged is known by its place, and the rest goes on.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterator

from mmt_jax.ingest.features import annotated, folders, stores, tsv
from mmt_jax.ingest.features.detections import Detections, Item, photo

__all__ = ["FORMATS", "Detections", "Format", "Item", "photo"]


@dataclasses.dataclass(frozen=True)
class Format:
    """One layout.

    Attributes:
      about: what it is, in a line.
      boxes: the convention of its boxes, one of `detections.CONVENTIONS`.
      read: path → items. Where `categories` is given it takes their names too.
      categories: path → names of the categories that features are made of.
      captions: whether photos bring their captions.
    """

    about: str
    boxes: str
    read: Callable[..., Iterator[Item]]
    categories: Callable[[pathlib.Path], list[str]] | None = None
    captions: bool = False


FORMATS = {
    "bottom-up-tsv": Format(
        "bottom-up attention's file: 36, or 10 to 100, regions in base64",
        "xyxy pixels",
        tsv.read_bottom_up,
    ),
    "lxmert-tsv": Format(
        "LXMERT's file, with objects and attributes", "xyxy pixels", tsv.read_lxmert
    ),
    "lxmert-h5": Format("the same as HDF5, a group a photo", "xyxy pixels", stores.read_h5),
    "volta-h5": Format("VOLTA's HDF5, a group a photo", "xyxy pixels", stores.read_h5),
    "vilbert-lmdb": Format(
        "ViLBERT's LMDB, or VOLTA's, of pickles", "xyxy pixels", stores.read_vilbert
    ),
    "mmf-lmdb": Format("MMF's LMDB of pickles", "xyxy pixels", stores.read_mmf),
    "uniter-npz": Format("UNITER's folder, an npz a photo", "xyxy 0..1", folders.read_uniter),
    "vinvl-tsv": Format(
        "VinVL's features.tsv, boxes in the last six numbers", "xyxy 0..1", tsv.read_vinvl
    ),
    "npy": Format("MMF's folder, NAME.npy and NAME_info.npy", "xyxy pixels", folders.read_npy),
    "npz": Format(
        "a folder of npz with x, bbox, image_w, image_h", "xyxy pixels", folders.read_npz
    ),
    "mmt-pickle": Format(
        "the MMT release's folder, a pickle a photo", "yxyx 0..1", folders.read_mmt
    ),
    "boxes-jsonl": Format(
        "annotated boxes with a category and captions, no pixels",
        "xyxy pixels",
        annotated.read_lines,
        categories=annotated.categories_of_lines,
        captions=True,
    ),
    "coco-instances": Format(
        "COCO's instances file, no pixels",
        "xywh pixels",
        annotated.read_coco,
        categories=annotated.categories_of_coco,
    ),
}
