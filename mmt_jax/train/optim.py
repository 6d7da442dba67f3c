"""The optimiser of a config: AdamW or LAMB, a schedule, and tables of rules over parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmt_jax import params as params_lib
from mmt_jax.configs.config import OptimConfig
from mmt_jax.errors import UsageError
from mmt_jax.typing import Array, Params

# These hold after the config's own rows. Calibration is an online Platt scaling: two scalars whose
# optimum follows the scores as those grow over the whole of training. At the rate that suits weight
# matrices they would trail far behind, and decay would pull every probability to one half.
LR_TABLE = ((r"calibration/.*", 30.0),)
DECAY_TABLE = ((r"calibration/.*", 0.0), (r"(score/)?log_scale", 0.0))


def schedule(config: OptimConfig, steps: int) -> optax.Schedule:
    """Learning rate by number of finished steps [] i32 → [] f32.

    Rises in equal parts to `config.lr` over `warmup_steps`, then falls to 0 at `steps`, which it
    does not reach: neither the first nor the last step is lost. BertAdam's `warmup_linear` counts
    from 0 and loses the first.
    """

    def rate(count: Any) -> Array:
        done = count if config.schedule == "warmup_linear" else count + 1
        rise = jnp.minimum(done / config.warmup_steps, 1.0) if config.warmup_steps else 1.0
        left = (steps - count) / max(steps - config.warmup_steps, 1)
        left = jnp.clip(left, 0.0, 1.0)
        fall = {
            "linear": left,
            "warmup_linear": left,
            "cosine": 0.5 - 0.5 * jnp.cos(jnp.pi * left),
            "constant": jnp.ones_like(left),
        }[config.schedule]
        return config.lr * rise * fall

    return rate


def build(config: OptimConfig, params: Params, steps: int) -> optax.GradientTransformation:
    """The optimiser of a tree of parameters (abstract ones will do).

    It takes and returns whole trees; frozen parameters get updates of 0 and have no state. The norm
    that is clipped is that of the others. Under LAMB (You et al., 2020, arXiv 1904.00962),
    parameters without decay are also left out of the trust ratio, as in its authors' code: a ratio
    of norms says nothing of a bias or a scale. BertAdam, with which LXMERT was trained, is AdamW
    whose moments are not corrected for their start at 0. UsageError: a bad regex, or one that
    matches no parameter.
    """
    if not config.clip_norm > 0:  # NaN is not either
        raise UsageError(
            f"config.optim.clip_norm is {config.clip_norm}; give a norm above 0, or inf for none"
        )
    paths = params_lib.flatten(params)
    _check_tables(config, paths)

    def of(table: Sequence[tuple[str, Any]], default: Any) -> Params:
        return params_lib.unflatten(params_lib.lookup(table, paths, default))

    def by_value(values: Params, make: Callable[[float], optax.GradientTransformation]):
        """`make(v)` for the parameters whose value is v."""
        found = sorted({*jax.tree.leaves(values)})
        masks = {v: jax.tree.map(lambda value, v=v: value == v, values) for v in found}
        return optax.chain(*(optax.masked(make(v), mask) for v, mask in masks.items()))

    still = frozen(config, paths)
    part = params_lib.unflatten({p: "frozen" if p in still else "trained" for p in paths})
    if len(still) == len(paths):
        raise UsageError("config.optim.freeze freezes every parameter; leave some to train")
    decays = of((*config.decay_table, *DECAY_TABLE), 1.0)
    clipped = params_lib.unflatten(_clipped(paths))
    trust = [optax.masked(optax.scale_by_trust_ratio(), jax.tree.map(bool, decays))]
    tx = optax.chain(
        optax.masked(optax.clip_by_global_norm(config.clip_norm), clipped),
        _scale_by_adam(config),
        by_value(decays, lambda v: optax.add_decayed_weights(config.weight_decay * v)),
        *(trust if config.name == "lamb" else []),
        by_value(of((*config.lr_table, *LR_TABLE), 1.0), optax.scale),
        optax.scale_by_learning_rate(schedule(config, steps)),
    )
    return optax.partition({"trained": tx, "frozen": optax.set_to_zero()}, part)


def norm(grads: Params) -> Array:
    """The norm of a gradient that `clip_norm` bounds, before clipping: calibration is left out."""
    flat = params_lib.flatten(grads)
    return optax.tree.norm([flat[path] for path, counts in _clipped(flat).items() if counts])


def _clipped(paths: Iterable[str]) -> dict[str, bool]:
    """Not calibration, or the size of its gradient would slow all others."""
    return params_lib.lookup([(pattern, False) for pattern, _ in LR_TABLE], paths, True)


def frozen(config: OptimConfig, paths: Iterable[str]) -> set[str]:
    """The paths of parameters that stay as they are."""
    found = params_lib.lookup([(pattern, True) for pattern in config.freeze], paths, False)
    return {path for path, still in found.items() if still}


def _check_tables(config: OptimConfig, paths: Iterable[str]) -> None:
    tables = {
        "lr_table": [pattern for pattern, _ in config.lr_table],
        "decay_table": [pattern for pattern, _ in config.decay_table],
        "freeze": list(config.freeze),
    }
    for name, patterns in tables.items():
        try:
            unused = params_lib.unmatched(patterns, paths)
        except re.error as error:
            raise UsageError(
                f"config.optim.{name} has a bad regex {error.pattern!r}: {error}"
            ) from None
        if unused:
            raise UsageError(
                f"config.optim.{name}: {unused[0]!r} matches the whole path of no parameter; "
                f"`mmt describe` prints the paths"
            )


def _scale_by_adam(config: OptimConfig) -> optax.GradientTransformation:
    """Adam's moments; BertAdam's (`pytorch-pretrained-bert`) without their correction."""
    adam = optax.scale_by_adam(config.b1, config.b2, config.eps)

    def corrected(updates: Any, state: Any, params: Any = None):
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer's power
            return adam.update(updates, state, params)

    if config.name != "bert_adam":
        return optax.GradientTransformation(adam.init, corrected)

    def update(updates: Any, state: Any, params: Any = None):
        del params
        mu = optax.tree.update_moment(updates, state.mu, config.b1, 1)
        nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, config.b2, 2)
        updates = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + config.eps), mu, nu)
        return updates, optax.ScaleByAdamState(state.count + 1, mu, nu)

    return optax.GradientTransformation(adam.init, update)
