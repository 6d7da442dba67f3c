"""What a step of training changes."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Int32

from mmt_jax.models.base import Model
from mmt_jax.typing import Array, Metric, Params, record


@record
class State:
    """All that a run needs to go on, but for its data."""

    step: Int32[Array, ""]  # steps that are done
    params: Params
    opt_state: optax.OptState
    average: Params | None = None  # of the parameters of all steps so far, where it is asked for

    @classmethod
    def fresh(
        cls, params: Params, tx: optax.GradientTransformation, *, average: bool = False
    ) -> State:
        """The state before the first step."""
        mean = jax.tree.map(jnp.copy, params) if average else None  # buffers of their own
        return cls(jnp.zeros((), jnp.int32), params, tx.init(params), mean)

    @property
    def shown(self) -> Params:
        """What is evaluated, kept and exported."""
        return self.params if self.average is None else self.average


def keys(seed: int, prng: str = "threefry") -> tuple[jax.Array, jax.Array]:
    """The two roots of what is random in a run: its first parameters, and its steps.

    `prng` is of the steps alone, so that runs which differ in it start from the same parameters.
    """
    first, steps = jax.random.split(jax.random.key(seed))
    if prng != "threefry":
        steps = jax.random.split(jax.random.key(seed, impl=prng))[1]
    return first, steps


def abstract(model: Model, tx: optax.GradientTransformation, *, average: bool = False) -> State:
    """Shapes and dtypes of a model's state; allocates nothing."""
    fresh = functools.partial(State.fresh, tx=tx, average=average)
    return jax.eval_shape(fresh, model.abstract())


def averaged(average: Params, params: Params, step: Array, decay: float) -> Params:
    """The running mean after number `step`, counted from 1: decay · mean + (1 - decay) · params.

    The decay begins at 2 / 11 and rises as (1 + step) / (10 + step), as TensorFlow's
    `ExponentialMovingAverage` does, so that the first parameters are soon forgotten.
    """
    steps = step.astype(jnp.float32)
    rest = 1.0 - jnp.minimum(decay, (1.0 + steps) / (10.0 + steps))
    return jax.tree.map(lambda mean, new: mean + rest * (new - mean), average, params)


@record
class Window:
    """Metrics since the last line of the log; they stay on the device until that is written."""

    metrics: dict[str, Metric]
    failed: Int32[jax.Array, ""]  # the first step whose loss or update was not finite; 0 = none

    @classmethod
    def empty(cls, metrics: dict[str, Metric]) -> Window:
        """Before the first step, of metrics like these (abstract ones will do)."""
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), metrics)
        return cls(zeros, jnp.zeros((), jnp.int32))

    def add(self, metrics: dict[str, Metric], step: Int32[Array, ""]) -> Window:
        """Takes in the metrics of step number `step`, counted from 1."""
        watched = [metrics[name].sum for name in ("loss", "grad_norm", "update_norm")]
        finite = jnp.isfinite(jnp.stack(watched)).all()
        failed = jnp.where((self.failed > 0) | finite, self.failed, step)
        return Window({name: self.metrics[name] + metrics[name] for name in metrics}, failed)
