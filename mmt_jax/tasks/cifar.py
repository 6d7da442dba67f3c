"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): small photos of one object each."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import numpy as np

from mmt_jax import readers as files
from mmt_jax.errors import UsageError

SPLITS = ("train", "test")
_SIDE = 32


@dataclasses.dataclass(frozen=True)
class Photos:
    """Labelled photos.

    Attributes:
      pixels: [N, 32, 32, 3] u8.
      labels: [N] i32, indices into `classes`.
      classes: their names.
    """

    pixels: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Where the binary version of a data set keeps what."""

    files: dict[str, tuple[str, ...]]  # by split
    names: str
    labels: int  # bytes of labels before the pixels; the last of them counts


_LAYOUTS = (
    _Layout(
        {
            "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
            "test": ("test_batch.bin",),
        },
        names="batches.meta.txt",
        labels=1,
    ),
    _Layout(
        {"train": ("train.bin",), "test": ("test.bin",)}, names="fine_label_names.txt", labels=2
    ),
)


def read(folder: str | os.PathLike, split: str) -> Photos:
    """Reads a split of the binary version: `cifar-10-batches-bin` or `cifar-100-binary`.

    CIFAR-100's labels are the fine ones.

    Raises:
      UsageError: no such split, the folder holds something else (such as the Python version, which
        is pickles), or a file is damaged.
    """
    if split not in SPLITS:
        raise UsageError(f"CIFAR has no split {split!r}; it has {' and '.join(SPLITS)}")
    folder = pathlib.Path(folder)
    layout = _layout(folder)
    classes = tuple(text for _, text in files.lines(folder / layout.names) if text)
    pixels, labels = zip(*(_read(folder / n, layout, len(classes)) for n in layout.files[split]))
    return Photos(np.concatenate(pixels), np.concatenate(labels), classes)


def _layout(folder: pathlib.Path) -> _Layout:
    for layout in _LAYOUTS:
        if (folder / layout.names).is_file():
            return layout
    if any((folder / name).is_file() for name in ("batches.meta", "meta")):
        raise UsageError(
            f"{folder} is the Python version of CIFAR: pickles, which may run code and are not "
            f"read; take the binary version (cifar-10-binary.tar.gz or cifar-100-binary.tar.gz)"
        )
    raise UsageError(
        f"{folder} is not the binary version of CIFAR: it has neither "
        f"{' nor '.join(layout.names for layout in _LAYOUTS)}"
    )


def _read(path: pathlib.Path, layout: _Layout, classes: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    width = layout.labels + 3 * _SIDE**2
    if not len(content) or len(content) % width:
        raise UsageError(
            f"{path} has {len(content)} bytes, no multiple of {width}; it is damaged: unpack it "
            f"again"
        )
    rows = content.reshape(-1, width)
    labels = rows[:, layout.labels - 1].astype(np.int32)
    if labels.max() >= classes:
        raise UsageError(f"{path} has a label {labels.max()}, but there are {classes} classes")
    planes = rows[:, layout.labels :].reshape(-1, 3, _SIDE, _SIDE)
    return planes.transpose(0, 2, 3, 1), labels
