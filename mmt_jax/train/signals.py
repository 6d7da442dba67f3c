"""Ctrl-C and SIGTERM as a wish that the loop grants when a step is done."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils


class Interrupted(SystemExit):
    """A run was stopped from outside and has written a checkpoint; exits with 128 + the signal."""

    def __init__(self, number: signal.Signals, step: int):
        super().__init__(128 + number)
        self.number, self.step = number, step

    def __str__(self) -> str:
        return f"stopped by {self.number.name} after step {self.step}; run it again to go on"


class Stop:
    """Context in which the first of these signals is noted in `signal`; a second one acts at once.

    Outside the main thread, where handlers cannot be set, signals act as ever. Of several hosts all
    must stop after the same step: there jax's preemption service notes SIGTERM and finds that step,
    and Ctrl-C acts as ever.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def after(self, step: int) -> signal.Signals | None:
        """The signal for which a run is to end after this step; to be asked once a step."""
        if jax.process_count() > 1:
            return signal.SIGTERM if multihost_utils.reached_preemption_sync_point(step) else None
        return self.signal

    def __enter__(self) -> Stop:
        main = threading.current_thread() is threading.main_thread()
        if main and jax.process_count() == 1:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        signal.signal(number, self._before[self.signal])
