"""What a run says while it runs: files, TensorBoard, Weights & Biases, and lines for who waits."""

from __future__ import annotations

import importlib
import json
import math
import os
import pathlib
from typing import Any, TextIO

from mmt_jax import progress as progress_lib
from mmt_jax.errors import UsageError
from mmt_jax.files import whole
from mmt_jax.train import workdir as workdirs


class Log:
    """Writes metrics as they come; below a bar on a terminal, else as lines."""

    def __init__(self, folder: pathlib.Path | None, steps: int, *, start: int, progress: bool):
        """Opens the log of a run that goes on from step `start`; without a folder, writes no files.

        Lines of later steps, left by a run that was cut off after its last checkpoint, are dropped.
        """
        self._steps, self._progress = steps, progress
        self._file: TextIO | None = None
        self._board: Any = None
        self._wandb: Any = None
        self._folder, self._purge = folder, start + 1 if start else None
        if folder:
            self._open(folder, start)
        self._bar = progress and progress_lib.console().is_terminal
        self._counter = progress_lib.Counter("steps", steps, done=start, shown=self._bar)

    def _open(self, folder: pathlib.Path, start: int) -> None:
        path = folder / workdirs.METRICS
        before = path.read_text() if path.exists() else ""
        kept = "".join(f"{line}\n" for line in before.splitlines() if _step(line) <= start)
        if kept != before:
            with whole(path) as part:
                part.write_text(kept)
        self._file = path.open("a")
        if os.environ.get("WANDB_PROJECT"):  # as Weights & Biases itself reads it
            try:
                wandb = importlib.import_module("wandb")
            except ImportError as error:
                raise UsageError(
                    f"WANDB_PROJECT is set and wandb cannot be imported here ({error}); run pip "
                    f"install wandb, or unset it"
                ) from None
            self._wandb = wandb.init(dir=str(folder), name=folder.name)

    def train(self, step: int, values: dict[str, float]) -> None:
        """Writes what the steps until `step` say, `loss` and `speed.Speed.values` among it."""
        self.write(step, values)
        self._counter.note = f"loss {values['loss']:.4f}  {values['pairs_per_second']:,.0f} pairs/s"
        if not self._bar:
            self.say(f"step {step}/{self._steps}  {self._counter.note}")

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes values to the files."""
        if self._file is None:
            return
        if self._board is None:  # importing it takes seconds where torch is installed
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(self._folder), purge_step=self._purge)
        if self._wandb:
            self._wandb.log(values, step=step)
        self._file.write(json.dumps({"step": step} | values) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def evaluation(self, step: int, values: dict[str, float]) -> None:
        """Writes what an evaluation said."""
        self.write(step, values)
        self.say(f"step {step}  " + "  ".join(f"{k} {v:.4g}" for k, v in values.items()))

    def tick(self) -> None:
        """Moves the bar by a step."""
        self._counter.add(1)

    def say(self, line: str) -> None:
        """A line that stays."""
        if self._progress:
            progress_lib.say(line)

    def close(self) -> None:
        """Closes the files and leaves the bar as it is."""
        self._counter.__exit__()
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()
        if self._wandb:
            self._wandb.finish()


def _step(line: str) -> float:
    """The step of a line; a line that was cut off has none, and is as one of the future."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return math.inf
