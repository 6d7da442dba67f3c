"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): small photos of one object each."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from mmt_jax import readers as files
from mmt_jax.errors import UsageError
from mmt_jax.tasks import base

_SIDE = 32


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Where the binary version of a data set keeps what."""

    names: str
    labels: int  # bytes of labels before the pixels, of which the last counts
    files: dict[str, tuple[str, ...]]  # by split


_LAYOUTS = (
    _Layout(
        "batches.meta.txt",
        1,
        {
            "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
            "test": ("test_batch.bin",),
        },
    ),
    _Layout("fine_label_names.txt", 2, {"train": ("train.bin",), "test": ("test.bin",)}),
)


def read(path: str) -> Iterator[base.Entry]:
    """Reads a split of the binary version: `cifar-10-batches-bin:test`, `cifar-100-binary:test`.

    Without a colon that is `train`. CIFAR-100's labels are the fine ones.

    Raises:
      UsageError: the folder holds something else (such as the Python version, which is pickles), or
        a file is damaged.
    """
    name, _, split = path.rpartition(":")
    if split not in ("train", "test"):
        name, split = path, "train"
    folder = pathlib.Path(name)
    layout = _layout(folder)
    classes = [text for _, text in files.lines(folder / layout.names) if text]
    number = 0
    for file in layout.files[split]:
        for label, pixels in zip(*_read(folder / file, layout.labels, len(classes))):
            photo = {"pixels": pixels, "worth": {classes[label]: 1.0}}
            yield base.Entry(number, photos=(number,), where=str(folder / file), **photo)
            number += 1


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
        f"{' nor '.join(layout.names for layout in _LAYOUTS)}; behind a colon, a split is train or "
        f"test"
    )


def _read(path: pathlib.Path, bytes_: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels [N] and pixels [N, 32, 32, 3] uint8."""
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    width = bytes_ + 3 * _SIDE**2
    if not len(content) or len(content) % width:
        raise UsageError(
            f"{path} has {len(content)} bytes, no multiple of {width}; it is damaged: unpack it "
            f"again"
        )
    rows = content.reshape(-1, width)
    labels = rows[:, bytes_ - 1]
    if labels.max() >= classes:
        raise UsageError(f"{path} has a label {labels.max()}, but there are {classes} classes")
    return labels, rows[:, bytes_:].reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)


def _listed(entries: Sequence[base.Entry], least: int) -> tuple[str, ...]:
    """Those that occur, by alphabet, as published."""
    del least
    return tuple(sorted({entry.best for entry in entries}))


def _written(found: base.Answers) -> str:
    """As Kaggle takes it: photos count from 1."""
    lines = [f"{number + 1},{name}\n" for number, name in found.items()]
    return "id,label\n" + "".join(lines)


TASKS = {"cifar": base.Task(read, _written, listed=_listed)}
