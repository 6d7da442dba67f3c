"""The field names of a record, which are those of the exported signature, and what it may hold.

One photo's record file is an npz with the three image keys (or `image/pixels`). On the wire 1 means
padding; inside, `mask` is True for a real element: `to_text`, `to_image` and their inverses are the
one place where the two meet.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import IO

import numpy as np

from mmt_jax.errors import UsageError
from mmt_jax.typing import Array, Image, Text

BOXES = "image/bboxes"
FEATURES = "image/detection_features"
IMAGE_PADDING = "image/padding_mask"
MASKED_TOKENS = "masked_tokens"
SEGMENT_IDS = "text/segment_ids"
TOKEN_IDS = "text/token_ids"
TEXT_PADDING = "text/padding_mask"
PIXELS = "image/pixels"

IMAGE_KEYS = (BOXES, FEATURES, IMAGE_PADDING)
TEXT_KEYS = (MASKED_TOKENS, SEGMENT_IDS, TOKEN_IDS, TEXT_PADDING)
KEYS = IMAGE_KEYS + TEXT_KEYS

# What numpy raises where an npz is damaged.
BROKEN = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)

# Detectors and f32 arithmetic leave coordinates a hair outside the image.
_BOX_SLACK = 1e-4
_AREA_SLACK = 1e-3


def to_text(inputs: Mapping[str, Array]) -> Text:
    """Reads the four text keys, each [B, T] i32 (numpy or jax).

    The model reads `masked_tokens`. Word boundaries are not on the wire: `word_ids` is -1 where
    real and -2 at padding, so that no token counts as a word that could be hidden.
    """
    mask = inputs[TEXT_PADDING] == 0
    return Text(
        token_ids=inputs[MASKED_TOKENS],
        segment_ids=inputs[SEGMENT_IDS],
        word_ids=mask.astype(np.int32) - 2,
        mask=mask,
    )


def to_image(inputs: Mapping[str, Array]) -> Image:
    """Reads the three image keys, batched (numpy or jax), which carry no class distribution."""
    return Image(features=inputs[FEATURES], boxes=inputs[BOXES], mask=inputs[IMAGE_PADDING] == 0)


def from_text(text: Text) -> dict[str, Array]:
    """The four text keys of `text`, nothing hidden."""
    return {
        MASKED_TOKENS: text.token_ids,
        SEGMENT_IDS: text.segment_ids,
        TOKEN_IDS: text.token_ids,
        TEXT_PADDING: (~text.mask).astype(np.int32),
    }


def from_image(image: Image) -> dict[str, Array]:
    """The three image keys of `image`."""
    return {
        BOXES: image.boxes,
        FEATURES: image.features,
        IMAGE_PADDING: (~image.mask).astype(np.int32),
    }


def read_record(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a record file; `validate_record` and `validate_pixels` check what it holds.

    Raises:
      UsageError: there is no such file, it is no npz, it is damaged, or it holds Python objects.
    """
    with open_npz(path) as file:
        return {name: read_array(file, name, path) for name in file.files}


@contextlib.contextmanager
def open_npz(path: str | os.PathLike) -> Iterator[np.lib.npyio.NpzFile]:
    """Opens an npz file, its arrays still unread.

    Raises:
      UsageError: there is no such file, or it is no npz.
    """
    with contextlib.ExitStack() as stack:
        try:
            # numpy leaves a file that it opened itself open where the archive is damaged.
            stream = stack.enter_context(open(path, "rb"))
            file = np.load(stream, allow_pickle=False)
        except FileNotFoundError:
            raise UsageError(f"there is no file {path}") from None
        except BROKEN as error:
            raise UsageError(
                f"{path} cannot be read as an npz file ({error}); it is damaged or of another "
                f"format: write it again with numpy.savez"
            ) from None
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise UsageError(f"{path} is a single array; write an npz with numpy.savez")
        yield stack.enter_context(file)


def read_array(file: np.lib.npyio.NpzFile, name: str, path: str | os.PathLike) -> np.ndarray:
    """Reads one array of an open npz file.

    Raises:
      UsageError: the array is damaged, or holds Python objects.
    """
    try:
        return file[name]
    except BROKEN as error:
        raise UsageError(f"{path}: {name} cannot be read ({error}); write the file again") from None


