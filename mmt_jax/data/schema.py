"""The exported signature's inputs: what they may hold, and the one place that turns its masks over.

On the wire 1 means padding; inside, `mask` is True for a real element. One photo's record file is
an npz with the three image keys, without a batch axis, or with `image/pixels`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from mmt_jax.data.npz import Npz
from mmt_jax.errors import UsageError
from mmt_jax.photo import BOXES, FEATURES, IDS, IMAGE_PADDING, PIXELS, PROBS
from mmt_jax.text.base import MASK
from mmt_jax.typing import Array, Image, Text

MASKED_TOKENS = "masked_tokens"
SEGMENT_IDS = "text/segment_ids"
TOKEN_IDS = "text/token_ids"
TEXT_PADDING = "text/padding_mask"

IMAGE_KEYS = (BOXES, FEATURES, IMAGE_PADDING)
TEXT_KEYS = (MASKED_TOKENS, SEGMENT_IDS, TOKEN_IDS, TEXT_PADDING)
KEYS = IMAGE_KEYS + TEXT_KEYS

# Detectors and f32 arithmetic leave coordinates a hair outside the image.
_BOX_SLACK = 1e-4
_AREA_SLACK = 1e-3


# What stands in slots that were added to fill up a batch; elsewhere 0.
FILL = {IMAGE_PADDING: 1, TEXT_PADDING: 1, TOKEN_IDS: MASK, MASKED_TOKENS: MASK}


def mask(padding: Int[Array, "*shape"]) -> Any:
    """A padding mask of the signature → True for real elements: numpy of numpy, jax of jax."""
    return padding == 0


def padding(mask: Bool[Array, "*shape"]) -> Any:
    """The inverse of `mask`, i32."""
    return (~mask).astype(np.int32)


def to_text(inputs: Mapping[str, Array]) -> Text:
    """Reads the four text keys, each [B, T] i32 (numpy or jax).

    The model reads `masked_tokens`. Word boundaries are not on the wire: `word_ids` is -1 where
    real and -2 at padding, so that no token counts as a word that could be hidden.
    """
    real = mask(inputs[TEXT_PADDING])
    return Text(
        token_ids=inputs[MASKED_TOKENS],
        segment_ids=inputs[SEGMENT_IDS],
        word_ids=real.astype(np.int32) - 2,
        mask=real,
    )


def to_image(inputs: Mapping[str, Array]) -> Image:
    """Reads the three image keys and, where they are there, classes and attributes; batched."""
    labels = {f"{kind}_ids": inputs.get(key) for kind, key in IDS.items()}
    labels |= {f"{kind}_probs": inputs.get(key) for kind, key in PROBS.items()}
    return Image(inputs[FEATURES], inputs[BOXES], mask(inputs[IMAGE_PADDING]), **labels)


def from_text(text: Text) -> dict[str, Any]:
    """The four text keys of `text`, nothing hidden: numpy of numpy, jax of jax."""
    return {
        MASKED_TOKENS: text.token_ids,
        SEGMENT_IDS: text.segment_ids,
        TOKEN_IDS: text.token_ids,
        TEXT_PADDING: padding(text.mask),
    }


def from_image(image: Image) -> dict[str, Any]:
    """The three image keys of `image` likewise."""
    return {BOXES: image.boxes, FEATURES: image.features, IMAGE_PADDING: padding(image.mask)}


def read_record(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a record file; `validate_record` and `validate_pixels` check what it holds.

    Raises:
      UsageError: there is no such file, it is no npz, it is damaged, or it holds Python objects.
    """
    with Npz(path) as file:
        return {name: file.read(name) for name in file.names}


