"""Reads pickles of strangers: numpy arrays, numbers, strings and plain containers, and no code.

`pickle.load` calls whatever a file names. Here every name is refused but those that numpy writes
for arrays, dtypes and scalars, and these are answered by functions of this module that allocate
nothing before the data for it is there.
"""

from __future__ import annotations

import collections
import functools
import io
import math
import os
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from mmt_jax.errors import UsageError

MAX_BYTES = 1 << 28  # of a pickle: one photo's arrays

_DTYPE = re.compile(r"[<>|=]?[biufSUO?]\d{0,6}")
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
# What no array or container needs.
_REFUSED = {"PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER"}


def load(path: str | os.PathLike) -> Any:
    """`loads` of a file.

    Raises:
      UsageError: as `loads`, or the file is missing or larger than a photo's arrays can be.
    """
    try:
        if (size := os.path.getsize(path)) > MAX_BYTES:
            raise UsageError(
                f"{path} has {size:,} bytes; a photo's pickle has {MAX_BYTES:,} at most"
            )
        with open(path, "rb") as file:
            return loads(file.read(), str(path))
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from None


def loads(data: bytes, where: str) -> Any:
    """The object that a pickle holds.

    Args:
      data: the pickle, of any protocol, Python 2's included.
      where: what the message calls it.

    Raises:
      UsageError: it is damaged, or names anything but arrays, scalars and plain containers.
    """
    try:
        _check_opcodes(data, where)
        return _Unpickler(io.BytesIO(data), where).load()
    except UsageError:
        raise
    except Exception as error:  # any opcode of a damaged pickle may raise anything
        reason = str(error).partition("\n")[0][:200]
        raise UsageError(f"{where} is no intact pickle ({reason}); write the file again") from None


def load_array(file: IO[bytes], where: str) -> np.ndarray:
    """An array in numpy's npy layout; one of Python objects is unpickled as `loads` does.

    Raises:
      UsageError: it is damaged, larger than `MAX_BYTES`, or as `loads`.
    """
    try:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            header = np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(file)
        wanted = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if wanted > MAX_BYTES:
            raise UsageError(
                f"{where} announces {wanted:,} bytes; a photo has {MAX_BYTES:,} at most"
            )
        data = file.read(MAX_BYTES + 1 if dtype.hasobject else wanted)
        if dtype.hasobject:
            return _objects(data, where)
        values = np.frombuffer(data, dtype)
        return values.reshape(shape, order="F" if fortran else "C")
    except UsageError:
        raise
    except Exception as error:  # zlib, zipfile, tokenize, struct: as many as there are libraries
        reason = str(error).partition("\n")[0][:200]
        raise UsageError(f"{where} cannot be read ({reason}); write the file again") from None


def _objects(data: bytes, where: str) -> np.ndarray:
    if len(data) > MAX_BYTES:
        raise UsageError(f"{where} is larger than the {MAX_BYTES:,} bytes that a photo has at most")
    values = loads(data, where)
    if not isinstance(values, np.ndarray):
        raise UsageError(f"{where} holds a {type(values).__name__}, not an array")
    return values


def _check_opcodes(data: bytes, where: str) -> None:
    """Goes over a pickle without building it: lengths that the data does not have are errors."""
    for count, (opcode, arg, _) in enumerate(pickletools.genops(data)):
        # pickle makes room for as many memos as the largest index says.
        far = opcode.name in _PUTS and int(arg or 0) > count
        if far or opcode.name in _REFUSED:
            raise UsageError(
                f"{where} uses {opcode.name}, which arrays do not need; it is not read, for a "
                f"pickle may run any code"
            )


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, where: str):
        super().__init__(file, encoding="latin1")  # as numpy asks of Python 2's pickles
        self._where = where

    def find_class(self, module: str, name: str) -> Any:
        try:
            found = _ADMITTED[module.replace("numpy._core", "numpy.core"), name]
        except KeyError:
            raise UsageError(
                f"{self._where} asks for {module}.{name}; only numpy arrays and plain containers "
                f"are read, for a pickle may run any code"
            ) from None
        return functools.partial(found)  # a pickle may set attributes of what it names


class _Dtype:
    """What a pickle makes of a dtype; its state, in which numpy would believe any flag, is not."""

    __slots__ = ("real",)

    def __init__(self, spec: str, *_: Any):
        if not isinstance(spec, str) or not _DTYPE.fullmatch(spec):
            raise ValueError(f"a dtype {str(spec)[:20]!r}")
        self.real = np.dtype(spec)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.real = self.real.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array whose memory is not taken before the data for it is there."""

    __slots__ = ()

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, fortran, data = state
        count = math.prod(shape) if all(type(n) is int and n >= 0 for n in shape) else -1
        if dtype.real.hasobject and not (isinstance(data, list) and len(data) == count):
            raise ValueError("an array of objects without them")
        super().__setstate__((version, shape, dtype.real, fortran, data))


def _reconstruct(*_: Any) -> np.ndarray:
    """An empty array; its state, which follows, brings shape and data together."""
    return np.empty(0, np.int8).view(_Array)


def _ndarray(*_: Any) -> None:
    raise ValueError("an array is not made by its class")


def _scalar(dtype: _Dtype, data: Any = b"") -> Any:
    if isinstance(data, str):  # Python 2's bytes
        data = data.encode("latin1")
    if dtype.real.hasobject or len(data) != dtype.real.itemsize:
        raise ValueError(f"a scalar of {dtype.real}")
    return np.frombuffer(data, dtype.real)[0]


def _frombuffer(data: Any, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    return np.frombuffer(data, dtype.real).reshape(shape, order=order)


def _encode(text: str, encoding: str) -> bytes:
    """How pickles of protocol 2 write bytes."""
    if encoding != "latin1":
        raise ValueError(f"bytes in {encoding}")
    return text.encode(encoding)


_ADMITTED: dict[tuple[str, str], Callable] = {
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("__builtin__", "set"): set,  # Python 2's name of builtins
    ("__builtin__", "frozenset"): frozenset,
}
