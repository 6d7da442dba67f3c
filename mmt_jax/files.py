"""Files and folders that become whole or not at all, and locks on them."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Callable, Iterator
from typing import BinaryIO

from mmt_jax.errors import UsageError


class NoRoomError(UsageError):
    """The folder cannot be written, whatever the photo."""


def whole(path: str | os.PathLike) -> contextlib.AbstractContextManager[pathlib.Path]:
    """A hidden file beside `path` to write to, which becomes it where the block ends well.

    Folders above it are made where they are missing.

    Raises:
      NoRoomError: it cannot be written; what was written before goes.
    """
    return _becomes(pathlib.Path(path), lambda part: part.unlink(missing_ok=True))


def whole_folder(path: str | os.PathLike) -> contextlib.AbstractContextManager[pathlib.Path]:
    """The name of a hidden folder to make, which becomes `path` where the block ends well.

    `path` may be an empty folder, or a link to one.

    Raises:
      NoRoomError: it cannot be written; what was written before goes.
    """
    place = pathlib.Path(os.path.realpath(path))
    return _becomes(place, lambda part: shutil.rmtree(part, ignore_errors=True))


@contextlib.contextmanager
def _becomes(path: pathlib.Path, remove: Callable[[pathlib.Path], None]) -> Iterator[pathlib.Path]:
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # hosts may share a folder
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            os.replace(part, path)
        finally:
            remove(part)
    except OSError as error:
        raise NoRoomError(
            f"{path} cannot be written ({error.strerror or error}); make room there or name another"
        ) from error


@contextlib.contextmanager
def tidy(folder: str | os.PathLike) -> Iterator[None]:
    """Where the block fails, a folder that it made and left empty goes, and those above it too."""
    folder = pathlib.Path(folder)
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for path in new:
                path.rmdir()
        raise


def lock(file: BinaryIO) -> bool:
    """Keeps an open file from others that would; returns whether nobody else keeps it.

    The system lets go of it when the file is closed or the process ends, however that is. Where it
    has no such locks, as on Windows and some network file systems, nothing is kept.
    """
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        pass
    return True