def validate_record(
    record: Mapping[str, np.ndarray],
    *,
    name: str = "the record",
    feature_dim: int | None = None,
    max_regions: int | None = None,
    global_region: bool = True,
) -> None:
    """Checks the three image keys of one photo.

    Args:
      record: `image/bboxes` [R, 5] f32, `image/detection_features` [R, F] f32 and
        `image/padding_mask` [R] i32, without a batch axis.
      name: what the message calls it, such as its path.
      feature_dim: the F that the model was built for.
      max_regions: the most real regions, the global one not counted.
      global_region: whether slot R - 1 must be the global region.

    Raises:
      UsageError: the first fault found.
    """
    features = _field(record, FEATURES, name, rank=2, dtype=np.float32)
    boxes = _field(record, BOXES, name, rank=2, dtype=np.float32)
    marks = _field(record, IMAGE_PADDING, name, rank=1, dtype=np.int32)
    if not len(features) == len(boxes) == len(marks):
        raise UsageError(
            f"{name}: {FEATURES} has {len(features)} regions, {BOXES} {len(boxes)} and "
            f"{IMAGE_PADDING} {len(marks)}; they must be equal"
        )
    if feature_dim not in (None, features.shape[1]):
        raise UsageError(
            f"{name}: {FEATURES} is {features.shape[1]} wide, but the model reads features of "
            f"{feature_dim}; take them from the detector that the model was trained with"
        )
    real = mask(marks)
    if not np.isin(marks, (0, 1)).all() or not real.any():
        raise UsageError(
            f"{name}: {IMAGE_PADDING} must hold 1 for padding and 0 for real regions, of which "
            f"there must be one"
        )
    if global_region and not real[-1]:
        raise UsageError(
            f"{name}: the last slot is the global region, but {IMAGE_PADDING} marks it as padding; "
            f"put padding in front"
        )
    if max_regions is not None and (count := int(real.sum()) - global_region) > max_regions:
        beside = " beside the global one" if global_region else ""
        raise UsageError(
            f"{name}: {count} regions{beside}, but at most {max_regions} fit; keep those of the "
            f"best scores"
        )
    if boxes.shape[1] != 5:
        raise UsageError(
            f"{name}: {BOXES} is {boxes.shape[1]} wide; it must hold ymin, xmin, ymax, xmax, area"
        )
    check_coordinates(boxes[:, :4][real], f"{name}: {BOXES}", rows=np.flatnonzero(real))
    ymin, xmin, ymax, xmax, area = boxes.T
    enclosed = (ymax - ymin) * (xmax - xmin)
    if (wrong := real & (np.abs(enclosed - area) > _AREA_SLACK)).any():
        row = np.flatnonzero(wrong)[0]
        raise UsageError(
            f"{name}: {BOXES} row {row} gives the area {area[row]:.4g}, but its corners enclose "
            f"{enclosed[row]:.4g}; the last column is box area divided by image area"
        )


def validate_pixels(
    record: Mapping[str, np.ndarray], *, name: str = "the record", patch_size: int = 1
) -> None:
    """Checks `image/pixels` [H, W, 3] f32 in 0..1 of one photo, sides divisible by `patch_size`.

    Raises:
      UsageError: the first fault found.
    """
    pixels = _field(record, PIXELS, name, rank=3, dtype=np.float32)
    height, width, channels = pixels.shape
    if channels != 3 or not pixels.size:
        raise UsageError(f"{name}: {PIXELS} has shape {pixels.shape}; it must be [H, W, 3]")
    if height % patch_size or width % patch_size:
        raise UsageError(
            f"{name}: {PIXELS} is {height} × {width}; resize it so that both sides are multiples "
            f"of {patch_size}, the model's patch"
        )
    if pixels.min() < 0 or pixels.max() > 1:
        raise UsageError(f"{name}: {PIXELS} has values outside 0..1; divide 8-bit pixels by 255")


def _field(
    record: Mapping[str, np.ndarray], key: str, name: str, *, rank: int, dtype: type
) -> np.ndarray:
    if key not in record:
        others = ", ".join(sorted(record)) or "nothing"
        raise UsageError(f"{name}: the key {key!r} is missing; the record holds {others}")
    value = np.asarray(record[key])
    if value.ndim != rank:
        hint = "; give one photo, without a batch axis" if value.ndim == rank + 1 else ""
        raise UsageError(
            f"{name}: {key} has rank {value.ndim} (shape {value.shape}), it must be {rank}{hint}"
        )
    if value.dtype != dtype:
        raise UsageError(
            f"{name}: {key} is {value.dtype}; convert it with .astype(numpy.{np.dtype(dtype)})"
        )
    if not np.isfinite(value).all():
        where = np.argwhere(~np.isfinite(value))[0].tolist()
        raise UsageError(f"{name}: {key} holds NaN or infinity, first at {where}")
    return value


def check_coordinates(boxes: np.ndarray, name: str, *, rows: np.ndarray | None = None) -> None:
    """Checks [n, 4] boxes (ymin, xmin, ymax, xmax): finite, within 0..1, not inverted.

    `rows` [n] are their numbers for the message; None = 0, 1, ….

    Raises:
      UsageError: naming the first wrong row.
    """
    inside = ((boxes >= -_BOX_SLACK) & (boxes <= 1 + _BOX_SLACK)).all(axis=1)  # NaN is not
    ordered = (boxes[:, 2:] >= boxes[:, :2]).all(axis=1)
    for fine, fault in (
        (inside, "outside 0..1; divide pixels by the image's height and width"),
        (ordered, "inverted; the order is ymin, xmin, ymax, xmax"),
    ):
        if not fine.all():
            row = np.flatnonzero(~fine)[0]
            raise UsageError(
                f"{name} row {row if rows is None else rows[row]} is "
                f"{np.round(boxes[row], 4).tolist()}, {fault}"
            )
