"""What a person or the system did wrong, as the command line tells it."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import re
import textwrap
from collections.abc import Iterable, Iterator

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What libraries written in C++ quote in errors of their own.
_QUOTED = (*_FULL, errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)


class UsageError(Exception):
    """Wrong use or wrong input. The command line prints the message alone and exits with 2."""


class NoRoomError(UsageError):
    """A file or folder cannot be written, whatever was to be written there."""


@contextlib.contextmanager
def writing(
    path: str | os.PathLike,
    what: str = "",
    *,
    of: type[Exception] = OSError,
    remedy: str = "make room there or name another",
) -> Iterator[None]:
    """Around what writes to `path` itself or, there, `what`; raises NoRoomError where it cannot.

    `of` is how what writes says that it cannot, where that is not as the system does.
    """
    try:
        yield
    except MemoryError:
        raise
    except of as error:
        if of is OSError and getattr(error, "errno", None) == errno.ENOENT:
            raise  # of a file that is read: folders above `path` are made
        where = f"{what} cannot be written to {path}" if what else f"{path} cannot be written"
        raise NoRoomError(f"{where} ({reason(error)}); {remedy}") from error


@contextlib.contextmanager
def reading(what: object) -> Iterator[None]:
    """Around what reads a file; raises UsageError in place of what the system says."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{what} cannot be read: {reason(error)}") from None


@contextlib.contextmanager
def trying(wrong: str, remedy: str = "") -> Iterator[None]:
    """Around what a library does that may raise anything; a UsageError says what is wrong, and why.

    So do TensorFlow, torch, onnxruntime, tokenizers, h5py, protobuf, whose errors share no class.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"{wrong} ({reason(error)}){remedy}") from None


def reason(error: BaseException) -> str:
    """What an error says in one line: the system's words, where it holds them."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip()
    if code := re.search(r"os_error_code='(\d+)'", text):  # tensorstore's
        return os.strerror(int(code[1]))
    for code in _QUOTED:
        if os.strerror(code) in text:
            return os.strerror(code)
    return textwrap.shorten(text or type(error).__name__, 300, placeholder=" …")


@contextlib.contextmanager
def optional(need: str, extra: str) -> Iterator[None]:
    """Around the import of a package that not everybody has.

    `need` says what needs which, such as "HDF5 files need h5py"; it comes with mmt_jax[`extra`].
    """
    try:
        yield
    except ImportError as error:
        raise UsageError(
            f"{need}, which cannot be imported here ({error}); run pip install 'mmt_jax[{extra}]'"
        ) from None


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about a name that there is not: the nearest, or all that there are."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"


def of_system(error: BaseException | None) -> str | None:
    """One sentence for an error that the system, and no fault of ours, is behind; else None.

    The disk is full, a folder read-only, a path leads through a file, memory is used up: as Python
    says it, or as a library quotes it.
    """
    told = None
    while error and not (told := _sentence(error)):
        error = error.__cause__
    return told


def _sentence(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.errno:
        return _of(error.errno, error.filename)
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object!r} cannot be written as {error.encoding}; rename the file"
    text = str(error)
    if isinstance(error, MemoryError):
        return f"there is not enough memory ({text or 'out of memory'})"
    if not isinstance(error, OSError | RuntimeError | ValueError):
        return None
    for code in _QUOTED:
        if os.strerror(code) in text:
            return _of(code, None)
    if "RESOURCE_EXHAUSTED" in text or "Out of memory" in text:
        return (
            f"the device has not enough memory ({text.splitlines()[0]}); make config.batch_size "
            f"smaller, or config.grad_accum greater"
        )
    return None


def _of(code: int, path: object) -> str:
    where = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else "the system says"
    advice = "; make room, or name another folder" if code in _FULL else ""
    return f"{where}: {os.strerror(code)}{advice}"
