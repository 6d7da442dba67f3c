"""Writes region folders photo by photo, so that a split may be larger than memory."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
import tempfile
import types
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from mmt_jax.data import schema
from mmt_jax.errors import UsageError
from mmt_jax.files import NoRoomError, lock
from mmt_jax.photo import LABELS, Photo

DTYPES = ("float16", "float32", "uint8")
FLOATS = DTYPES[:2]  # what features that are floats can be stored as

_CHUNK = 1 << 20
_ROWS = ".rows"  # how the names of folders end that a split is written in
_LOCK = "lock"  # in such a folder, held by who writes there
_SPLIT = re.compile(r"\w[\w.-]*")


class FolderWriter:
    """Writes one split of a region folder, which is made where it does not exist.

        with FolderWriter("my_photos", "train") as writer:
            for photo in photos:
                writer.add(photo)

    Both files appear, whole, where the block ends without an exception; else neither does. Until
    then rows lie in a hidden folder beside them, so that the disk must hold the split twice; what a
    process that was killed left there goes. Of a photo only its id stays in memory.

    Args:
      folder: the region folder.
      split: its name, such as "train".
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
        if dtype not in DTYPES:
            raise UsageError(f"features cannot be stored as {dtype!r}; it is one of {DTYPES}")
        if not _SPLIT.fullmatch(split):
            raise UsageError(f"{split!r} cannot name a split; take letters and digits, as in train")
        self.folder = pathlib.Path(folder)
        self.split = split
        for name in self._names:
            if (target := self.folder / name).exists():
                raise UsageError(
                    f"{target} exists and is not overwritten; remove it or name another"
                )
        self._dtype = np.dtype(dtype)
        self.num_classes, self.num_attributes = num_classes, num_attributes
        self._ids: set[int] = set()
        self._rows = 0
        self._columns: dict[str, _Column] = {}

    def __len__(self) -> int:
        """Photos added."""
        return len(self._ids)

    def __enter__(self) -> FolderWriter:
        self._files = contextlib.ExitStack()
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            for parts in self.folder.glob(f".{self.split}.*{_ROWS}"):
                if _in_use(parts):
                    raise UsageError(
                        f"another run is writing the split {self.split!r} of {self.folder}; wait "
                        f"until it ends, or name another split or folder"
                    )
                shutil.rmtree(parts, ignore_errors=True)
            self._parts = pathlib.Path(
                tempfile.mkdtemp(prefix=f".{self.split}.", suffix=_ROWS, dir=self.folder)
            )
            self._files.callback(shutil.rmtree, self._parts, ignore_errors=True)
            lock(self._files.enter_context((self._parts / _LOCK).open("wb")))
            self._lines = self._files.enter_context((self._parts / self._names[1]).open("wb"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        with self._writing(), self._files:
            if kind is None:
                self._finish()

    def add(self, photo: Photo) -> None:
        """Appends a photo; one that is refused leaves no trace.

        Raises:
          UsageError: naming the photo and its first fault: an id that another photo has, arrays
            whose shapes disagree with each other or with the photos before, numbers that are not
            finite or do not fit, boxes outside 0..1 or inverted, impossible probabilities.
        """
        name = f"photo {photo.image_id}"
        if photo.image_id in self._ids:
            raise UsageError(f"{name} is there twice; give each photo an id of its own")
        if not -(2**63) <= photo.image_id < 2**63:
            raise UsageError(f"{name}: the id does not fit into 64 bits")
        arrays = self._checked(photo, name)
        line = {"image_id": photo.image_id, "captions": list(photo.captions), **photo.info}
        try:
            text = json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        except (TypeError, ValueError) as error:  # UnicodeEncodeError of lone surrogates too
            raise UsageError(f"{name}: captions and info must be plain text ({error})") from None
        with self._writing():
            if not self._columns:
                self._open(arrays)
            for key, values in arrays.items():
                self._columns[key].append(values)
            self._rows += len(photo.features)
            self._columns["offsets"].append(np.array([self._rows]))
            self._columns["image_ids"].append(np.array([photo.image_id]))
            self._lines.write(text)
        self._ids.add(photo.image_id)

    @property
    def _names(self) -> tuple[str, str]:
        return f"{self.split}.npz", f"{self.split}.jsonl"

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise NoRoomError(
                f"{self.folder} cannot be written ({error.strerror or error}); make room there or "
                f"name another folder. The split {self.split!r} was not written"
            ) from error

    def _checked(self, photo: Photo, name: str) -> dict[str, np.ndarray]:
        """The photo's arrays as they are stored."""
        if photo.features.ndim != 2 or 0 in photo.features.shape:
            raise UsageError(f"{name}: features has shape {photo.features.shape}, not [rows, F]")
        rows = len(photo.features)
        arrays = {
            "features": _features(photo.features, self._dtype, name),
            "boxes": _numbers(photo.boxes, np.float32, (rows, 4), f"{name}: boxes"),
        }
        schema.check_coordinates(arrays["boxes"], f"{name}: boxes")
        if photo.scores is not None:
            arrays["scores"] = _numbers(photo.scores, np.float32, (rows,), f"{name}: scores")
        for kind in LABELS:
            arrays |= self._labels(photo, kind, rows, name)
        if photo.pixels is not None:
            if photo.pixels.dtype != np.uint8 or photo.pixels.shape[2:] != (3,):
                raise UsageError(f"{name}: pixels must be uint8 [H, W, 3]")
            arrays["pixels"] = photo.pixels[None]
        self._check_like_the_first(arrays, name)
        return arrays

    def _labels(self, photo: Photo, kind: str, rows: int, name: str) -> dict[str, np.ndarray]:
        ids, probs = getattr(photo, f"{kind}_ids"), getattr(photo, f"{kind}_probs")
        if ids is None and probs is None:
            return {}
        if ids is None or probs is None:
            raise UsageError(f"{name}: {kind}_ids and {kind}_probs need each other")
        shape, number = (rows, *ids.shape[1:2]), getattr(self, LABELS[kind])
        ids = _numbers(ids, np.int32, shape, f"{name}: {kind}_ids")
        probs = _numbers(probs, np.float32, shape, f"{name}: {kind}_probs")
        if number is not None and ids.max(initial=0) >= number:
            raise UsageError(f"{name}: {kind} {ids.max()}, but there are {number}")
        if ids.min(initial=0) < 0:
            raise UsageError(f"{name}: {kind} {ids.min()}; {kind} ids begin with 0")
        if (probs < 0).any() or (probs.sum(axis=1) > 1.01).any():
            raise UsageError(f"{name}: {kind}_probs must be at least 0 and sum to at most 1 a row")
        return {f"{kind}_ids": ids, f"{kind}_probs": probs}

    def _check_like_the_first(self, arrays: dict[str, np.ndarray], name: str) -> None:
        first = {key: column.tail for key, column in self._columns.items()}
        ours = {key: values.shape[1:] for key, values in arrays.items()}
        for key in sorted(ours.keys() | first.keys() - {"offsets", "image_ids"}):
            if first and ours.get(key) != first.get(key):
                raise UsageError(
                    f"{name}: {key} {_of(ours.get(key))}, but of the photos before it "
                    f"{_of(first.get(key))}; a split has one shape of each"
                )

    def _open(self, arrays: dict[str, np.ndarray]) -> None:
        numbers = np.zeros(0, np.int64)
        for key, values in (arrays | {"offsets": numbers, "image_ids": numbers}).items():
            file = self._files.enter_context((self._parts / key).open("wb"))
            self._columns[key] = _Column(file, values.dtype, values.shape[1:])
        self._columns["offsets"].append(np.array([0]))

    def _finish(self) -> None:
        if not self._ids:
            raise UsageError(f"{self.folder / self._names[0]} would hold no photo; nothing written")
        npz, lines = (self._parts / name for name in self._names)
        self._lines.close()
        with zipfile.ZipFile(npz, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for key, column in self._columns.items():
                column.file.close()
                with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                    column.copy(self._parts / key, member)
                (self._parts / key).unlink()
            for name in LABELS.values():
                if (number := getattr(self, name)) is not None:
                    with archive.open(f"{name}.npy", "w") as member:
                        np.lib.format.write_array(member, np.array(number, np.int64))
        for part in (npz, lines):
            os.replace(part, self.folder / part.name)


def _in_use(parts: pathlib.Path) -> bool:
    try:
        with (parts / _LOCK).open("rb") as file:
            return not lock(file)
    except OSError:
        return False


class _Column:
    """Rows of one array, on disk without a header until their number is known."""

    def __init__(self, file: BinaryIO, dtype: np.dtype, tail: tuple[int, ...]):
        self.file = file
        self.tail = tail
        self._dtype = dtype
        self._rows = 0

    def append(self, values: np.ndarray) -> None:
        self.file.write(np.ascontiguousarray(values, self._dtype).tobytes())
        self._rows += len(values)

    def copy(self, path: pathlib.Path, member: Any) -> None:
        header = np.lib.format.header_data_from_array_1_0(np.empty((0, *self.tail), self._dtype))
        np.lib.format.write_array_header_1_0(member, header | {"shape": (self._rows, *self.tail)})
        with open(path, "rb") as rows:
            shutil.copyfileobj(rows, member, _CHUNK)


def _features(values: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    if (values.dtype == np.uint8) != (dtype == np.uint8) or values.dtype.kind not in "uf":
        raise UsageError(f"{name}: features are {values.dtype}, which is not stored as {dtype}")
    if not np.isfinite(values).all():
        row = np.argwhere(~np.isfinite(values))[0][0]
        raise UsageError(f"{name}: features holds NaN or infinity in row {row}")
    with np.errstate(over="ignore"):
        stored = values.astype(dtype, copy=False)
    if not np.isfinite(stored).all():
        raise UsageError(
            f"{name}: features reach {np.abs(values).max():.4g}, beyond {dtype}; store float32"
        )
    return stored


def _numbers(values: np.ndarray, dtype: type, shape: tuple[int, ...], name: str) -> np.ndarray:
    kinds = "iu" if np.dtype(dtype).kind == "i" else "iuf"
    if values.shape != shape or values.dtype.kind not in kinds:
        raise UsageError(f"{name} is {values.dtype} {values.shape}, it must be numbers {shape}")
    if not np.isfinite(values).all():
        raise UsageError(f"{name} holds NaN or infinity")
    if kinds == "iu" and values.size and not -(2**31) <= int(values.min()) <= values.max() < 2**31:
        raise UsageError(f"{name} runs from {values.min()} to {values.max()}, beyond 32 bits")
    return values.astype(dtype, copy=False)


def _of(tail: tuple[int, ...] | None) -> str:
    return (
        "is missing" if tail is None else f"has the shape {[..., *tail]}".replace("Ellipsis", "…")
    )
