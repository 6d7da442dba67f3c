"""The training loop, for every model."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

import jax

from mmt_jax.configs.config import Config
from mmt_jax.data.feed import Feed, batches
from mmt_jax.errors import UsageError
from mmt_jax.models.base import Model
from mmt_jax.text.base import Tokenizer
from mmt_jax.train import init, sharding
from mmt_jax.train import workdir as workdirs
from mmt_jax.train.checkpoint import Checkpoints
from mmt_jax.train.log import Log
from mmt_jax.train.program import Program
from mmt_jax.train.setup import prepare
from mmt_jax.train.signals import Interrupted, Stop
from mmt_jax.train.state import State, Window, keys
from mmt_jax.typing import Params

Evaluate = Callable[[Model, Params], dict[str, float]]
# Config with its sizes, tokenizer and, of a task, answers by number → None for nothing to evaluate.
Evaluator = Callable[[Config, Tokenizer, Sequence[str] | None], Evaluate | None]

AHEAD = 2  # steps that the host may be ahead of the device: each keeps a batch in its memory


class TrainingFailed(RuntimeError):
    """The loss or an update is no longer finite."""


def train(
    config: Config,
    workdir: str | os.PathLike,
    *,
    evaluator: Evaluator | None = None,
    progress: bool = True,
) -> dict[str, float]:
    """Trains a model, or goes on with one that was stopped.

    What a step does is a function of the config, the parameters and the step's number, so a run
    that was stopped and goes on ends with the parameters, bit for bit, of one that was not.

    Args:
      config: of the run; sizes that come from the data may be unset.
      workdir: a new folder, or that of the same run.
      evaluator: makes, of what the run is made of, a function of model and parameters that gives
        values by name; that is called every `config.eval.every` steps and after the last.
      progress: whether to say on stderr how it goes.

    Returns:
      The means of the last window of the log, and what the evaluation after the last step said.

    Raises:
      UsageError: a config that does not fit the data, the devices or the folder.
      TrainingFailed: a loss or an update that is not finite; no such state is ever saved.
      Interrupted: SIGINT or SIGTERM came; a checkpoint of the last step is written.
    """
    sharding.initialize()
    _check(config)
    mesh = sharding.mesh(config)
    primary = jax.process_index() == 0  # of several hosts, the one that speaks and writes files
    progress = progress and primary
    folder = pathlib.Path(workdir)
    config, known = workdirs.claim(config, folder)
    sharding.wait_for_hosts("they have seen what the folder holds")
    origins = [pathlib.Path(origin) for origin in (config.init_from or "").split(",") if origin]
    if config.pretrained and not origins:
        origins = [folder / workdirs.PRETRAINED]
        if not workdirs.has_checkpoint(folder):
            if progress:
                print(f"{config.pretrained} comes first, in {origins[0]}", file=sys.stderr)
            train(init.pretraining(config), origins[0], evaluator=evaluator, progress=progress)

    first, key = (sharding.put_key(key, mesh) for key in keys(config.seed))
    setup = prepare(config, folder, origins, first, known=known)
    config = setup.config
    evaluate = evaluator(config, setup.tokenizer, setup.labels) if evaluator else None
    iterator = batches(
        setup.examples,
        seed=config.seed,
        batch_size=config.batch_size,
        sampling=config.data.sampling,
        buckets=config.data.buckets,
        rows=sharding.host_rows(sharding.batched(mesh), config.batch_size),
        workers=config.data.workers,
    )
    program = Program(setup.model, config, setup.examples, mesh, key)

    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(iterator))
        if primary:
            stack.enter_context(workdirs.locked(folder))
            if not known:
                setup.store(folder)
            workdirs.write_config(folder, config)
        sharding.wait_for_hosts("the folder is there")
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(folder, config)))
        done = checkpoints.step()
        start = done or 0
        log = Log(folder if primary else None, config, start=start, progress=progress)
        stack.enter_context(contextlib.closing(log))
        stop = stack.enter_context(Stop())
        if done is None:
            for line in setup.said:
                log.say(line)
            state = program.first_state(first, setup.source)
            setup.source = None  # or it would take memory beside the state for the whole run
        else:
            state, position, metrics = checkpoints.restore(start, program.like)
            iterator.set_state(position)
            log.say(f"{folder} goes on from step {start}")
            if start >= config.steps:
                return metrics
        run = _Run(config, setup.model, program, log, checkpoints, stop, evaluate)
        return run.steps(state, iterator, start + 1)


@dataclasses.dataclass(frozen=True)
class _Run:
    """What the steps of a run have at hand."""

    config: Config
    model: Model
    program: Program
    log: Log
    checkpoints: Checkpoints
    stop: Stop
    evaluate: Evaluate | None

    def steps(self, state: State, iterator: Feed, first: int) -> dict[str, float]:
        """Takes the steps from number `first` on; returns what `train` does."""
        config, log = self.config, self.log
        self.program.compile()
        metrics: dict[str, float] = {}
        window = self.program.empty
        pending: tuple[int, Window] | None = None  # read while the step after it runs
        running: collections.deque[jax.Array] = collections.deque()
        feed = self.program.feed(iterator)
        log.restart_clock(first - 1)
        for step in range(first, config.steps + 1):
            batch, position = next(feed)
            state, window = self.program(state, window, batch)
            running.append(window.failed)
            if len(running) > AHEAD:
                running.popleft().block_until_ready()
            log.tick(step)
            if pending:
                metrics, pending = self._report(*pending), None

            last = step == config.steps
            evaluate = self.evaluate if last or _due(step, config.eval.every) else None
            stopping = self.stop.after(step)
            if evaluate or last or stopping or _due(step, config.checkpoint_every):
                # Only a state that is known to be finite is evaluated and saved.
                metrics, window = self._report(step, window), self.program.empty
                if evaluate:
                    evaluated = evaluate(self.model, state.params)
                    log.evaluation(step, evaluated)
                    metrics |= evaluated
                self.checkpoints.save(state, step, position=position, metrics=metrics)
                log.restart_clock(step)
                if stopping := stopping or self.stop.signal:  # it may have come since
                    stopped = Interrupted(stopping, step)
                    log.say(str(stopped))
                    raise stopped
            elif _due(step, config.log_every):
                pending, window = (step, window), self.program.empty
        return metrics

    def _report(self, step: int, window: Window) -> dict[str, float]:
        """Writes the metrics of a window that ended with `step`, and returns their means."""
        window = jax.device_get(window)
        if window.failed:
            self.checkpoints.wait()
            good = self.checkpoints.step()
            path = self.checkpoints.path(good) if good else None
            where = f"the last good checkpoint is {path}" if path else "none was saved"
            raise TrainingFailed(
                f"the loss or its update is not finite from step {window.failed} on; {where}: "
                f"lower config.optim.lr, or look at the data"
            )
        values = {name: float(m.sum / max(m.count, 1)) for name, m in window.metrics.items()}
        self.log.train(step, values)
        return values


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _check(config: Config) -> None:
    if config.task.name and config.data.buckets:
        raise UsageError(
            "config.data.buckets groups pairs of photo and caption, not a task's records; leave it "
            "empty"
        )
