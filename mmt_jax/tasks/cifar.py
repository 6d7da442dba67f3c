"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): small photos of one object each."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import numpy as np

from mmt_jax import readers as files
from mmt_jax.errors import UsageError, reading
from mmt_jax.tasks import base

_SIDE = 32
# File of the classes' names → bytes of labels before a photo's pixels (the last one counts) and
# files by split.
_LAYOUTS = {
    "batches.meta.txt": (
        1,
        {"train": [f"data_batch_{n}.bin" for n in range(1, 6)], "test": ["test_batch.bin"]},
    ),
    "fine_label_names.txt": (2, {"train": ["train.bin"], "test": ["test.bin"]}),
}


def read(path: str) -> Iterator[base.Entry]:
    """Reads a split of the binary version: `cifar-10-batches-bin:test`, `cifar-100-binary:test`.

    Without a colon that is `train`. CIFAR-100's labels are the fine ones. The Python version, which
    is pickles, is refused.
    """
    name, _, split = path.rpartition(":")
    if split not in ("train", "test"):
        name, split = path, "train"
    folder = pathlib.Path(name)
    listed = _listed(folder)
    classes = [text for _, text in files.lines(folder / listed) if text]
    skipped, splits = _LAYOUTS[listed]
    number = 0
    for file in splits[split]:
        for row in _rows(folder / file, skipped + 3 * _SIDE**2):
            if (label := int(row[skipped - 1])) >= len(classes):
                raise UsageError(
                    f"{folder / file} has a label {label}, but there are {len(classes)} classes"
                )
            pixels = row[skipped:].reshape(3, _SIDE, _SIDE).transpose(1, 2, 0)
            worth = {classes[label]: 1.0}
            yield base.Entry(number, (), (number,), worth, pixels=pixels, where=str(folder / file))
            number += 1


def _listed(folder: pathlib.Path) -> str:
    """The name of the file that lists the classes."""
    for name in _LAYOUTS:
        if (folder / name).is_file():
            return name
    if any((folder / name).is_file() for name in ("batches.meta", "meta")):
        raise UsageError(
            f"{folder} is the Python version of CIFAR: pickles, which may run code and are not "
            f"read; take the binary version (cifar-10-binary.tar.gz or cifar-100-binary.tar.gz)"
        )
    raise UsageError(
        f"{folder} is not the binary version of CIFAR: it has neither {' nor '.join(_LAYOUTS)}; "
        f"behind a colon, a split is train or test"
    )


def _rows(path: pathlib.Path, width: int) -> np.ndarray:
    """[N, width] uint8."""
    with reading(path):
        content = np.fromfile(path, np.uint8)
    if not len(content) or len(content) % width:
        raise UsageError(
            f"{path} has {len(content)} bytes, no multiple of {width}; it is damaged: unpack it "
            f"again"
        )
    return content.reshape(-1, width)


def _written(found: base.Answers) -> str:
    """As Kaggle takes it: photos count from 1."""
    return "id,label\n" + "".join(f"{number + 1},{name}\n" for number, name in found.items())


TASKS = {"cifar": base.Task(read, _written)}
