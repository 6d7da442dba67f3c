"""The training loop, for every model."""

from __future__ import annotations

import collections
import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

import jax

from mmt_jax.configs.config import Config
from mmt_jax.data.feed import Feed, batches
from mmt_jax.objectives import losses
from mmt_jax.progress import say
from mmt_jax.train import sharding, speed, text_features
from mmt_jax.train import workdir as workdirs
from mmt_jax.train.checkpoint import Checkpoints
from mmt_jax.train.log import Log
from mmt_jax.train.program import Program
from mmt_jax.train.run import Evaluator, Run, prepare
from mmt_jax.train.signals import Interrupted, Stop
from mmt_jax.train.state import Window
from mmt_jax.typing import Batch

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

    Sizes that come from the data may be unset in `config`; `workdir` is a new folder, or that of
    the same run. What `evaluator` makes is called every `config.eval.every` steps and after the
    last. `progress` says on stderr how it goes. Returns the means of the last window of the log,
    and what the evaluation after the last step said.

    Raises:
      UsageError: a config that does not fit the data, the devices or the folder, or a checkpoint
        that cannot be written.
      TrainingFailed: a loss or an update that is not finite; no such state is ever saved.
      Interrupted: SIGINT or SIGTERM came; a checkpoint of the last step is written.
    """
    sharding.initialize()
    return _in_turn(prepare(config, workdir, evaluator), progress)


def _in_turn(run: Run, progress: bool) -> dict[str, float]:
    """The run that another starts from comes first, and before that the one that it starts from."""
    if run.first:
        if progress and jax.process_index() == 0:
            say(f"{run.config.pretrained} comes first, in {run.first.folder}")
        _in_turn(run.first, progress)
        run = run.start_from([run.first.folder])
    return loop(run, progress=progress)


def loop(run: Run, *, progress: bool = True) -> dict[str, float]:
    """Takes the steps of a run that its folder lacks; see `train`."""
    config, folder, program = run.config, run.folder, run.program
    primary = jax.process_index() == 0  # of several hosts, the one that speaks and writes files
    with contextlib.ExitStack() as stack:
        # ---- The folder --------------------------------------------------------------------------
        sharding.wait_for_hosts("they have seen what the folder holds")
        if primary:
            stack.enter_context(workdirs.locked(folder))
            run.store()
        sharding.wait_for_hosts("the folder is there")
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(folder, config)))
        done = checkpoints.step()
        start = done or 0
        log = Log(
            folder if primary else None, config.steps, start=start, progress=progress and primary
        )
        stack.enter_context(contextlib.closing(log))
        stop = stack.enter_context(Stop())

        # ---- The state: that of the last checkpoint, or the first --------------------------------
        iterator = batches(
            run.examples,
            seed=config.seed,
            batch_size=config.batch_size,
            sampling=config.data.sampling,
            buckets=config.data.buckets,
            rows=program.rows,
            workers=config.data.workers,
        )
        stack.enter_context(contextlib.closing(iterator))
        metrics: dict[str, float] = {}
        if done is None:
            for line in run.said:
                log.say(line)
            state = program.first_state(run.weights)
        else:
            state, position, metrics = checkpoints.restore(start, program.like)
            iterator.set_state(position)
            log.say(f"{folder} goes on from step {start}")
            if start >= config.steps or _settled(run, checkpoints, start):
                return metrics
        if run.remembers:
            text_features.fill(run.examples, run.model, state.params, progress=progress and primary)

        # ---- The steps ---------------------------------------------------------------------------
        def report(step: int, window: Window) -> dict[str, float]:
            """Writes the metrics of a window that ended with `step`, and returns their means."""
            window = jax.device_get(window)
            if window.failed:
                checkpoints.wait()
                good = checkpoints.step()
                path = f"the last good checkpoint is {checkpoints.path(good or 0)}"
                raise TrainingFailed(
                    f"the loss or its update is not finite from step {int(window.failed)} on; "
                    f"{path if good else 'none was saved'}: lower config.optim.lr, or look at the "
                    f"data"
                )
            values = {name: float(m.mean) for name, m in window.metrics.items()}
            # Of what was counted in the whole window: steps may count very differently.
            values["loss"] = float(losses.total(config.objective, window.metrics))
            log.train(step, values | clock.values())
            return values

        program.compile()
        clock = speed.Speed(program.mesh, config.batch_size)
        profiler = speed.Profiler(folder / "profile", config.profile if primary else ())
        stack.enter_context(contextlib.closing(profiler))
        window, pending = program.empty, None  # `pending` is read while the step after it runs
        running: collections.deque[jax.Array] = collections.deque()
        feed = _ahead(iterator, program)
        for step in range(start + 1, config.steps + 1):
            batch, position, counts = next(feed)
            profiler.before(step, state)
            state, window = program(state, window, batch)
            clock.add(flops=program.flops(batch), **counts)
            log.tick()
            running.append(window.failed)
            if len(running) > AHEAD:
                running.popleft().block_until_ready()
            if pending:
                metrics, pending = report(*pending), None

            last, stopping = step == config.steps, stop.after(step)
            evaluate = run.evaluate if last or _due(step, config.eval.every) else None
            if evaluate or last or stopping or _due(step, config.checkpoint_every):
                # Only a state that is known to be finite is evaluated and saved.
                metrics, window = report(step, window), program.empty
                if evaluate:
                    evaluated = evaluate(run.model, state.shown)
                    log.evaluation(step, evaluated)
                    metrics |= evaluated
                checkpoints.save(state, step, position=position, metrics=metrics)
                if stopping := stopping or stop.signal:  # it may have come since
                    checkpoints.wait()
                    stopped = Interrupted(stopping, step)
                    log.say(str(stopped))
                    raise stopped
                if evaluate and not last and _settled(run, checkpoints, step):
                    log.say(
                        f"training ends after step {step}: {config.eval.patience} evaluations in a "
                        f"row were below the best {config.eval.best}"
                    )
                    break
                clock.restart()
            elif _due(step, config.log_every):
                pending, window = (step, window), program.empty
        checkpoints.wait()
    return metrics


def _ahead(iterator: Feed, program: Program) -> Iterator[tuple[Batch, dict[str, Any], Any]]:
    """Batches on the devices, one ahead.

    Of each the position in the data after it, and its tokens with the seconds waited meanwhile.
    """

    def take() -> tuple[Batch, dict[str, Any], int]:
        batch = next(iterator)
        tokens = speed.tokens(batch) * jax.process_count()  # of this host's rows
        return program.put(batch), iterator.get_state(), tokens

    ahead = take()
    while True:
        batch, position, tokens = ahead
        began = time.perf_counter()
        ahead = take()
        yield batch, position, {"tokens": tokens, "waited": time.perf_counter() - began}


def _settled(run: Run, checkpoints: Checkpoints, step: int) -> bool:
    """Whether `config.eval.patience` evaluations in a row up to `step` are below the best."""
    options = run.config.eval
    if not (options.patience and run.evaluate):
        return False
    return step - (checkpoints.step("best") or 0) >= options.patience * options.every


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
