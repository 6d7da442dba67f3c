"""One step of training, a pure function of the state and the batch."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mmt_jax import params as params_lib
from mmt_jax.configs.config import Config
from mmt_jax.models.base import Model
from mmt_jax.objectives import losses
from mmt_jax.train import optim, text_features
from mmt_jax.train.state import State, averaged
from mmt_jax.typing import Array, Batch, Metric, Metrics, Params


def build(
    model: Model,
    tx: optax.GradientTransformation,
    config: Config,
    *,
    whole: Callable[[Params], Params] = lambda params: params,
) -> Callable[[State, Batch, jax.Array], tuple[State, Metrics]]:
    """The step of a run.

    What is random in it (pairing, corruption, dropout) is a function of the run's key and the step
    alone, so a run that was resumed takes the steps of one that never stopped. The key is an
    argument, so that runs of other seeds can use what was compiled for this one.

    The batch is cut into `grad_accum` parts, whose sums and counts are added before they are
    divided. Candidates of a contrastive loss and wrong captions come from within a part. `whole`
    (`sharding.whole`) gathers parameters, and their gradient, that are cut over the batch's axis.

    State, batch and the run's key (`state.keys`) → the next state, and the metrics of
    `objectives.losses.terms` with `loss`, `grad_norm` (before clipping, of what is clipped),
    `update_norm` and `lr`.
    """
    schedule = optim.schedule(config.optim, config.steps)
    frozen = optim.frozen(config.optim, params_lib.flatten(model.abstract()))

    def step(state: State, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        now = jax.random.fold_in(key, state.step)
        grads, metrics = _gradient(
            model, whole(state.params), batch, now, config.grad_accum, frozen
        )
        grads = whole(grads)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        metrics["grad_norm"] = _single(optim.norm(grads))
        metrics["update_norm"] = _single(optax.tree.norm(updates))
        metrics["lr"] = _single(schedule(state.step))
        average = state.average
        if average is not None:
            average = averaged(average, params, state.step + 1, config.optim.ema)
        return State(state.step + 1, params, opt_state, average), metrics

    return step


def _single(value: ArrayLike) -> Metric:
    return Metric(jnp.asarray(value, jnp.float32), jnp.ones((), jnp.float32))


def _gradient(
    model: Model, params: Params, batch: Batch, key: jax.Array, parts: int, frozen: Collection[str]
) -> tuple[Params, Metrics]:
    """Of the loss over the whole batch, computed one part at a time; 0 for `frozen` paths."""
    objective, extracts = model.config.objective, text_features.extracts(model)

    def loss_of(params: Params, item: Any, counts: Any = None) -> tuple[Array, Metrics]:
        if frozen:  # layers below which nothing is trained have no way back
            flat = params_lib.flatten(params)
            flat |= {path: jax.lax.stop_gradient(flat[path]) for path in frozen}
            params = params_lib.unflatten(flat)
        batch, key = item
        if extracts:
            batch = text_features.given(model, params, batch)
        terms = losses.terms(model, params, batch, key=key)
        return losses.total(objective, terms, counts), terms

    def split(leaf: Array) -> Array:
        # Part p is every parts-th row, so that each part lies on all devices of the data axis and
        # no row moves.
        return leaf.reshape(-1, parts, *leaf.shape[1:]).swapaxes(0, 1)

    def counted(_: None, item: Any) -> tuple[None, dict[str, Array]]:
        return None, {name: metric.count for name, metric in loss_of(params, item)[1].items()}

    if parts == 1:
        (loss, metrics), grads = jax.value_and_grad(loss_of, has_aux=True)(params, (batch, key))
        return grads, metrics | {"loss": _single(loss)}

    items = (jax.tree.map(split, batch), jax.random.split(key, parts))
    # Most counts need no model, whose computation the compiler leaves out of this first pass.
    _, each = jax.lax.scan(counted, None, items)
    counts = jax.tree.map(lambda count: count.sum(axis=0), each)

    def add(grads: Params, item: Any) -> tuple[Params, tuple[Array, Metrics]]:
        out, more = jax.value_and_grad(loss_of, has_aux=True)(params, item, counts)
        return jax.tree.map(jnp.add, grads, more), out

    grads, out = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), items)
    loss, metrics = jax.tree.map(lambda leaf: leaf.sum(axis=0), out)
    return grads, metrics | {"loss": _single(loss)}
