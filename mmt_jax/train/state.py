"""What a step of training changes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax

from mmt_jax.models.base import Model
from mmt_jax.typing import Array, Metric, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that a run needs to go on, but for its data."""

    step: Array  # [] i32: steps that are done
    params: Params
    opt_state: optax.OptState

    @classmethod
    def fresh(cls, params: Params, tx: optax.GradientTransformation) -> State:
        """The state before the first step."""
        return cls(jnp.zeros((), jnp.int32), params, tx.init(params))


def keys(seed: int, prng: str = "threefry") -> tuple[jax.Array, jax.Array]:
    """The two roots of what is random in a run: its first parameters, and its steps.

    `prng` is of the steps alone, so that runs which differ in it start from the same parameters.
    """
    first, steps = jax.random.split(jax.random.key(seed))
    if prng != "threefry":
        steps = jax.random.split(jax.random.key(seed, impl=prng))[1]
    return first, steps


def abstract(model: Model, tx: optax.GradientTransformation) -> State:
    """Shapes and dtypes of a model's state; allocates nothing."""
    return jax.eval_shape(lambda params: State.fresh(params, tx), model.abstract())


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Window:
    """Metrics since the last line of the log; they stay on the device until that is written."""

    metrics: dict[str, Metric]
    failed: jax.Array  # [] i32: the first step whose loss or update was not finite; 0 = none

    @classmethod
    def empty(cls, metrics: dict[str, Metric]) -> Window:
        """Before the first step, of metrics like these (abstract ones will do)."""
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), metrics)
        return cls(zeros, jnp.zeros((), jnp.int32))

    def add(self, metrics: dict[str, Metric], step: Array) -> Window:
        """Takes in the metrics of step number `step`, counted from 1."""
        watched = [metrics[name].sum for name in ("loss", "grad_norm", "update_norm")]
        finite = jnp.isfinite(jnp.stack(watched)).all()
        failed = jnp.where((self.failed > 0) | finite, self.failed, step)
        return Window({name: self.metrics[name] + metrics[name] for name in metrics}, failed)
