"""Writes region folders photo by photo, so that a split may be larger than memory."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from mmt_jax.data import published
from mmt_jax.errors import UsageError, trying, writing
from mmt_jax.files import check_new, staged
from mmt_jax.photo import BOXES, FEATURES, LABELS, WHOLE, Photo

DTYPES = ("float16", "float32", "uint8")
FLOATS = DTYPES[:2]  # what features that are floats can be stored as

_CHUNK = 1 << 20
_SPLIT = re.compile(r"\w[\w.-]*")


class NoPhotoError(UsageError):
    """A split would hold no photo."""


class FolderWriter(contextlib.ExitStack):
    """Writes one split of a region folder, which is made where it does not exist.

        with FolderWriter("my_photos", "train") as writer:
            for number, features, boxes, whole in detected:
                seen = photo.rows(features, boxes, whole=whole)
                writer.add(Photo(number, ("a dog",), seen))

    Both files appear, whole, where the block ends without an exception; else neither does. Until
    then rows lie in a hidden folder beside them, so that the disk must hold the split twice; what a
    process that was killed left there goes. Of a photo only its id stays in memory.

    Args:
      dtype: of the stored features; "uint8" takes features that are companded already.
      num_classes, num_attributes: of the detector; None = counted from the ids by those who read
        them. May be set until the end, for who learns it from the photos.

    Raises:
      UsageError: the split is there already, its name is no plain name, or no such dtype; where
        the block begins, another one writes the split; at its end, no photo was added.
      NoRoomError: there is no room to write, or no permission; from `add` too.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        split: str,
        *,
        dtype: str = "float16",
        num_classes: int | None = None,
        num_attributes: int | None = None,
    ):
        super().__init__()
        if dtype not in DTYPES:
            raise UsageError(f"features cannot be stored as {dtype!r}; it is one of {DTYPES}")
        if not _SPLIT.fullmatch(split):
            raise UsageError(f"{split!r} cannot name a split; take letters and digits, as in train")
        self.folder = pathlib.Path(folder)
        self.split = split
        for target in (self.folder / f"{split}.npz", self.folder / f"{split}.jsonl"):
            check_new(target)
        self._dtype = np.dtype(dtype)
        self.num_classes, self.num_attributes = num_classes, num_attributes
        self._ids: set[int] = set()
        self._rows = 0
        # Each array's rows so far, on disk without a header, and those of the first photo.
        self._columns: dict[str, tuple[BinaryIO, np.ndarray]] = {}

    def __len__(self) -> int:
        """Photos added."""
        return len(self._ids)

    def __enter__(self) -> FolderWriter:
        self.enter_context(self._begun())
        return self

    @contextlib.contextmanager
    def _begun(self) -> Iterator[None]:
        with (
            staged(self.folder, self.split, last=".jsonl") as self._parts,
            contextlib.ExitStack() as self._files,
        ):
            lines = self._parts / f"{self.split}.jsonl"
            self._lines = self._files.enter_context(lines.open("wb"))
            yield
            self._finish()

    def add(self, photo: Photo) -> None:
        """Appends a photo; one that is refused leaves no trace.

        Raises:
          UsageError: naming the photo and its first fault: an id that another photo has, arrays
            whose shapes disagree with each other or with the photos before, numbers that are not
            finite or do not fit, boxes outside 0..1 or inverted, a last row that is not the whole
            photo, impossible probabilities.
        """
        name = f"photo {photo.image_id}"
        if photo.image_id in self._ids:
            raise UsageError(f"{name} is there twice; give each photo an id of its own")
        if not -(2**63) <= photo.image_id < 2**63:
            raise UsageError(f"{name}: the id does not fit into 64 bits")
        arrays = self._checked(photo, name)
        line = {"image_id": photo.image_id, "captions": list(photo.captions), **photo.info}
        with trying(f"{name}: captions and info must be plain text"):  # no lone surrogates, either
            text = json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        with writing(self.folder):
            self._rows += len(arrays["features"])
            ends = [self._rows] if self._ids else [0, self._rows]
            arrays["offsets"] = np.array(ends, np.int64)
            arrays["image_ids"] = np.array([photo.image_id], np.int64)
            for key, values in arrays.items():
                if key not in self._columns:
                    file = self._files.enter_context((self._parts / key).open("wb"))
                    self._columns[key] = file, np.ascontiguousarray(values)
                self._columns[key][0].write(np.ascontiguousarray(values).tobytes())
            self._lines.write(text)
        self._ids.add(photo.image_id)

    def _checked(self, photo: Photo, name: str) -> dict[str, np.ndarray]:
        """The photo's arrays as they are stored."""
        features, boxes = photo.rows[FEATURES], photo.rows[BOXES]
        if features.ndim != 2 or 0 in features.shape or boxes.shape != (len(features), 5):
            raise UsageError(
                f"{name}: {FEATURES} has shape {features.shape} and {BOXES} {boxes.shape}; they "
                f"must be [rows, F] and [rows, 5]"
            )
        if not np.allclose(boxes[-1], WHOLE, atol=1e-3):
            raise UsageError(
                f"{name}: the last row is the whole photo, whose box is {WHOLE}, not "
                f"{boxes[-1].tolist()}; see mmt_jax.photo"
            )
        arrays = published.arrays(photo.rows)
        arrays["features"] = _features(arrays["features"], self._dtype, name)
        published.check(arrays, {n: getattr(self, n) for n in LABELS.values()}, name)
        for key in arrays.keys() - {"features"}:
            arrays[key] = arrays[key].astype(np.int32 if key.endswith("_ids") else np.float32)
        if photo.pixels is not None:
            if photo.pixels.dtype != np.uint8 or photo.pixels.shape[2:] != (3,):
                raise UsageError(f"{name}: pixels must be uint8 [H, W, 3]")
            arrays["pixels"] = photo.pixels[None]
        first = {key: of_first for key, (_, of_first) in self._columns.items()}
        for key in sorted(arrays.keys() | first.keys() - {"offsets", "image_ids"}):
            ours, theirs = _of(arrays.get(key)), _of(first.get(key))
            if first and ours != theirs:
                raise UsageError(
                    f"{name}: {key} {ours}, but of the photos before it {theirs}; a split has one "
                    f"shape of each"
                )
        return arrays

    def _finish(self) -> None:
        npz = f"{self.split}.npz"
        if not self._ids:
            raise NoPhotoError(f"{self.folder / npz} would hold no photo; nothing written")
        counts = dict.fromkeys(("image_ids", "pixels"), len(self)) | {"offsets": len(self) + 1}
        with zipfile.ZipFile(
            self._parts / npz, "w", zipfile.ZIP_DEFLATED, compresslevel=1
        ) as archive:
            for key, (file, first) in self._columns.items():
                file.close()
                path = self._parts / key
                with (
                    open(path, "rb") as rows,
                    archive.open(f"{key}.npy", "w", force_zip64=True) as member,
                ):
                    header = np.lib.format.header_data_from_array_1_0(first)
                    header["shape"] = (counts.get(key, self._rows), *first.shape[1:])
                    np.lib.format.write_array_header_1_0(member, header)
                    shutil.copyfileobj(rows, member, _CHUNK)
                path.unlink()
            for name in LABELS.values():
                if (number := getattr(self, name)) is not None:
                    with archive.open(f"{name}.npy", "w") as member:
                        np.lib.format.write_array(member, np.array(number, np.int64))


def _features(values: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """As they are stored."""
    if (values.dtype == np.uint8) != (dtype == np.uint8) or values.dtype.kind not in "uf":
        raise UsageError(f"{name}: features are {values.dtype}, which is not stored as {dtype}")
    with np.errstate(over="ignore"):
        stored = values.astype(dtype, copy=False)
    if np.isfinite(values).all() and not np.isfinite(stored).all():
        raise UsageError(
            f"{name}: features reach {np.abs(values).max():.4g}, beyond {dtype}; store float32"
        )
    return stored


def _of(values: np.ndarray | None) -> str:
    if values is None:
        return "is missing"
    return f"has the shape [{', '.join(['…', *map(str, values.shape[1:])])}]"
