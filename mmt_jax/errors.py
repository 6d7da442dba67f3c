"""What a person or the system did wrong, as the command line tells it."""

from __future__ import annotations

import errno
import os

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What libraries written in C++ quote in errors of their own.
_QUOTED = (*_FULL, errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)


class UsageError(Exception):
    """Wrong use or wrong input. The command line prints the message alone and exits with 2."""


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
