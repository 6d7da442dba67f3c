"""Folders of one file a photo, named as it: npy, npz, UNITER's npz, the release's pickles.

`npy`: NAME.npy [n, F] beside NAME_info.npy, a dict of bbox, image_width, image_height, num_boxes,
objects and cls_prob, as MMF's extraction writes them. `npz`: x [n, F], bbox, image_w, image_h,
num_bbox and cls_prob, as bottom-up-attention.pytorch does. `uniter-npz` (Chen et al., arXiv
1909.11740): features, norm_bb (xmin, ymin, xmax, ymax, width, height in 0..1), conf, soft_labels.
`mmt-pickle`: a dict with the image keys of the release's signature.
"""

from __future__ import annotations

import functools
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mmt_jax.data import schema
from mmt_jax.errors import UsageError
from mmt_jax.ingest import unpickle
from mmt_jax.ingest.features import detections
from mmt_jax.ingest.features.detections import Detections, Item, Names
from mmt_jax.ingest.features.stores import MMF

NPZ = Names(
    features="x",
    boxes="bbox",
    width="image_w",
    height="image_h",
    count="num_bbox",
    class_probs="cls_prob",
)
_INFO = "_info.npy"
_UNITER = ("features", "norm_bb", "conf", "soft_labels")
_SIDES_SLACK = 0.01


def read_npy(path: pathlib.Path) -> Iterator[Item]:
    """The photos of a folder of `npy` files."""
    return (item for item in _items(path, (".npy",), _npy) if not item.where.endswith(_INFO))


def read_npz(path: pathlib.Path) -> Iterator[Item]:
    """The photos of a folder of `npz` files."""
    return _items(path, (".npz",), _npz)


def read_uniter(path: pathlib.Path) -> Iterator[Item]:
    """The photos of a folder of `uniter-npz` files."""
    return _items(path, (".npz",), _uniter)


def read_mmt(path: pathlib.Path) -> Iterator[Item]:
    """The photos of a folder of `mmt-pickle` files."""
    return _items(path, (".pkl", ".pickle"), _mmt)


def _items(
    folder: pathlib.Path, suffixes: tuple[str, ...], parse: Callable[[pathlib.Path], Detections]
) -> Iterator[Item]:
    """The folder's files by name; a link that leads out of it is refused when it is loaded."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(suffixes))
    except OSError as error:
        raise UsageError(f"{folder} cannot be read as a folder ({error.strerror})") from None
    if not names:
        raise UsageError(f"{folder} holds no {' or '.join(suffixes)} file")
    root = folder.resolve()
    for name in names:
        yield Item(str(folder / name), functools.partial(_inside, root, folder / name, parse))


def _inside(
    root: pathlib.Path, path: pathlib.Path, parse: Callable[[pathlib.Path], Detections]
) -> Detections:
    if not path.resolve().is_relative_to(root):
        raise UsageError(f"{path} leads out of the folder; put the file itself there")
    return parse(path)


def _npy(path: pathlib.Path) -> Detections:
    name = path.name.removesuffix(".npy")
    info = _array_file(path.with_name(name + _INFO))
    fields = info.item() if info.shape == () and info.dtype == object else None
    if not isinstance(fields, dict):
        raise UsageError(f"{path.with_name(name + _INFO)} does not hold a dict")
    fields = {**fields, MMF.features: _array_file(path)}
    return detections.from_fields(fields, MMF, name=name, where=str(path))


def _npz(path: pathlib.Path) -> Detections:
    wanted = [name for name in vars(NPZ).values() if name is not None]
    fields = _arrays(path, wanted)
    features, boxes = fields.get(NPZ.features), fields.get(NPZ.boxes)
    if features is not None and boxes is not None and features.ndim == boxes.ndim == 2:
        rows, width = features.shape
        if rows != len(boxes) == width:
            raise UsageError(
                f"{path}: x is {features.shape} for {width} boxes, transposed as OpenVQA has it; "
                f"store it as [n, F]"
            )
    return detections.from_fields(fields, NPZ, name=path.stem, where=str(path))


def _uniter(path: pathlib.Path) -> Detections:
    where = str(path)
    fields = _arrays(path, _UNITER)
    boxes = detections.array(fields, "norm_bb", "f", 2, where).astype(np.float64)
    if boxes.shape[1] not in (6, 7):
        raise UsageError(f"{where}: norm_bb is {boxes.shape[1]} wide, it must be 6, or 7 with area")
    sides = boxes[:, 2:4] - boxes[:, :2]
    if not (np.abs(sides - boxes[:, 4:6]) <= _SIDES_SLACK).all():
        raise UsageError(f"{where}: norm_bb is not xmin, ymin, xmax, ymax, width, height")
    features = detections.array(fields, "features", "f", 2, where)
    scores = detections.array(fields, "conf", "f", 1, where) if "conf" in fields else None
    probs = None
    if "soft_labels" in fields:
        probs = detections.array(fields, "soft_labels", "f", 2, where)
    for name, column in (("norm_bb", boxes), ("conf", scores), ("soft_labels", probs)):
        if column is not None and len(column) != len(features):
            raise UsageError(f"{where}: {name} has {len(column)} rows, features {len(features)}")
    detections.check_count(len(features), where)
    found = Detections(path.stem, features, boxes[:, :4], scores=scores, class_probs=probs)
    return detections.inside(found, "xyxy 0..1", where)


def _mmt(path: pathlib.Path) -> Detections:
    where = str(path)
    fields = unpickle.load(path)
    if not isinstance(fields, dict):
        raise UsageError(f"{where} holds a {type(fields).__name__}, it must hold a dict")
    record = {key: _single(fields.get(key), rank) for key, rank in _RECORD.items()}
    record = {key: value for key, value in record.items() if value is not None}
    schema.validate_record(record, name=where)
    real = record[schema.IMAGE_PADDING] == 0
    real[-1] = False  # the whole photo
    features = record[schema.FEATURES]
    found = Detections(
        name=path.stem,
        features=features[real],
        boxes=record[schema.BOXES][real, :4],
        whole=features[-1],
    )
    return detections.inside(found, "yxyx 0..1", where)


_RECORD = {schema.BOXES: 2, schema.FEATURES: 2, schema.IMAGE_PADDING: 1}


def _single(value: Any, rank: int) -> np.ndarray | None:
    """One photo's array without a batch axis."""
    if not isinstance(value, np.ndarray):
        return None
    if value.ndim == rank + 1 and len(value) == 1:
        value = value[0]
    kinds = {"i": np.int32, "u": np.int32, "b": np.int32, "f": np.float32}
    with np.errstate(over="ignore"):  # infinity is found by who checks the record
        return value.astype(kinds.get(value.dtype.kind, value.dtype), copy=False)


def _array_file(path: pathlib.Path) -> np.ndarray:
    try:
        with open(path, "rb") as file:
            return unpickle.load_array(file, str(path))
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from None


def _arrays(path: pathlib.Path, names: list[str] | tuple[str, ...]) -> dict[str, np.ndarray]:
    """Those of the named arrays that an npz holds; what they unpack to is bounded."""
    try:
        with zipfile.ZipFile(path) as archive:
            there = set(archive.namelist())
            arrays = {}
            for name in names:
                if f"{name}.npy" in there:
                    with archive.open(f"{name}.npy") as member:
                        arrays[name] = unpickle.load_array(member, f"{path}: {name}")
            return arrays
    except UsageError:
        raise
    except Exception as error:  # zipfile: BadZipFile, RuntimeError, NotImplementedError, struct, …
        raise UsageError(f"{path} cannot be read as an npz file ({error}); copy it again") from None
