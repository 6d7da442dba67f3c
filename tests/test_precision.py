"""What must not change a number beyond rounding: dtype, recomputing, chunks, states left out."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import zoo

from mmt_jax import params as trees
from mmt_jax.configs.config import OptimConfig
from mmt_jax.models import registry
from mmt_jax.objectives import losses
from mmt_jax.train import optim
from mmt_jax.train import step as steps
from mmt_jax.train.state import State

SCALARS = ("log_scale", "calibration/scale", "bridges/0/weight")
JOINT = {"objective": {"itm": "contrastive", "candidates": 4}}


@functools.cache
def learned(family, dtype, steps_taken=50):
    """The loss after some steps of Adam on one batch, and the parameters."""
    model = zoo.build(family, dtype=dtype)
    batch = zoo.batch(model, words=(1, 6, 2, 5, 6, 1, 3, 2))
    params = model.init(jax.random.key(0))
    plain = OptimConfig(schedule="constant", warmup_steps=0, weight_decay=0.0)
    tx = optim.build(plain, params, steps_taken)
    state, key, last = State.fresh(params, tx), jax.random.key(1), []
    step = tiny.compiled(steps.build(model, tx, model.config), state, batch, key)
    for _ in range(steps_taken):
        state, metrics = step(state, batch, key)
        last.append(float(metrics["loss"].mean))
    return last, state.params


@pytest.mark.slow
@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_a_run_in_bfloat16_learns_as_one_in_float32(family):
    exact, _ = learned(family, "float32")
    rough, params = learned(family, "bfloat16")
    assert exact[-1] < 0.97 * exact[0]  # it has learned something
    assert abs(np.mean(rough[-5:]) / np.mean(exact[-5:]) - 1) < 0.02
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["clip", "tern", "two_tower", "mmt", "bridgetower", "lxmert"])
def test_scores_and_logits_are_float32_and_small_steps_of_scalars_count(family):
    """A temperature of 2.659 moved by .003 changes what it scales; in bfloat16 it would not."""
    link = {"depth": 2, "model": {"link": "interpolate"}} if family == "bridgetower" else {}
    model = zoo.build(family, dtype="bfloat16", **link)
    params, batch = model.init(jax.random.key(0)), zoo.batch(model)

    def fused(params):
        text = model.encode_text(params, batch.text)
        return model.fuse(params, text, model.encode_image(params, batch.image))

    out = fused(params)
    assert out.scores.dtype == out.logits.dtype == jnp.float32
    flat = trees.flatten(params)
    scalars = [path for path in flat if path.endswith(SCALARS)]
    moved = fused(trees.unflatten(flat | {path: flat[path] + 0.003 for path in scalars}))
    changed = not np.array_equal(moved.logits, out.logits)
    assert changed == (model.config.objective.itm == "contrastive" or bool(link))


def gradient(model, params, batch):
    def loss(params):
        return losses.compute(model, params, batch, key=jax.random.key(4))[0]

    return jax.jit(jax.value_and_grad(loss))(params)


def assert_same(found, wanted, rtol=1e-4):
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5)
    for one, other in zip(jax.tree.leaves(found[1]), jax.tree.leaves(wanted[1]), strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_layers_that_are_computed_again_have_the_same_gradient(family):
    kept = zoo.build(family, depth=2, model={"dropout": 0.3})
    again = zoo.build(family, depth=2, model={"dropout": 0.3}, remat="layers")
    params, batch = kept.init(jax.random.key(0)), zoo.batch(kept)
    assert_same(gradient(again, params, batch), gradient(kept, params, batch))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mmt", "lxmert", "bridgetower"])
@pytest.mark.parametrize("chunk", [1, 8, 16])
def test_candidates_in_chunks_have_the_same_loss_and_gradient(family, chunk):
    whole = zoo.build(family, **JOINT)
    objective = JOINT["objective"] | {"chunk": chunk}
    parts = zoo.build(family, objective=objective)
    params, batch = whole.init(jax.random.key(0)), zoo.batch(whole, words=(1, 6, 2, 5, 6, 1, 3, 2))
    assert_same(gradient(parts, params, batch), gradient(whole, params, batch))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mmt", "lxmert", "bridgetower", "tern", "clip", "two_tower"])
@pytest.mark.parametrize("depth", [1, 2])
def test_without_states_scores_are_the_same(family, depth):
    model = zoo.build(family, depth=depth)
    params, batch = model.init(jax.random.key(0)), zoo.batch(model)
    text = model.encode_text(params, batch.text)
    image = model.encode_image(params, batch.image)
    whole = model.fuse(params, text, image)
    scored = model.fuse(params, text, image, states=False)
    np.testing.assert_allclose(scored.scores, whole.scores, rtol=1e-4, atol=2e-7)
    np.testing.assert_allclose(scored.logits, whole.logits, rtol=1e-4, atol=2e-7)
    if whole.pooled is not None:
        np.testing.assert_allclose(scored.pooled, whole.pooled, rtol=1e-4, atol=2e-7)


KINDS = ("merged", "coattention", "language_query", "image_query", "single_stream")
LAST = {
    **{kind: ("text", kind, kind) for kind in KINDS},
    "text after merged": ("merged", "text"),  # what image was last updated is not read any more
    "image read after its last layer": ("merged", "language_query"),
    "co-attention, then each its own": ("coattention", "single"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAST)
def test_without_states_scores_of_every_kind_of_layer_are_the_same(name):
    config = zoo.config("mmt", model={"layers": LAST[name]})
    model = registry.build(config)
    params, batch = model.init(jax.random.key(0)), zoo.batch(model)
    text = model.encode_text(params, batch.text)
    image = model.encode_image(params, batch.image)
    whole = model.fuse(params, text, image)
    scored = model.fuse(params, text, image, states=False)
    np.testing.assert_allclose(scored.scores, whole.scores, rtol=1e-4, atol=2e-7)


@pytest.mark.slow
@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_each_fresh_weight_is_a_function_of_seed_and_path_alone(family):
    shallow, deep = (zoo.build(family, depth=depth) for depth in (1, 2))
    key = jax.random.key(7)
    first, second = (trees.flatten(model.init(key)) for model in (shallow, deep))
    shared = [p for p in first if p in second and first[p].shape == second[p].shape]
    assert len(shared) > 0.4 * len(first)
    for path in shared:
        np.testing.assert_array_equal(first[path], second[path], err_msg=path)
    others = trees.flatten(shallow.init(jax.random.key(8)))
    for path, leaf in first.items():
        if path.endswith(("kernel", "embedding")):
            assert not np.array_equal(leaf, others[path]), path
    drawn = [np.ravel(x) for p, x in first.items() if p.endswith("kernel")]
    assert len({x[:4].tobytes() for x in drawn}) == len(drawn)  # no two weights share a draw


def test_a_model_without_a_loss_shares_every_other_weight():
    """`data_cc` and `loss_itm_mlm` differ in the head of masked regions alone."""
    whole = zoo.build("mmt")
    without = registry.build(
        dataclasses.replace(
            whole.config, objective=dataclasses.replace(whole.config.objective, mrm=0.0)
        )
    )
    key = jax.random.key(3)
    first, second = (trees.flatten(model.init(key)) for model in (whole, without))
    assert {path.split("/")[0] for path in first.keys() ^ second.keys()} == {"region_head"}
    for path in second:
        np.testing.assert_array_equal(first[path], second[path])
