"""Files of strangers are read by another process, whose memory and time are bounded.

Pickles, LMDB, HDF5 and packed arrays can crash, hang or fill the memory of what reads them. One
process reads a whole file and streams what it finds; where an entry ends it, the next goes on
behind that entry.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import pathlib
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Any

from mmt_jax.errors import UsageError, reason

MEMORY = 1 << 30  # bytes that the reader may take
LARGEST = 1 << 28  # bytes of what it finds in an entry
SECONDS = 60  # for an entry
SAID = 1 << 20  # bytes of what it writes elsewhere, such as warnings
ENDS = 20  # how often an entry may end it

# Of an entry: its place, and a function that reads it.
Entries = Iterator[tuple[str, Callable[[], Any]]]


def read(reader: Callable[..., Entries], path: pathlib.Path, *arguments: Any) -> Iterator[Any]:
    """What another process finds in the entries of a file.

    Args:
      reader: a function of a module, which yields the entries of `path`.
      *arguments: of the reader, after the path.

    Yields:
      Place, and what the entry holds or the UsageError that tells why it cannot be read.

    Raises:
      UsageError: the file as a whole cannot be read.
    """
    begun = 0
    for _ in range(ENDS):
        where = None
        with tempfile.TemporaryFile() as said, _process(said) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                job = reader.__module__, reader.__name__, (path, *arguments), begun
                with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
                    pipe.write(pickle.dumps(job))
                for kind, value in _messages(process.stdout):
                    if kind == "place":
                        where, begun = value, begun + 1
                    elif kind == "end":
                        return
                    elif kind == "refused":
                        raise UsageError(value)
                    else:
                        yield where, UsageError(value) if kind == "fault" else value
                        where = None
                why = _why(process.wait(), said)
            finally:
                process.kill()
        if where is None:
            raise UsageError(f"{path} cannot be read ({why}); copy it again")
        yield where, UsageError(f"{where} cannot be read ({why})")
    raise UsageError(f"{path} ended the process that reads it {ENDS} times; it is damaged")


def _process(said: IO[bytes]) -> subprocess.Popen[bytes]:
    root = str(pathlib.Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return subprocess.Popen(
        [sys.executable, "-P", "-c", f"from {__name__} import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,
        env={**os.environ, **one, "PYTHONPATH": path},
    )


def _messages(pipe: IO[bytes]) -> Iterator[tuple[str, Any]]:
    while True:
        try:
            yield pickle.load(pipe)
        except (EOFError, pickle.UnpicklingError):
            return


def _why(ended: int, said: IO[bytes]) -> str:
    """What is told of a process that ended on its own, by its exit status and its last words."""
    if ended == -signal.SIGALRM:
        return f"it takes more than {SECONDS} seconds"
    said.seek(0)
    *_, last = said.read().decode(errors="replace").strip().splitlines() or [""]
    return f"reading it ended the process{': ' if last else ''}{last[:200]}"


# ---- The other process ---------------------------------------------------------------------------


def main() -> None:
    """Reads what standard input names, and writes messages to standard output."""
    module, name, arguments, begun = pickle.load(sys.stdin.buffer)
    reader = getattr(importlib.import_module(module), name)
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no message
    for limit, most in (("DATA", MEMORY), ("FSIZE", SAID), ("CORE", 0)):
        resource.setrlimit(getattr(resource, f"RLIMIT_{limit}"), (most, most))

    def send(kind: str, value: Any = None) -> None:
        data = pickle.dumps((kind, value), protocol=5)
        if len(data) > LARGEST:
            raise UsageError(f"{len(data):,} bytes are there; a photo has {LARGEST:,} at most")
        signal.alarm(0)  # who reads the messages may take all the time
        pipe.write(data)
        pipe.flush()
        signal.alarm(SECONDS)

    signal.alarm(SECONDS)
    try:
        for where, load in itertools.islice(reader(*arguments), begun, None):
            send("place", where)
            try:
                send("found", load())
            except Exception as error:
                send("fault", _told(error, where))
        send("end")
    except Exception as error:
        send("refused", _told(error, str(arguments[0])))


def _told(error: Exception, where: str) -> str:
    if isinstance(error, UsageError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"{where} needs more memory than a photo takes ({reason(error)})"
    return f"{where} cannot be read ({reason(error)}); copy it again"
