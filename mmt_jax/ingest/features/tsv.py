"""Tab-separated files of one photo a line, arrays in base64: bottom-up, LXMERT, VinVL.

`bottom-up-tsv` (Anderson et al., arXiv 1707.07998): image_id, image_w, image_h, num_boxes, boxes,
features, and cls_prob where ViLBERT's extraction wrote it. `lxmert-tsv` (Tan and Bansal, arXiv
1908.07490): img_id, img_h, img_w, objects_id, objects_conf, attrs_id, attrs_conf, num_boxes, boxes,
features. `vinvl-tsv` (Zhang et al., arXiv 2101.00529), its features.tsv: a key, then num_boxes and
the features, or both as JSON; a feature's last six numbers are xmin, ymin, xmax, ymax, width and
height of the box in 0..1.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mmt_jax import readers as files
from mmt_jax.errors import UsageError
from mmt_jax.ingest.features import detections
from mmt_jax.ingest.features.detections import Detections, Format, Names
from mmt_jax.ingest.guarded import Entries

MAX_LINE = 1 << 26  # bytes; a hundred regions of 2,048 numbers take 1.1 million

BOTTOM_UP = {"features": "features", "boxes": "boxes", "width": "image_w", "height": "image_h"}
BOTTOM_UP |= {"count": "num_boxes", "class_probs": "cls_prob"}
LXMERT = {"features": "features", "boxes": "boxes", "width": "img_w", "height": "img_h"}
LXMERT |= {"count": "num_boxes", "class_ids": "objects_id", "scores": "objects_conf"}
LXMERT |= {"attribute_ids": "attrs_id", "attribute_scores": "attrs_conf"}
VINVL = {"features": "features", "boxes": "boxes"}
_BOTTOM_UP = ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features", "cls_prob")
_LXMERT = (
    *("img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"),
    *("num_boxes", "boxes", "features"),
)
# Arrays in base64: dtype, and numbers a region; None = as many as there are.
_ARRAYS = {
    "boxes": ("<f4", 4),
    "features": ("<f4", None),
    "cls_prob": ("<f4", None),
    "objects_id": ("<i8", 1),
    "objects_conf": ("<f4", 1),
    "attrs_id": ("<i8", 1),
    "attrs_conf": ("<f4", 1),
}
_GEOMETRY = 6  # of VinVL's features


def decoded(row: Mapping[str, str | bytes | int], where: str) -> dict[str, Any]:
    """A row whose arrays are base64 as one of arrays, `num_boxes` regions each.

    Raises:
      UsageError: naming the field whose length or encoding is wrong.
    """
    count = detections.number(row.get("num_boxes"), "num_boxes", where, high=detections.MAX_REGIONS)
    fields: dict[str, Any] = dict(row)
    for key, (dtype, width) in _ARRAYS.items():
        if key in row:
            values = _numbers(row[key], dtype, count, f"{where}: {key}")
            if width is not None and values.shape[1] != width:
                raise UsageError(
                    f"{where}: {key} holds {values.size} numbers, but {count} regions need "
                    f"{count * width}"
                )
            fields[key] = values[:, 0] if width == 1 else values
    return fields


def text(value: bytes, where: str) -> str:
    """A name, which must be UTF-8 and not empty."""
    if name := value.decode().strip():
        return name
    raise UsageError(f"{where}: the photo has no name")


def _numbers(text: Any, dtype: str, count: int, where: str) -> np.ndarray:
    """Numbers [count, width] in base64, of which there must be a multiple of `count`."""
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, TypeError):
        raise UsageError(
            f"{where} is no base64; the line is damaged or of another format"
        ) from None
    size = count * np.dtype(dtype).itemsize
    if not data or len(data) % size:
        raise UsageError(
            f"{where} has {len(data)} bytes; {count} regions need a multiple of {size}"
        )
    return np.frombuffer(data, dtype).reshape(count, -1)


def _read(parse: Callable[[bytes, str], Detections], path: pathlib.Path) -> Entries:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        if path.suffix != ".gz" and file.read(2) == b"\x1f\x8b":
            raise UsageError(f"{path} is packed by gzip; unpack it first, or end its name in .gz")
    for where, line in files.byte_lines(path, MAX_LINE):
        if line.strip():
            yield where, functools.partial(parse, line, where)


def _row(names: Names, layouts: Sequence[Sequence[str]], line: bytes, where: str) -> Detections:
    values = line.split(b"\t")
    for layout in layouts:
        if len(values) == len(layout):
            row = dict(zip(layout, values, strict=True))
            name = text(values[0], where)
            return detections.from_fields(decoded(row, where), names, name=name, where=where)
    wanted = " or ".join(str(len(layout)) for layout in layouts)
    raise UsageError(f"{where}: {len(values)} fields between tabs, it must have {wanted}")


def _vinvl(line: bytes, where: str) -> Detections:
    key, *values = line.split(b"\t")
    if len(values) == 1:
        row = files.parsed(values[0], where)
        values = [files.field(row, key, object, where) for key in ("num_boxes", "features")]
    if len(values) != 2:
        raise UsageError(f"{where}: {1 + len(values)} fields between tabs, it must have 2 or 3")
    count = detections.number(values[0], "num_boxes", where, high=detections.MAX_REGIONS)
    table = _numbers(values[1], "<f4", count, f"{where}: features")
    if table.shape[1] <= _GEOMETRY:
        raise UsageError(f"{where}: features are {table.shape[1]} wide; the last six are the box")
    drawn = detections.corners(
        table[:, -_GEOMETRY:], "the last six numbers of a feature are", where
    )
    fields = {"features": table[:, :-_GEOMETRY], "boxes": drawn}
    name = text(key, where)
    return detections.from_fields(fields, VINVL, name=name, where=where, convention="xyxy 0..1")


def _format(about: str, boxes: str, parse: Callable[..., Detections], *more: Any) -> Format:
    return Format(about, boxes, functools.partial(_read, functools.partial(parse, *more)))


FORMATS = {
    "bottom-up-tsv": _format(
        "bottom-up attention's file: 36, or 10 to 100, regions in base64",
        "xyxy pixels",
        *(_row, BOTTOM_UP, (_BOTTOM_UP[:-1], _BOTTOM_UP)),
    ),
    "lxmert-tsv": _format(
        "LXMERT's file, with objects and attributes", "xyxy pixels", _row, LXMERT, (_LXMERT,)
    ),
    "vinvl-tsv": _format(
        "VinVL's features.tsv, boxes in the last six numbers", "xyxy 0..1", _vinvl
    ),
}
