"""Runs of a study side by side, each in a process of its own."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import pathlib
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait

from mmt_jax import progress
from mmt_jax.study.results import Run


class RunFailed(RuntimeError):
    """The process of a run ended without a word, or with an error that cannot be passed on."""


def carry_out(
    runs: Sequence[Run], execute: Callable[[Run], None], *, jobs: int
) -> Generator[Run, None, None]:
    """Yields each run when it is done; none begins before the run whose checkpoint it starts from.

    What a process says goes into `seed<k>.log` beside its run's folder. Where one fails or this one
    is stopped, the others are told to stop; one that trains writes a checkpoint first.

    Args:
      runs: those left to do.
      execute: does one of them; a function of a module, which other processes can import.
      jobs: how many at a time.

    Raises:
      RunFailed: a run's process was killed.
      Exception: what `execute` raised.
    """
    spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    waiting = [*runs]
    running = {}
    with _terminable():
        try:
            while waiting or running:
                unfinished = {str(run.folder) for run in waiting}
                unfinished |= {str(run.folder) for _, run in running.values()}
                ready = [run for run in waiting if run.config.init_from not in unfinished]
                for run in ready[: jobs - len(running)]:
                    waiting.remove(run)
                    progress.say(
                        f"{run.tag} seed {run.seed} begins; {_log(run)} says how far it is"
                    )
                    ours, theirs = spawn.Pipe(duplex=False)
                    process = spawn.Process(target=_logged, args=(execute, run, theirs))
                    running[ours] = process, run
                    process.start()
                    theirs.close()  # so that the end of the process ends the pipe
                ended = {*wait([*running])}
                for connection in [ours for ours in running if ours in ended]:
                    process, run = running.pop(connection)
                    error = _last_word(connection, run)
                    process.join()
                    if error:
                        raise error
                    yield run
        finally:
            started = [process for process, _ in running.values() if process.pid]
            for process in started:
                process.terminate()
            for process in started:
                process.join()


def _log(run: Run) -> pathlib.Path:
    return run.folder.with_name(f"{run.folder.name}.log")


def _logged(execute: Callable[[Run], None], run: Run, parent: Connection) -> None:
    """Sends None when the run is done, or the exception that ended it."""
    log = os.open(_log(run), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):  # of the process, for XLA does not write through Python
        os.dup2(log, stream)
    faulthandler.enable()
    try:
        execute(run)
    except Exception as error:
        traceback.print_exc()
        parent.send(_portable(error))
    else:
        parent.send(None)


def _portable(error: Exception) -> Exception:
    """The exception, or one that says the same where it cannot be taken to another process."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RunFailed(f"{type(error).__name__}: {error}")


def _last_word(child: Connection, run: Run) -> Exception | None:
    with child:
        try:
            error = child.recv()
        except EOFError:
            error = RunFailed("its process was killed")
    if error:
        progress.say(f"{run.tag} seed {run.seed} failed; {_log(run)} says where")
    return error


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Lets SIGTERM end the block as an exception, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
