"""Boxes as others draw them, as shares of an upright photo and cut at its edges."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mmt_jax.errors import UsageError

# Order of a box's numbers, and their unit.
CONVENTIONS = ("xyxy pixels", "xyxy 0..1", "yxyx 0..1", "xywh pixels")

LITTLE = 0.1  # how far, in sides of the photo, a detector's boxes stick out before they are wrong

# What leaves the photo by rounding: a pixel, or what float16 loses.
_ROUNDING_PIXELS = 1.0
_ROUNDING = 1e-3


class Placed(NamedTuple):
    """Boxes of one photo."""

    corners: np.ndarray  # [n, 4] f32: ymin, xmin, ymax, xmax in 0..1
    cut: np.ndarray  # [n] bool, which stuck out of the photo by more than rounding
    empty: np.ndarray  # [n] bool, which have no area, or none within the photo


def placed(
    boxes: np.ndarray,
    convention: str,
    size: tuple[int, int] | None,
    where: str,
    *,
    little: float = LITTLE,
) -> Placed:
    """Boxes as shares of the photo, cut at its edges.

    Args:
      boxes: [n, 4] numbers.
      convention: one of `CONVENTIONS`, as declared by the format; checked, never guessed.
      size: the photo's width and height in pixels, which boxes in pixels need.
      little: by how much of a side boxes may stick out; infinity where people drew them.

    Raises:
      UsageError: boxes that are not finite, inverted or further outside, or that are in pixels by
        declaration and all within one pixel.
    """
    order, unit = convention.split()
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise UsageError(f"{where}: boxes has shape {boxes.shape}, it must be [n, 4]")
    if not np.isfinite(boxes).all():
        raise UsageError(f"{where}: boxes hold NaN or infinity")
    corners = boxes.astype(np.float64)
    if order == "xywh":
        corners[:, 2:] += corners[:, :2]
    if order != "yxyx":
        corners = corners[:, [1, 0, 3, 2]]
    rounding = np.array(_ROUNDING)
    if unit == "pixels":
        if size is None:
            raise UsageError(f"{where}: width and height are missing, and boxes are in pixels")
        if len(corners) and min(size) > 4 and (np.abs(corners) <= 1).all():
            raise UsageError(
                f"{where}: all boxes lie within one pixel; boxes of this format are {convention}, "
                f"these look normalised"
            )
        sides = np.array([size[1], size[0]] * 2, np.float64)
        corners, rounding = corners / sides, _ROUNDING_PIXELS / sides
    outside = np.maximum(-corners, corners - 1)
    inverted = (corners[:, 2:] < corners[:, :2]).any(axis=1) & (order != "xywh")
    photo = f"the photo of {size[0]} × {size[1]} pixels" if size else "the photo"
    far = (outside > np.maximum(little, rounding)).any(axis=1)
    for wrong, fault in ((far, f"outside {photo}"), (inverted, "inverted")):
        if wrong.any():
            row = np.flatnonzero(wrong)[0]
            raise UsageError(
                f"{where}: box {row} is {boxes[row].tolist()}, {fault}; boxes of this format are "
                f"{convention}"
            )
    inside = np.clip(corners, 0, 1).astype(np.float32)
    empty = np.any(inside[:, 2:] <= inside[:, :2], axis=1)
    return Placed(inside, np.any(outside > rounding, axis=1), empty)


def upright(corners: np.ndarray, orientation: int) -> np.ndarray:
    """Boxes [n, 4] (ymin, xmin, ymax, xmax in 0..1) in a file's own frame, as its EXIF turns it.

    By EXIF 2.3, 4.6.4, x and y change places from 5 on; then sides are mirrored.
    """
    ymin, xmin, ymax, xmax = corners.T[[1, 0, 3, 2]] if orientation in (5, 6, 7, 8) else corners.T
    if orientation in (2, 3, 6, 7):
        xmin, xmax = 1 - xmax, 1 - xmin
    if orientation in (3, 4, 7, 8):
        ymin, ymax = 1 - ymax, 1 - ymin
    return np.stack([ymin, xmin, ymax, xmax], axis=1)
