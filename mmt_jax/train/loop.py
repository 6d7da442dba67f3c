"""The training loop, for every model."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from mmt_jax import placement
from mmt_jax.config import Config, UsageError, with_spec
from mmt_jax.data import sources
from mmt_jax.data.corpus import Photos
from mmt_jax.data.feed import Feed, batches
from mmt_jax.data.pipeline import Examples
from mmt_jax.data.tasks import records
from mmt_jax.data.tasks.records import Records
from mmt_jax.models import registry
from mmt_jax.models.base import Model
from mmt_jax.train import init, optim, sharding
from mmt_jax.train import step as step_lib
from mmt_jax.train import workdir as workdirs
from mmt_jax.train.checkpoint import Checkpoints
from mmt_jax.train.log import Log
from mmt_jax.train.signals import Interrupted, Stop
from mmt_jax.train.state import State, Window, abstract, keys
from mmt_jax.typing import Batch, Params

Evaluate = Callable[[Model, Params, Config], dict[str, float]]

DTYPES = ("float32", "bfloat16")
AHEAD = 2  # steps that the host may be ahead of the device: each keeps a batch in its memory


class TrainingFailed(RuntimeError):
    """The loss or an update is no longer finite."""


def train(
    config: Config,
    workdir: str | os.PathLike,
    *,
    evaluate: Evaluate | None = None,
    progress: bool = True,
) -> dict[str, float]:
    """Trains a model, or goes on with one that was stopped.

    What a step does is a function of the config, the parameters and the step's number, so a run
    that was stopped and goes on ends with the parameters, bit for bit, of one that was not.

    Args:
      config: of the run; sizes that come from the data may be unset.
      workdir: a new folder, or that of the same run.
      evaluate: model, parameters and config → values by name; called every `config.eval.every`
        steps and after the last.
      progress: whether to say on stderr how it goes.

    Returns:
      The means of the last window of the log, and what the evaluation after the last step said.

    Raises:
      UsageError: a config that does not fit the data, the devices or the folder.
      TrainingFailed: a loss or an update that is not finite; no such state is ever saved.
      Interrupted: SIGINT or SIGTERM came; a checkpoint of the last step is written.
    """
    # ---- Where: devices and folder ---------------------------------------------------------------
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
            train(init.pretraining(config), origins[0], evaluate=evaluate, progress=progress)
    for origin in origins if not known else ():
        workdirs.read_config(origin)  # before a vocabulary is looked for there, or written

    # ---- What: vocabulary, data, model -----------------------------------------------------------
    asked = records.asked(config, folder) if config.task.name else None
    tokenizer = sources.tokenizer(
        config,
        folder if known else next(iter(origins), None),
        sentences=asked and asked.sentences,
    )
    spec = sources.spec(config, tokenizer)
    if asked:
        spec = dataclasses.replace(spec, num_answers=len(asked.labels))
    config = with_spec(config, spec)
    model = registry.build(config)
    first, key = (sharding.put_key(key, mesh) for key in keys(config.seed))
    said: list[str] = []
    source = None
    if origins and not workdirs.has_checkpoint(folder):
        labels = asked.labels if asked else ()
        source = init.params(origins, model, first, said.append, labels=labels)
    corpora = [] if asked and not asked.photos else _corpora(config)
    if config.objective.itm == "none" and not asked:
        evaluate = None  # such a model scores no pairs
    examples = (
        Records(config, asked.entries, asked.labels, tokenizer, corpora)
        if asked
        else Examples.of(config, corpora, tokenizer)
    )
    batched = sharding.batched(mesh)
    iterator = batches(
        examples,
        seed=config.seed,
        batch_size=config.batch_size,
        sampling=config.data.sampling,
        buckets=config.data.buckets,
        rows=sharding.host_rows(batched, config.batch_size),
        workers=config.data.workers,
    )
    # ---- How: optimiser, step, and what lies where -----------------------------------------------
    tx = optim.build(config.optim, model.abstract(), config.steps)
    step_fn = jax.jit(step_lib.build(model, tx, config))
    shapes = abstract(model, tx)
    placed = sharding.of_state(shapes, shapes.params, mesh)
    state_like = _like(shapes, placed)
    batch_like = _like(_batch_shapes(examples, config.batch_size), batched)
    _, metrics_like = jax.eval_shape(step_fn, state_like, batch_like, key)
    empty = jax.jit(lambda: Window.empty(metrics_like), out_shardings=sharding.replicated(mesh))()

    # ---- The folder: nothing was written so far --------------------------------------------------
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(iterator))
        if primary:
            stack.enter_context(workdirs.locked(folder))
            if not known:
                sources.store_tokenizer(tokenizer, folder)
                if asked:
                    records.store_labels(asked.labels, folder)
            workdirs.write_config(folder, config)
        sharding.wait_for_hosts("the folder is there")
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(folder, config)))
        done = checkpoints.step()
        start, metrics = done or 0, {}
        log = Log(folder if primary else None, config, start=start, progress=progress)
        stack.enter_context(contextlib.closing(log))
        stop = stack.enter_context(Stop())

        # ---- Where it starts ---------------------------------------------------------------------
        if done is None:
            for line in said:
                log.say(line)
            state = _first_state(model, tx, first, placed, source)
        else:
            state, position, metrics = checkpoints.restore(start, state_like)
            iterator.set_state(position)
            log.say(f"{folder} goes on from step {start}")
        del source
        if start >= config.steps:
            return metrics

        # ---- The compiled step -------------------------------------------------------------------
        # One for each size in config.data.buckets. Called as it is, it cannot be traced again:
        # another shape or place is an error.
        jitted = jax.jit(step_lib.windowed(step_fn), donate_argnums=0, out_shardings=(placed, None))
        by_shapes: dict[Any, Any] = {}

        def compiled_for(batch: Batch) -> Any:
            shapes = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
            if shapes not in by_shapes:
                by_shapes[shapes] = jitted.lower(state_like, empty, batch, key).compile()
            return by_shapes[shapes]

        compiled_for(batch_like)  # the largest

        # ---- Steps -------------------------------------------------------------------------------
        window = empty
        pending: tuple[int, Window] | None = None
        running: collections.deque[jax.Array] = collections.deque()
        feed = _feed(iterator, batched, config.batch_size)
        log.restart_clock(start)
        for step in range(start + 1, config.steps + 1):
            batch, position = next(feed)
            compiled = compiled_for(batch)
            with jax.transfer_guard("disallow"):
                state, window = compiled(state, window, batch, key)
                running.append(window.failed)
                if len(running) > AHEAD:
                    running.popleft().block_until_ready()
            log.tick(step)

            # ---- The log: a window is read while the step after it runs --------------------------
            if pending:
                metrics, pending = _report(log, checkpoints, *pending), None
            last = step == config.steps
            evaluating = evaluate if last or _due(step, config.eval.every) else None
            stopping = stop.after(step)
            saving = evaluating or last or stopping or _due(step, config.checkpoint_every)
            if not saving:
                if _due(step, config.log_every):
                    pending, window = (step, window), empty
                continue

            # ---- Evaluation and checkpoint: only of a state that is known to be finite -----------
            metrics, window = _report(log, checkpoints, step, window), empty
            if evaluating:
                evaluated = evaluating(model, state.params, config)
                log.evaluation(step, evaluated)
                metrics |= evaluated
            checkpoints.save(state, step, position=position, metrics=metrics)
            log.restart_clock(step)
            if stopping := stopping or stop.signal:  # it may have come since
                stopped = Interrupted(stopping, step)
                log.say(str(stopped))
                raise stopped
        return metrics


def _corpora(config: Config) -> list[Photos]:
    return sources.load(
        config.data.source, config.data.split, size=config.data.size, pixels=config.model.pixels
    )


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _check(config: Config) -> None:
    for name in ("steps", "batch_size", "grad_accum", "log_every", "checkpoint_every", "keep"):
        if getattr(config, name) < 1:
            raise UsageError(f"config.{name} is {getattr(config, name)}; it must be at least 1")
    if config.task.name and config.data.buckets:
        raise UsageError(
            "config.data.buckets groups pairs of photo and caption, not a task's records; leave it "
            "empty"
        )
    if config.seed < 0:
        raise UsageError(f"config.seed is {config.seed}; it must be at least 0")
    if config.dtype not in DTYPES:
        raise UsageError(f"config.dtype={config.dtype!r} is unknown; take {' or '.join(DTYPES)}")


def _like(shapes: Any, placed: Any) -> Any:
    """Abstract arrays with shardings: one for each leaf, or one for all."""
    if isinstance(placed, jax.sharding.Sharding):
        placed = jax.tree.map(lambda _: placed, shapes)
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        shapes,
        placed,
    )


def _batch_shapes(examples: Examples | Records, size: int) -> Batch:
    """What a batch of `size` pairs is like."""
    pair = examples.batch(np.zeros(1, np.int64), np.zeros(1, np.int64))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), pair)


def _first_state(
    model: Model,
    tx: Any,
    key: jax.Array,
    placed: State,
    source: Params | None,
) -> State:
    """The state before the first step, in its place; `source`: parameters to begin with."""
    if source is None:
        return jax.jit(lambda key: State.fresh(model.init(key), tx), out_shardings=placed)(key)
    params = jax.tree.map(placement.put, jax.device_get(source), placed.params)
    return jax.jit(lambda params: State.fresh(params, tx), out_shardings=placed)(params)


def _feed(
    iterator: Feed, where: jax.sharding.NamedSharding, size: int
) -> Iterator[tuple[Batch, dict[str, Any]]]:
    """Batches on the device, one ahead, each with the position in the data after it."""
    ahead = sharding.put(next(iterator), where, size)
    while True:
        batch, position = ahead, iterator.get_state()
        ahead = sharding.put(next(iterator), where, size)
        yield batch, position


def _report(log: Log, checkpoints: Checkpoints, step: int, window: Window) -> dict[str, float]:
    """Writes the metrics of a window that ended with `step`, and returns their means."""
    window = jax.device_get(window)
    if window.failed:
        good = checkpoints.step()
        where = (
            f"the last good checkpoint is {checkpoints.path(good)}" if good else "none was saved"
        )
        raise TrainingFailed(
            f"the loss or its update is not finite from step {window.failed} on; {where}: lower "
            f"config.optim.lr, or look at the data"
        )
    values = {name: float(m.sum / max(m.count, 1)) for name, m in window.metrics.items()}
    log.train(step, values)
    return values
