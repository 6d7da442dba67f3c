"""A batch in parts: sums and counts are added over parts, then divided."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import zoo

from mmt_jax.objectives import corruption, losses, readings
from mmt_jax.params import flatten
from mmt_jax.train import step as steps
from mmt_jax.train.state import State

pytestmark = pytest.mark.slow

EMBEDDING = ("hinge", "hinge_sum", "triplet", "pairs", "nt_xent", "convirt")
# What is trained, by family and changes of its objective and model.
CASES = {
    **{family: (family, {}) for family in zoo.FAMILIES},
    "mmt, joint contrast": ("mmt", {"objective": {"itm": "contrastive", "candidates": 2}}),
    "mmt, a loss a layer": ("mmt", {"objective": {"hloss": True}}),
    "lxmert, its own pre-training": ("lxmert", {"objective": {"reading": "lxmert"}}),
    "bridgetower, its own": ("bridgetower", {"objective": {"reading": "bridgetower"}}),
    "bridgetower, hard negatives": ("bridgetower", {"objective": {"negatives": "hard"}}),
    **{f"tern, {loss}": ("tern", {"objective": {"loss": loss}}) for loss in EMBEDDING},
}
WORDS = (1, 6, 2, 5, 6, 1, 3, 2)  # parts of very different counts
RATE = 1.0


def taken(model, params, batch, key, parts):
    """The gradient that a step takes with plain SGD, and its metrics."""
    config = dataclasses.replace(model.config, batch_size=len(WORDS), grad_accum=parts)
    tx = optax.sgd(RATE)
    step = jax.jit(steps.build(model, tx, config))
    after, metrics = step(State.fresh(params, tx), batch, key)
    return jax.tree.map(lambda a, b: a - b, params, after.params), metrics


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_that_of_the_sums_over_the_counts_of_all_parts(name):
    family, changes = CASES[name]
    model = zoo.build(family, **changes)
    params = model.init(jax.random.key(1))
    batch, key = zoo.batch(model, words=WORDS), jax.random.key(2)
    found, metrics = taken(model, params, batch, key, 2)

    # The same by hand: the parts one after the other, as a reader of the definition would.
    parts = [jax.tree.map(lambda leaf, p=p: leaf[p::2], batch) for p in range(2)]
    keys = list(jax.random.split(jax.random.fold_in(key, 0), 2))

    def whole(params):
        terms = [losses.terms(model, params, part, key=k) for part, k in zip(parts, keys)]
        sums = {term: terms[0][term].sum + terms[1][term].sum for term in terms[0]}
        counts = {term: terms[0][term].count + terms[1][term].count for term in terms[0]}
        added = {
            term: dataclasses.replace(terms[0][term], sum=sums[term], count=counts[term])
            for term in terms[0]
        }
        return losses.total(model.config.objective, added), added

    (loss, terms), wanted = jax.jit(jax.value_and_grad(whole, has_aux=True))(params)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["loss"].mean, loss, rtol=1e-5)
    slopes = {path: slope for path, slope in flatten(wanted).items() if "calibration" not in path}
    norm = math.sqrt(sum(np.sum(np.square(slope)) for slope in slopes.values()))
    np.testing.assert_allclose(metrics["grad_norm"].mean, norm, rtol=1e-4)
    for term in terms:
        np.testing.assert_allclose(metrics[term].mean, terms[term].mean, rtol=1e-5, err_msg=term)


def all_words(text, *, rate, vocab_size, mask_id, key):
    """Hides every word, so that parts and whole see the same."""
    del rate, vocab_size, key
    hidden = text.word_ids >= 0
    positions = jnp.broadcast_to(jnp.arange(hidden.shape[1]), hidden.shape)
    shown = dataclasses.replace(text, token_ids=jnp.where(hidden, mask_id, text.token_ids))
    return shown, corruption.WordTargets(positions, text.token_ids, hidden)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_two_four_and_eight_parts_give_what_the_whole_batch_gives(family, monkeypatch):
    reading = dataclasses.replace(readings.READINGS["study"], hide_words=all_words)
    monkeypatch.setitem(readings.READINGS, "study", reading)
    model = zoo.build(family)
    params = model.init(jax.random.key(1))
    batch, key = zoo.batch(model, words=WORDS), jax.random.key(2)
    whole, metrics = taken(model, params, batch, key, 1)
    norm = float(optax.tree.norm(whole))
    for parts in (2, 4, 8):
        found, others = taken(model, params, batch, key, parts)
        apart = float(optax.tree.norm(jax.tree.map(jnp.subtract, found, whole)))
        assert apart < 2e-6 * norm
        assert float(others["mlm"].count) == sum(WORDS)
        np.testing.assert_allclose(others["loss"].mean, metrics["loss"].mean, rtol=1e-6)
        np.testing.assert_allclose(others["loss"].mean, others["mlm"].mean, rtol=1e-6)
