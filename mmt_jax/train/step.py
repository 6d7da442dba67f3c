"""One step of training, a pure function of the state and the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmt_jax.configs.config import Config
from mmt_jax.models.base import Model
from mmt_jax.objectives import losses
from mmt_jax.train import optim
from mmt_jax.train.state import State, Window
from mmt_jax.typing import Array, Batch, Metric, Params

Metrics = dict[str, Metric]


def build(
    model: Model, tx: optax.GradientTransformation, config: Config
) -> Callable[[State, Batch, jax.Array], tuple[State, Metrics]]:
    """The step of a run.

    What is random in it (pairing, corruption, dropout) is a function of the run's key and the step
    alone, so a run that was resumed takes the steps of one that never stopped. The key is an
    argument, so that runs of other seeds can use what was compiled for this one.

    Args:
      model: scores pairs.
      tx: from `optim.build`.
      config: of the run. The batch is cut into `grad_accum` parts, and the gradient is the mean of
        theirs. Candidates of a contrastive loss and wrong captions come from within a part.

    Returns:
      State, batch and the run's key (`state.keys`) → the next state, and the metrics of
      `objectives.losses.compute` with `loss`, `grad_norm` (before clipping), `update_norm` and
      `lr`.
    """
    schedule = optim.schedule(config.optim, config.steps)

    def loss_of(params: Params, batch: Batch, key: jax.Array) -> tuple[Array, Metrics]:
        loss, metrics = losses.compute(model, params, batch, key=key)
        return loss, metrics | {"loss": _single(loss)}

    gradient = jax.grad(loss_of, has_aux=True)
    if config.grad_accum > 1:
        gradient = _in_parts(gradient, config.grad_accum)

    def step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        grads, metrics = gradient(state.params, batch, jax.random.fold_in(key, state.step))
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        metrics["grad_norm"] = _single(optax.tree.norm(grads))
        metrics["update_norm"] = _single(optax.tree.norm(updates))
        metrics["lr"] = _single(schedule(state.step))
        return State(state.step + 1, params, opt_state), metrics

    return step


def windowed(
    step: Callable[[State, Batch, jax.Array], tuple[State, Metrics]],
) -> Callable[[State, Window, Batch, jax.Array], tuple[State, Window]]:
    """`step` with its metrics added to a window, so that nothing leaves the device in between."""

    def run(state: State, window: Window, batch: Batch, key: jax.Array) -> tuple[State, Window]:
        state, metrics = step(state, batch, key)
        return state, window.add(metrics, state.step)

    return run


def _single(value: Array) -> Metric:
    return Metric(value.astype(jnp.float32), jnp.ones((), jnp.float32))


def _in_parts(gradient: Callable, parts: int) -> Callable:
    """`gradient` over `parts` equal parts of the batch, one at a time."""

    def run(params: Params, batch: Batch, key: jax.Array) -> tuple[Params, Metrics]:
        def body(total: Params, item: tuple[Batch, jax.Array]) -> tuple[Params, Metrics]:
            grads, metrics = gradient(params, *item)
            return jax.tree.map(jnp.add, total, grads), metrics

        items = (jax.tree.map(split, batch), jax.random.split(key, parts))
        total, metrics = jax.lax.scan(body, jax.tree.map(jnp.zeros_like, params), items)
        mean = jax.tree.map(lambda grad: grad / parts, total)
        return mean, jax.tree.map(lambda leaf: leaf.sum(0), metrics)

    def split(leaf: Array) -> Array:
        # Part p is every parts-th row, so that each part lies on all devices of the data axis and
        # no row moves.
        return leaf.reshape(-1, parts, *leaf.shape[1:]).swapaxes(0, 1)

    return run
