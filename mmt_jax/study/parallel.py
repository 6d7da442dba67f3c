"""Runs of a study side by side, each in a process of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pathlib
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait

from mmt_jax import progress
from mmt_jax.study.results import Run


class RunFailed(RuntimeError):
    """The process of a run ended without a word."""


def carry_out(runs: Sequence[Run], execute: Callable[[Run], None], *, jobs: int) -> Iterator[Run]:
    """Yields each run when it is done; none begins before the run whose checkpoint it starts from.

    What a process says goes into `seed<k>.log` beside its run's folder. Where one fails or this one
    is stopped, the others are told to stop, and write a checkpoint first.

    Args:
      runs: those left to do.
      execute: does one of them; a function of a module, which other processes can import.
      jobs: how many at a time.

    Raises:
      RunFailed: a run's process was killed.
      Exception: what `execute` raised.
    """
    # Each process would take most of a GPU's memory for itself.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    waiting = [*runs]
    running = {}
    try:
        with _terminable():
            while waiting or running:
                unfinished = {str(run.folder) for run in waiting}
                unfinished |= {str(run.folder) for _, run, _ in running.values()}
                ready = [run for run in waiting if run.config.init_from not in unfinished]
                for run in ready[: jobs - len(running)]:
                    waiting.remove(run)
                    progress.say(
                        f"{run.tag} seed {run.seed} begins; {_log(run)} says how far it is"
                    )
                    ours, theirs = spawn.Pipe(duplex=False)
                    process = spawn.Process(target=_logged, args=(execute, run, theirs))
                    process.start()
                    theirs.close()
                    running[process.sentinel] = process, run, ours
                for sentinel in wait([*running]):
                    process, run, ours = running.pop(sentinel)
                    process.join()
                    if process.exitcode:
                        raise _failure(ours, run)
                    yield run
    finally:
        for process, *_ in running.values():
            process.terminate()
        for process, *_ in running.values():
            process.join()


def _log(run: Run) -> pathlib.Path:
    return run.folder.with_name(f"{run.folder.name}.log")


def _logged(execute: Callable[[Run], None], run: Run, parent: Connection) -> None:
    with (
        open(_log(run), "a", buffering=1, encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        try:
            execute(run)
        except Exception as error:
            traceback.print_exc()
            parent.send(error)
            sys.exit(1)


def _failure(child: Connection, run: Run) -> Exception:
    with contextlib.suppress(EOFError):
        return child.recv()
    return RunFailed(
        f"the run of {run.tag}, seed {run.seed}, was killed; {_log(run)} has its words"
    )


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
