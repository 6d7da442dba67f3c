"""Pickles of strangers: numpy arrays, numbers, strings and plain containers, and no code.

`pickle.load` calls whatever a file names. Here every name is refused but those that numpy writes
for arrays, dtypes and scalars. A damaged pickle may still end the process, or ask for all of its
memory: `guarded.read` is for that.
"""

from __future__ import annotations

import io
import os
import pickle
from typing import IO, Any

import numpy as np

from mmt_jax.data import npz
from mmt_jax.errors import UsageError
from mmt_jax.photo import IMAGE_PADDING

_ADMITTED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),  # how pickles of protocol 2 write bytes
    ("collections", "OrderedDict"),
    ("builtins", "set"),
    ("builtins", "frozenset"),
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], where: str):
        super().__init__(file, encoding="latin1")  # as numpy asks of Python 2's pickles
        self._where = where

    def find_class(self, module: str, name: str) -> Any:
        # Older numpy's, and Python 2's, names of the same.
        module = module.replace("numpy.core", "numpy._core").replace("__builtin__", "builtins")
        if (module, name) not in _ADMITTED:
            raise UsageError(
                f"{self._where} asks for {module}.{name}; only numpy arrays and plain containers "
                f"are read, for a pickle may run any code"
            )
        return super().find_class(module, name)


def load(file: IO[bytes], where: str) -> Any:
    """The object that a pickle of any protocol holds, Python 2's included.

    Raises:
      UsageError: it names anything but arrays, scalars and plain containers.
      Exception: of any type, where it is damaged.
    """
    return _Unpickler(file, where).load()


def loads(data: bytes, where: str) -> Any:
    """`load` of bytes."""
    return load(io.BytesIO(data), where)


def record(path: str | os.PathLike) -> dict[str, Any]:
    """What the MMT release pickled of one photo: a dict, arrays without a batch axis.

    Raises:
      UsageError: there is no such file, it holds something else, or as `load`.
      Exception: as `load`.
    """
    where = os.fspath(path)
    try:
        with open(path, "rb") as file:
            fields = load(file, where)
    except FileNotFoundError:
        raise UsageError(f"there is no file {where}") from None
    if not isinstance(fields, dict):
        raise UsageError(f"{where} holds a {type(fields).__name__}, it must hold a dict")
    for key, value in fields.items():
        if isinstance(value, np.ndarray) and value.ndim == (2 if key == IMAGE_PADDING else 3):
            fields[key] = value[0] if len(value) == 1 else value
    return fields


def load_array(file: IO[bytes], where: str) -> np.ndarray:
    """An array in numpy's npy layout; one of Python objects is unpickled as `load` does."""
    start = file.tell()
    if npz.header(file)[2].hasobject:
        return np.asarray(load(file, where))
    file.seek(start)
    return np.lib.format.read_array(file, allow_pickle=False)
