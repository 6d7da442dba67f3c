"""How far a long task is, said on stderr: by a bar on a terminal, else by a line now and then.

Nothing is said of a task that is over within a few seconds.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Self, TypeVar

_QUIET = 2.0  # seconds before a bar is shown
_BETWEEN = 20.0  # seconds from line to line

T = TypeVar("T")

stages = False  # whether `stage` speaks: the program `mmt` does, a library keeps still


@functools.cache
def console() -> Any:
    """Of stderr; one for all, for only then may a bar stand below another."""
    from rich.console import Console

    return Console(stderr=True)


def say(line: str) -> None:
    """A line that stays, above a bar if there is one."""
    console().print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


def stage(line: str) -> None:
    """Says what a command is at, before it begins with it."""
    if stages:
        say(f"{line} …")


def track(
    items: Iterable[T], what: str, *, total: int | None = None, shown: bool = True
) -> Iterator[T]:
    """Yields `items`, and says how many of them (`what`, such as "photos") are done, of `total`."""
    total = len(items) if total is None and isinstance(items, Sized) else total
    with Counter(what, total, shown=shown) as counter:
        for item in items:
            yield item
            counter.add(1)


class Counter:
    """Counts what is done, inside a `with` block: `what`, such as "pairs", and of which `total`.

    `done` of them were done before. What `note` is set to stands behind the count.
    """

    def __init__(self, what: str, total: int | None = None, *, done: int = 0, shown: bool = True):
        self._what, self._total, self._shown = what, total, shown
        self._before, self._done, self._told, self._bar = done, done, done, None
        self.note = ""
        self._start = self._said = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def add(self, count: int) -> None:
        """`count` more are done."""
        self._done += count
        now = time.monotonic()
        if not self._shown:
            return
        if console().is_terminal:
            if self._bar is None and now > self._start + _QUIET:
                self._bar, self._task = _bar(self._total)
            if self._bar:
                self._bar.update(self._task, completed=self._done, text=self._text())
        elif now > self._said + _BETWEEN:
            self._said, self._told = now, self._done
            print(self._text(), file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()
        elif self._before < self._told < self._done:
            print(self._text(), file=sys.stderr, flush=True)

    def _text(self) -> str:
        spent = time.monotonic() - self._start
        speed = (self._done - self._before) / spent
        of = f" of {self._total:,}" if self._total else ""
        text = f"{self._done:,}{of} {self._what}, {speed:,.{int(speed < 10)}f} a second"
        if self._total and speed:
            left = (self._total - self._done) / speed
            text += f", {left // 60:.0f}:{left % 60:02.0f} left"
        return f"{text}  {self.note}" if self.note else text


def _bar(total: int | None) -> tuple[Any, Any]:
    from rich.progress import BarColumn, Progress, TextColumn

    bar = Progress(BarColumn(), TextColumn("{task.fields[text]}"), console=console())
    task = bar.add_task("", total=total, text="")
    bar.start()
    return bar, task