def array_header(
    file: np.lib.npyio.NpzFile, name: str, path: str | os.PathLike
) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an array of an open npz file, the array unread.

    Raises:
      UsageError: the array is damaged.
    """
    with _member(file, name, path) as (_, shape, dtype, _):
        return shape, dtype


@contextlib.contextmanager
def stream_array(
    file: np.lib.npyio.NpzFile, name: str, path: str | os.PathLike
) -> Iterator[Callable[[int], np.ndarray]]:
    """A function that reads the next rows of an array of an open npz file.

    Raises:
      UsageError: the array is damaged, ends too early, or holds Python objects; from the function
        too.
    """
    with _member(file, name, path) as (member, shape, dtype, fortran):
        if dtype.hasobject or (fortran and len(shape) > 1):
            raise UsageError(
                f"{path}: {name} holds Python objects, or stands column by column; write it as a "
                f"C-ordered array of numbers"
            )
        size = int(np.prod(shape[1:])) * dtype.itemsize

        def read(rows: int) -> np.ndarray:
            try:
                content = member.read(int(rows) * size)
            except BROKEN as error:
                raise UsageError(f"{path}: {name} cannot be read ({error})") from None
            if len(content) != rows * size:
                raise UsageError(f"{path}: {name} ends too early; write the file again")
            return np.frombuffer(content, dtype).reshape(int(rows), *shape[1:])

        yield read


@contextlib.contextmanager
def _member(file, name, path) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype, bool]]:
    with contextlib.ExitStack() as stack:
        try:
            member = stack.enter_context(file.zip.open(f"{name}.npy"))
            version = np.lib.format.read_magic(member)
            header = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                header = np.lib.format.read_array_header_2_0
            shape, fortran, dtype = header(member)
        except BROKEN as error:
            raise UsageError(
                f"{path}: the array {name} is damaged ({error}); write it again"
            ) from None
        yield member, shape, dtype, fortran


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
    padding = _field(record, IMAGE_PADDING, name, rank=1, dtype=np.int32)
    if not len(features) == len(boxes) == len(padding):
        raise UsageError(
            f"{name}: {FEATURES} has {len(features)} regions, {BOXES} {len(boxes)} and "
            f"{IMAGE_PADDING} {len(padding)}; they must be equal"
        )
    if feature_dim is not None and features.shape[1] != feature_dim:
        raise UsageError(
            f"{name}: {FEATURES} is {features.shape[1]} wide, but the model reads features of "
            f"{feature_dim}; take them from the detector that the model was trained with"
        )
    _check_padding(padding, name, max_regions, global_region)
    _check_finite(features, FEATURES, name)
    _check_boxes(boxes, padding == 0, name)


def validate_pixels(
    record: Mapping[str, np.ndarray], *, name: str = "the record", patch_size: int | None = None
) -> None:
    """Checks `image/pixels` [H, W, 3] f32 in 0..1 of one photo, sides divisible by `patch_size`.

    Raises:
      UsageError: the first fault found.
    """
    pixels = _field(record, PIXELS, name, rank=3, dtype=np.float32)
    if pixels.shape[2] != 3 or 0 in pixels.shape:
        raise UsageError(f"{name}: {PIXELS} has shape {pixels.shape}; it must be [H, W, 3]")
    if patch_size and (pixels.shape[0] % patch_size or pixels.shape[1] % patch_size):
        raise UsageError(
            f"{name}: {PIXELS} is {pixels.shape[0]} × {pixels.shape[1]}; resize it so that both "
            f"sides are multiples of {patch_size}, the model's patch"
        )
    _check_finite(pixels, PIXELS, name)
    if pixels.min() < 0 or pixels.max() > 1:
        raise UsageError(f"{name}: {PIXELS} has values outside 0..1; divide 8-bit pixels by 255")


def _field(record, key, name, *, rank, dtype) -> np.ndarray:
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
    return value


def _check_padding(padding, name, max_regions, global_region) -> None:
    if len(padding) == 0:
        last = "; the last slot must be the global region" if global_region else ""
        raise UsageError(f"{name}: there is no region{last}")
    if not np.isin(padding, (0, 1)).all():
        raise UsageError(f"{name}: {IMAGE_PADDING} must hold 1 for padding and 0 for real regions")
    if padding.all():
        raise UsageError(f"{name}: {IMAGE_PADDING} marks every region as padding; 1 is padding")
    if global_region and padding[-1]:
        raise UsageError(
            f"{name}: the last slot is the global region, but {IMAGE_PADDING} marks it as padding; "
            f"put padding in front"
        )
    real = int((padding == 0).sum()) - global_region
    if max_regions is not None and real > max_regions:
        beside = " beside the global one" if global_region else ""
        raise UsageError(
            f"{name}: {real} regions{beside}, but at most {max_regions} fit; keep those of the "
            f"best scores"
        )


def _check_finite(values, key, name) -> None:
    if not np.isfinite(values).all():
        where = np.argwhere(~np.isfinite(values))[0].tolist()
        raise UsageError(f"{name}: {key} holds NaN or infinity, first at {where}")


def _check_boxes(boxes, real, name) -> None:
    if boxes.shape[1] != 5:
        raise UsageError(
            f"{name}: {BOXES} is {boxes.shape[1]} wide; it must hold ymin, xmin, ymax, xmax, area"
        )
    _check_finite(boxes, BOXES, name)
    check_coordinates(boxes[:, :4][real], f"{name}: {BOXES}", rows=np.flatnonzero(real))
    ymin, xmin, ymax, xmax, area = boxes[real].T
    wrong = np.abs((ymax - ymin) * (xmax - xmin) - area) > _AREA_SLACK
    if wrong.any():
        row, enclosed = np.flatnonzero(real)[wrong][0], ((ymax - ymin) * (xmax - xmin))[wrong][0]
        raise UsageError(
            f"{name}: {BOXES} row {row} gives the area {boxes[row, 4]:.4g}, but its corners "
            f"enclose {enclosed:.4g}; the last column is box area divided by image area"
        )


def check_coordinates(boxes: np.ndarray, name: str, *, rows: np.ndarray | None = None) -> None:
    """Checks [n, 4] boxes (ymin, xmin, ymax, xmax): finite, within 0..1, not inverted.

    Args:
      boxes: [n, 4] float.
      name: what the message calls them.
      rows: [n] row numbers for the message; None = 0, 1, ….

    Raises:
      UsageError: naming the first wrong row.
    """
    rows = np.arange(len(boxes)) if rows is None else rows
    outside = ~((boxes >= -_BOX_SLACK) & (boxes <= 1 + _BOX_SLACK)).all(axis=1)  # NaN too
    if outside.any():
        row = np.flatnonzero(outside)[0]
        raise UsageError(
            f"{name} row {rows[row]} is {np.round(boxes[row], 4).tolist()}, outside 0..1; divide "
            f"pixels by the image's height and width"
        )
    inverted = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    if inverted.any():
        row = np.flatnonzero(inverted)[0]
        raise UsageError(
            f"{name} row {rows[row]} is {np.round(boxes[row], 4).tolist()}, inverted; the order is "
            f"ymin, xmin, ymax, xmax"
        )
