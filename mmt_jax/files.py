"""Files and folders that become whole or not at all, and locks on them."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from typing import BinaryIO

from mmt_jax.errors import UsageError, writing

_STAGED = ".rows"  # how the names of folders end that `staged` makes
_LOCK = "lock"  # in such a folder, held by who writes there


def cache(name: str) -> pathlib.Path:
    """The folder of this package's own, by name, in the user's cache folder; it may not be there.

    `XDG_CACHE_HOME` says where that is, and else ~/.cache.
    """
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(root) / "mmt_jax" / name


def check_new(path: str | os.PathLike) -> pathlib.Path:
    """A path, if nothing is there yet and it leads through no file."""
    path = pathlib.Path(path)
    if path.exists():
        raise UsageError(f"{path} exists and is not overwritten; remove it or name another")
    if file := next((above for above in path.parents if above.is_file()), None):
        raise UsageError(f"{path} cannot be written, for {file} is a file; name another")
    return path


def whole(path: str | os.PathLike) -> contextlib.AbstractContextManager[pathlib.Path]:
    """A hidden file beside `path` to write to, which becomes it where the block ends well.

    Folders above it are made where they are missing. Where it cannot be written, which is a
    NoRoomError, what was written before goes.
    """
    return _becomes(pathlib.Path(path), lambda part: part.unlink(missing_ok=True))


def whole_folder(path: str | os.PathLike) -> contextlib.AbstractContextManager[pathlib.Path]:
    """As `whole`, of a folder to make; `path` may be an empty one, or a link to one."""
    place = pathlib.Path(os.path.realpath(path))
    return _becomes(place, lambda part: shutil.rmtree(part, ignore_errors=True))


@contextlib.contextmanager
def _becomes(path: pathlib.Path, remove: Callable[[pathlib.Path], None]) -> Iterator[pathlib.Path]:
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # hosts may share a folder
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            os.replace(part, path)
        finally:
            remove(part)


@contextlib.contextmanager
def staged(folder: str | os.PathLike, name: str, *, last: str) -> Iterator[pathlib.Path]:
    """A hidden folder within `folder`, whose files move there where the block ends well.

    `folder` is made where it is missing. `name` is of what is written: two cannot write the same
    (UsageError), and what a killed process left under it goes. The file whose name ends in `last`
    moves last; without it the others are not read. Where it cannot be written (NoRoomError),
    nothing is kept.
    """
    folder = pathlib.Path(folder)
    with writing(folder), contextlib.ExitStack() as stack:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f".{name}.{'[!.]' * 8}{_STAGED}"):
            if _in_use(left):
                raise UsageError(
                    f"another run is writing the split {name!r} of {folder}; wait until it ends, "
                    f"or name another split or folder"
                )
            shutil.rmtree(left, ignore_errors=True)
        part = pathlib.Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=_STAGED, dir=folder))
        stack.callback(shutil.rmtree, part, ignore_errors=True)
        lock(stack.enter_context((part / _LOCK).open("wb")))
        yield part
        for path in sorted(part.iterdir(), key=lambda path: path.name.endswith(last)):
            if path.name != _LOCK:
                os.replace(path, folder / path.name)


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


def lock(file: BinaryIO, *, wait: bool = False) -> bool:
    """Keeps an open file from others that would; returns whether nobody else keeps it.

    With `wait`, it returns once nobody else does.

    The system lets go of it when the file is closed or the process ends, however that is. Where it
    has no such locks, as on Windows and some network file systems, nothing is kept.
    """
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        pass
    return True


def _in_use(part: pathlib.Path) -> bool:
    try:
        with (part / _LOCK).open("rb") as file:
            return not lock(file)
    except OSError:
        return False
