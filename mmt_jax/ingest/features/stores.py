"""Keyed stores, one entry a photo: HDF5 of LXMERT and VOLTA, LMDB of ViLBERT, VOLTA and MMF.

HDF5: a group a photo, named as it, with features, boxes, img_w, img_h, and obj_id, obj_conf,
attr_id, attr_conf or cls_prob. LMDB: a pickled dict a photo, beside an entry `keys`; ViLBERT's
holds a bottom-up row of strings, VOLTA's the arrays of its HDF5, MMF's features, bbox, image_width,
image_height, num_boxes, objects and cls_prob. Pickles run no code (`mmt_jax.ingest.unpickle`).
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from mmt_jax.errors import UsageError, optional, trying
from mmt_jax.ingest import unpickle
from mmt_jax.ingest.features import detections, tsv
from mmt_jax.ingest.features.detections import Detections, Format
from mmt_jax.ingest.guarded import Entries

H5 = {"features": "features", "boxes": "boxes", "width": "img_w", "height": "img_h"}
H5 |= {"class_ids": "obj_id", "scores": "obj_conf", "class_probs": "cls_prob"}
H5 |= {"attribute_ids": "attr_id", "attribute_scores": "attr_conf"}
MMF = {"features": "features", "boxes": "bbox", "width": "image_width", "height": "image_height"}
MMF |= {"count": "num_boxes", "class_ids": "objects", "class_probs": "cls_prob"}

_KEYS = b"keys"  # the entry of an LMDB that lists the others


def _read_h5(path: pathlib.Path) -> Entries:
    with optional("HDF5 files need h5py", "data"):
        import h5py
    with trying(f"{path} cannot be read as an HDF5 file"), h5py.File(path, "r") as file:
        for name in file:
            where = f"{path}:{name}"
            yield where, functools.partial(_h5, file, str(name), where)


def _h5(file: Any, name: str, where: str) -> Detections:
    group = _hard(file, name, where)
    keys = sorted({*H5.values()} & {*group}) if hasattr(group, "keys") else []
    fields = {key: _dataset(_hard(group, key, where), f"{where}/{key}") for key in keys}
    return detections.from_fields(fields, H5, name=name, where=where)


def _hard(group: Any, name: str, where: str) -> Any:
    """A member that lies in this very file: links may lead anywhere."""
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise UsageError(f"{where}: {name} is a link; copy what it leads to into the file")
    return group[name]


def _dataset(dataset: Any, where: str) -> np.ndarray:
    import h5py

    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
        raise UsageError(f"{where} is no array of this file")
    return np.asarray(dataset[()])


def _read_lmdb(parse: Callable[..., Detections], path: pathlib.Path) -> Entries:
    with optional("LMDB needs lmdb", "data"):
        import lmdb
    only = {"readonly": True, "create": False, "lock": False, "readahead": False}
    with trying(f"{path} cannot be read as an LMDB", "; copy it again"):
        environment = lmdb.open(str(path), subdir=path.is_dir(), **only)
        with environment.begin() as transaction:
            for key, value in transaction.cursor():
                if key != _KEYS:
                    where = f"{path}:{key.decode(errors='replace')}"
                    yield where, functools.partial(_value, key, value, where, parse)


def _value(key: bytes, value: bytes, where: str, parse: Callable[..., Detections]) -> Detections:
    fields = unpickle.loads(value, where)
    if not isinstance(fields, dict):
        raise UsageError(f"{where} holds a {type(fields).__name__}, it must hold a dict")
    return parse(fields, name=tsv.text(key, where), where=where)


def _vilbert(fields: dict[str, Any], name: str, where: str) -> Detections:
    if "image_id" not in fields:  # VOLTA's
        return detections.from_fields(fields, H5, name=name, where=where)
    for key in ("boxes", "features"):
        if not isinstance(fields.get(key), str | bytes):
            raise UsageError(f"{where}: the field {key} is missing or no base64")
    known = {key: value for key, value in fields.items() if isinstance(value, str | bytes | int)}
    return detections.from_fields(tsv.decoded(known, where), tsv.BOTTOM_UP, name=name, where=where)


_mmf = functools.partial(detections.from_fields, names=MMF)

FORMATS = {
    "lxmert-h5": Format("the same as HDF5, a group a photo", "xyxy pixels", _read_h5),
    "volta-h5": Format("VOLTA's HDF5, a group a photo", "xyxy pixels", _read_h5),
    "vilbert-lmdb": Format(
        "ViLBERT's LMDB, or VOLTA's, of pickles",
        "xyxy pixels",
        functools.partial(_read_lmdb, _vilbert),
    ),
    "mmf-lmdb": Format("MMF's LMDB of pickles", "xyxy pixels", functools.partial(_read_lmdb, _mmf)),
}
