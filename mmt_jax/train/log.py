"""What a run says while it runs: `metrics.jsonl`, TensorBoard, and a line for whoever waits."""

from __future__ import annotations

import datetime
import json
import math
import pathlib
import sys
import time
from typing import Any, TextIO

from mmt_jax.configs.config import Config
from mmt_jax.train import workdir as workdirs


class Log:
    """Writes metrics as they come; a progress bar on a terminal, plain lines elsewhere."""

    def __init__(self, folder: pathlib.Path | None, config: Config, *, start: int, progress: bool):
        """Opens the log of a run.

        Args:
          folder: the workdir; None writes no files.
          config: of the run.
          start: the step that it goes on from. Lines of later steps, left by a run that was cut off
            after its last checkpoint, are dropped.
          progress: whether to speak at all; files are written in any case.
        """
        self._steps, self._batch_size = config.steps, config.batch_size
        self._file: TextIO | None = None
        self._board: Any = None
        if folder:
            self._open(folder, start)
        self._progress = progress
        self._bar: Any = None
        if progress and sys.stderr.isatty():
            self._bar, self._task = _bar(start, config.steps)
        self._timed_step, self._timed_at = start, time.perf_counter()

    def _open(self, folder: pathlib.Path, start: int) -> None:
        from tensorboardX import SummaryWriter

        path = folder / workdirs.METRICS
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if _step(line) <= start]
        path.write_text("".join(f"{line}\n" for line in kept))
        self._file = path.open("a")
        self._board = SummaryWriter(str(folder), purge_step=start + 1 if start else None)

    def restart_clock(self, step: int) -> None:
        """Leaves out of the speed what happened since the last line of the log."""
        self._timed_step, self._timed_at = step, time.perf_counter()

    def train(self, step: int, values: dict[str, float]) -> None:
        """Writes the metrics of a window that ended with `step`, and its speed."""
        now = time.perf_counter()
        per_step = (now - self._timed_at) / max(step - self._timed_step, 1)
        self.restart_clock(step)
        speed = self._batch_size / max(per_step, 1e-9)
        self.write(step, values | {"pairs_per_second": speed})
        left = datetime.timedelta(seconds=round((self._steps - step) * per_step))
        line = f"loss {values['loss']:.4f}  {speed:,.0f} pairs/s"
        if self._bar:
            self._bar.update(self._task, completed=step, text=line, left=str(left))
        else:
            self.say(f"step {step}/{self._steps}  {line}  {left} left")

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes values to the files."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step} | values) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def evaluation(self, step: int, values: dict[str, float]) -> None:
        """Writes what an evaluation said."""
        self.write(step, values)
        self.say(f"step {step}  " + "  ".join(f"{k} {v:.4g}" for k, v in values.items()))

    def tick(self, step: int) -> None:
        """Moves the bar."""
        if self._bar:
            self._bar.update(self._task, completed=step)

    def say(self, line: str) -> None:
        """A line that stays."""
        if self._bar:
            self._bar.console.print(line, markup=False, highlight=False)
        elif self._progress:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Closes the files and leaves the bar as it is."""
        if self._bar:
            self._bar.stop()
        if self._file is not None:
            self._board.close()
            self._file.close()


def _step(line: str) -> float:
    """The step of a line; a line that was cut off has none, and is as one of the future."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return math.inf


def _bar(start: int, steps: int) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    bar = Progress(
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.fields[text]}"),
        TextColumn("{task.fields[left]} left"),
        console=Console(stderr=True),
    )
    task = bar.add_task("", total=steps, completed=start, text="compiling", left="?")
    bar.start()
    return bar, task
