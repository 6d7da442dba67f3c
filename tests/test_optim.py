import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmt_jax.configs.config import OptimConfig
from mmt_jax.errors import UsageError
from mmt_jax.params import flatten, unflatten
from mmt_jax.train import optim

PLAIN = OptimConfig(lr=0.1, schedule="constant", warmup_steps=0, weight_decay=0.5, clip_norm=1e9)


def tree(kernel, bias=0.0, calibration=None):
    params = {"layer": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}}
    return params | ({"calibration": {"scale": jnp.asarray(calibration)}} if calibration else {})


def update(config, params, grads, steps=100):
    tx = optim.build(config, params, steps)
    updates, _ = tx.update(grads, tx.init(params), params)
    return updates


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_a_schedule_rises_over_its_warm_up_and_falls_to_zero_after_the_last_step(name, expected):
    config = OptimConfig(lr=3.0, schedule=name, warmup_steps=2)
    rate = optim.schedule(config, 6)
    np.testing.assert_allclose([rate(n) for n in range(6)], 3 * np.array(expected), rtol=1e-6)
    if name != "constant":
        assert rate(6) == 0


def test_a_run_shorter_than_its_warm_up_still_rises():
    rate = optim.schedule(OptimConfig(lr=1.0, warmup_steps=10), 4)
    np.testing.assert_allclose([rate(n) for n in range(4)], [0.1, 0.2, 0.3, 0.4], rtol=1e-6)


def test_the_first_adamw_step_is_the_sign_of_the_gradient_and_the_decay():
    got = update(PLAIN, tree([2.0, -4.0], 1.0), tree([3.0, -0.5], 7.0))
    # Bias correction makes the first moments g and g², so Adam's part is g / |g|.
    np.testing.assert_allclose(got["layer"]["kernel"], [-0.1 * (1 + 1), -0.1 * (-1 - 2)], rtol=1e-5)
    np.testing.assert_allclose(got["layer"]["bias"], -0.1, rtol=1e-5)  # no decay


def test_adam_without_rules_is_that_of_optax_over_several_steps():
    config = dataclasses.replace(PLAIN, decay_table=(), b2=0.9)
    params = reference = tree([2.0, -4.0], 1.0)
    ours, theirs = (
        optim.build(config, params, 10),
        optax.adamw(0.1, b1=config.b1, b2=0.9, eps=config.eps, weight_decay=0.5),
    )
    state, their_state = ours.init(params), theirs.init(params)
    for seed in range(3):
        noise = np.random.default_rng(seed).normal(size=3)
        grads = tree(noise[:2], noise[2])
        updates, state = ours.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        with jax.numpy_dtype_promotion("standard"):  # optax is not strict
            updates, their_state = theirs.update(grads, their_state, reference)
        reference = optax.apply_updates(reference, updates)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(reference)):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_lamb_scales_a_kernel_by_its_norm_and_leaves_a_bias_to_adam():
    config = dataclasses.replace(PLAIN, name="lamb", weight_decay=0.0)
    got = update(config, tree([3.0, -4.0], 2.0), tree([0.2, 0.1], 7.0))
    # Adam's part is (1, 1) of norm √2; the kernel's norm is 5.
    np.testing.assert_allclose(got["layer"]["kernel"], [-0.1 * 5 / 2**0.5] * 2, rtol=1e-5)
    np.testing.assert_allclose(got["layer"]["bias"], -0.1, rtol=1e-5)


def test_clipping_sees_the_norm_over_all_parameters():
    params = tree([0.0, 0.0], 0.0)
    config = dataclasses.replace(PLAIN, clip_norm=1.0, eps=1.0)
    got = update(config, params, tree([2.0, 3.0], 6.0))["layer"]  # of norm 7
    clipped = np.array([2.0, 3.0]) / 7
    np.testing.assert_allclose(got["kernel"], -0.1 * clipped / (clipped + 1), rtol=1e-5)


def test_the_first_row_that_matches_a_whole_path_counts():
    config = dataclasses.replace(
        PLAIN, weight_decay=0.0, lr_table=((r"layer/bias", 3.0), (r"layer/.*", 5.0))
    )
    got = update(config, tree([1.0], 1.0), tree([1.0], 1.0))["layer"]
    np.testing.assert_allclose([got["kernel"][0], got["bias"]], [-0.5, -0.3], rtol=1e-5)


def test_rates_may_be_whole_numbers():
    config = dataclasses.replace(PLAIN, weight_decay=0.0, lr_table=((r"layer/bias", 0),))
    got = update(config, tree([1.0], 1.0), tree([1.0], 1.0))["layer"]
    np.testing.assert_allclose([got["kernel"][0], got["bias"]], [-0.1, 0], rtol=1e-5)


@pytest.mark.parametrize("place", ["score/log_scale", "log_scale"])
def test_the_scale_of_a_contrast_does_not_decay(place):
    params = unflatten({place: jnp.asarray(3.0)}) | tree([1.0, 1.0], 2.0)
    still = jax.tree.map(jnp.zeros_like, params)
    got = flatten(update(PLAIN, params, still))
    assert got[place] == 0
    assert (got["layer/kernel"] < 0).all()


def test_the_norm_of_a_gradient_is_the_one_that_is_clipped():
    assert optim.norm(tree([3.0], 4.0, calibration=100.0)) == 5


def test_clipping_does_not_feel_calibration():
    config = OptimConfig(lr=0.1, warmup_steps=0, weight_decay=0.0, clip_norm=1.0, eps=10.0)
    params = tree([1.0], calibration=2.0)
    small, large = (
        update(config, params, tree([0.5], calibration=slope))["layer"]["kernel"]
        for slope in (1e-3, 1e3)
    )
    np.testing.assert_array_equal(small, large)


def test_calibration_learns_faster_and_does_not_decay():
    config = dataclasses.replace(PLAIN, decay_table=())
    params = tree([1.0], 1.0, calibration=2.0)
    got = update(config, params, tree([1.0], 1.0, calibration=1.0))
    np.testing.assert_allclose(got["calibration"]["scale"], -0.1 * 30, rtol=1e-5)
    np.testing.assert_allclose(got["layer"]["bias"], -0.1 * (1 + 0.5), rtol=1e-5)


def test_frozen_parameters_stay_and_have_no_state():
    config = dataclasses.replace(PLAIN, freeze=(r"layer/kernel",))
    params = tree(jnp.ones(7), 1.0)
    tx = optim.build(config, params, 10)
    state = tx.init(params)
    assert not any(leaf.shape == (7,) for leaf in jax.tree.leaves(state))
    updates, _ = tx.update(tree(jnp.ones(7), 1.0), state, params)
    assert not updates["layer"]["kernel"].any()
    assert updates["layer"]["bias"] != 0


def test_a_frozen_gradient_takes_no_part_in_clipping():
    config = dataclasses.replace(PLAIN, freeze=(r"layer/kernel",), clip_norm=1.0, eps=1.0)
    got = update(config, tree([0.0]), tree([1e6], 0.5))
    np.testing.assert_allclose(got["layer"]["bias"], -0.1 * 0.5 / 1.5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"lr_table": ((r"kernel", 2.0),)}, "lr_table.*'kernel' matches the whole path of no"),
        ({"freeze": (r".*/(kernel",)}, "freeze has a bad regex"),
        ({"freeze": (r".*",)}, "every parameter"),
    ],
)
def test_wrong_settings_are_named(change, message):
    with pytest.raises(UsageError, match=message):
        optim.build(dataclasses.replace(PLAIN, **change), tree([1.0], 1.0), 10)
