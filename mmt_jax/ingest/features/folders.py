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
from collections.abc import Callable

import numpy as np

from mmt_jax.errors import UsageError
from mmt_jax.ingest import boxes as boxes_lib
from mmt_jax.ingest import unpickle
from mmt_jax.ingest.features import detections
from mmt_jax.ingest.features.detections import Detections, Format, Names
from mmt_jax.ingest.features.stores import MMF
from mmt_jax.ingest.guarded import Entries
from mmt_jax.photo import BOXES, FEATURES, IMAGE_PADDING

NPZ = {"features": "x", "boxes": "bbox", "width": "image_w", "height": "image_h"}
NPZ |= {"count": "num_bbox", "class_probs": "cls_prob"}
UNITER = {"features": "features", "boxes": "norm_bb", "scores": "conf"}
UNITER |= {"class_probs": "soft_labels"}
_INFO = "_info.npy"


def _read(
    parse: Callable[[pathlib.Path], Detections], suffixes: tuple[str, ...], folder: pathlib.Path
) -> Entries:
    """The folder's files by name; a link that leads out of it is refused when it is loaded."""
    names = [name for name in sorted(os.listdir(folder)) if name.endswith(suffixes)]
    if not names:
        raise UsageError(f"{folder} holds no {' or '.join(suffixes)} file")
    root = folder.resolve()
    for name in names:
        if not name.endswith(_INFO):
            yield str(folder / name), functools.partial(_inside, root, folder / name, parse)


def _inside(
    root: pathlib.Path, path: pathlib.Path, parse: Callable[[pathlib.Path], Detections]
) -> Detections:
    if not path.resolve().is_relative_to(root):
        raise UsageError(f"{path} leads out of the folder; put the file itself there")
    return parse(path)


def _npy(path: pathlib.Path) -> Detections:
    name = path.name.removesuffix(".npy")
    arrays = []
    for part in (path, info := path.with_name(name + _INFO)):
        with open(part, "rb") as file:
            arrays.append(unpickle.load_array(file, str(part)))
    features, fields = arrays[0], arrays[1].item() if arrays[1].shape == () else None
    if not isinstance(fields, dict):
        raise UsageError(f"{info} does not hold a dict")
    fields = {**fields, MMF["features"]: features}
    return detections.from_fields(fields, MMF, name=name, where=str(path))


def _npz(path: pathlib.Path) -> Detections:
    fields = _arrays(path, NPZ)
    features, boxes = fields.get(NPZ["features"]), fields.get(NPZ["boxes"])
    if features is not None and boxes is not None and features.ndim == boxes.ndim == 2:
        rows, width = features.shape
        if rows != len(boxes) == width:
            raise UsageError(
                f"{path}: x is {features.shape} for {width} boxes, transposed as OpenVQA has it; "
                f"store it as [n, F]"
            )
    return detections.from_fields(fields, NPZ, name=path.stem, where=str(path))


def _uniter(path: pathlib.Path) -> Detections:
    where, boxes, fields = str(path), UNITER["boxes"], _arrays(path, UNITER)
    drawn = detections.array(fields, boxes, "f", 2, where)
    fields[boxes] = detections.corners(drawn, f"{boxes} is", where)
    return detections.from_fields(
        fields, UNITER, name=path.stem, where=where, convention="xyxy 0..1"
    )


def _mmt(path: pathlib.Path) -> Detections:
    where, fields = str(path), unpickle.record(path)
    padding = detections.array(fields, IMAGE_PADDING, "iubf", 1, where)
    features = detections.array(fields, FEATURES, "f", 2, where)
    boxes = detections.array(fields, BOXES, "f", 2, where)
    if not len(padding) == len(features) == len(boxes) or boxes.shape[1] != 5:
        raise UsageError(
            f"{where}: boxes {boxes.shape}, features {features.shape} and padding mask "
            f"{padding.shape} do not belong together; boxes must be [n, 5]"
        )
    if not np.isin(padding, (0, 1)).all() or padding[-1:].any():
        raise UsageError(
            f"{where}: the padding mask must be 1 at padding and 0 elsewhere, the end included"
        )
    real = padding == 0
    real[-1] = False  # the whole photo
    placed = boxes_lib.placed(boxes[real, :4], "yxyx 0..1", None, where)
    return detections.detected(path.stem, features[real], placed, where, whole=features[-1])


def _arrays(path: pathlib.Path, names: Names) -> dict[str, np.ndarray]:
    """Those of the named arrays that an npz holds; of Python objects too, of which no code runs."""
    with zipfile.ZipFile(path) as archive:
        there, arrays = set(archive.namelist()), {}
        for name in names.values():
            if f"{name}.npy" in there:
                with archive.open(f"{name}.npy") as member:
                    arrays[name] = unpickle.load_array(member, f"{path}: {name}")
        return arrays


def _format(about: str, boxes: str, parse: Callable[..., Detections], *suffixes: str) -> Format:
    return Format(about, boxes, functools.partial(_read, parse, suffixes))


FORMATS = {
    "uniter-npz": _format("UNITER's folder, an npz a photo", "xyxy 0..1", _uniter, ".npz"),
    "npy": _format("MMF's folder, NAME.npy and NAME_info.npy", "xyxy pixels", _npy, ".npy"),
    "npz": _format("a folder of npz with x, bbox, image_w, image_h", "xyxy pixels", _npz, ".npz"),
    "mmt-pickle": _format(
        "the MMT release's folder, a pickle a photo", "yxyx 0..1", _mmt, ".pkl", ".pickle"
    ),
}
