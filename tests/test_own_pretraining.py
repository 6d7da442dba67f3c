"""LXMERT's and BridgeTower's own ways of hiding, pairing and stepping."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from experiments import bridgetower as experiment
from experiments import lxmert as lxmert_experiment
from experiments import tern as tern_experiment
from mmt_jax import params as trees
from mmt_jax.configs.config import Config, ObjectiveConfig, OptimConfig, resolve, with_spec
from mmt_jax.configs.models import BridgeTowerConfig
from mmt_jax.configs.tasks import TaskConfig
from mmt_jax.errors import UsageError
from mmt_jax.models import registry
from mmt_jax.models.lxmert import weights as lxmert_names
from mmt_jax.objectives import corruption, losses, pairing, per_example
from mmt_jax.train import optim

PIXELS = dataclasses.replace(tiny.SPEC, feature_dim=12, num_classes=0, unlabelled=True)
SIZES = {
    **dict.fromkeys(("width", "text_width", "image_width"), 12),
    **dict.fromkeys(("mlp_dim", "text_mlp_dim"), 8),
    **dict.fromkeys(("heads", "text_heads", "image_heads"), 2),
    **{"tower_layers": 1, "cross_layers": 1, "patch_size": 2, "image_size": 4, "itc_dim": 4},
    "dropout": 0.0,
}


def bridgetower(itc="paper", **objective):
    config = Config(
        model=BridgeTowerConfig(**SIZES, itc=itc),
        objective=ObjectiveConfig(**{"mlm": 0.0, "mrm": 0.0} | objective),
    )
    return registry.build(with_spec(config, PIXELS))


def compute(model, params):
    """The loss and its terms."""
    batch = tiny.batch(4, spec=PIXELS)
    return losses.compute(model, params, batch, key=jax.random.key(0), dropout=False)


def terms_of(model):
    """`compute` with random parameters."""
    return jax.jit(functools.partial(compute, model))(tiny.params(model, std=0.2))


# ---- What is hidden ------------------------------------------------------------------------------


def test_tokens_are_hidden_one_by_one():
    text = jax.tree.map(jnp.asarray, tiny.text([12] * 400, length=14))
    text = dataclasses.replace(text, word_ids=jnp.where(text.word_ids >= 0, 0, text.word_ids))
    hide = functools.partial(corruption.mask_tokens, rate=0.3, vocab_size=29, mask_id=6)
    hidden, words = hide(text, key=jax.random.key(0))
    # All tokens are of one word, and yet some are hidden and some are not.
    chosen = np.asarray(words.mask).sum(axis=1)
    assert abs(chosen.mean() / 12 - 0.3) < 0.02
    assert len(set(chosen.tolist())) > 3
    before = np.take_along_axis(np.asarray(text.token_ids), np.asarray(words.positions), axis=1)
    after = np.take_along_axis(np.asarray(hidden.token_ids), np.asarray(words.positions), axis=1)
    mask = np.asarray(words.mask)
    np.testing.assert_array_equal(words.token_ids[mask], before[mask])
    assert abs((after[mask] == 6).mean() - 0.8) < 0.03


def test_regions_are_hidden_as_lxmert_does():
    image = jax.tree.map(jnp.asarray, tiny.image([10, 6] * 100))
    hide = functools.partial(corruption.mask_features, rate=0.4, global_region=True)
    hidden, chosen = hide(image, key=jax.random.key(1))
    chosen, real = np.asarray(chosen), np.asarray(image.mask)
    assert not chosen[:, -1].any()
    assert not (chosen & ~real).any()
    assert abs(chosen.sum() / (real[:, :-1].sum()) - 0.4) < 0.03
    same = (np.asarray(hidden.features) == np.asarray(image.features)).all(-1)
    zero = (np.asarray(hidden.features) == 0).all(-1)
    np.testing.assert_array_equal(same[~chosen], True)
    assert abs(zero[chosen].mean() - 0.8) < 0.04
    assert abs(same[chosen].mean() - 0.1) < 0.03
    known = {row.tobytes() for row in np.asarray(image.features)[real]}
    swapped = np.asarray(hidden.features)[chosen & ~zero & ~same]
    assert {row.tobytes() for row in swapped} <= known


# ---- Who meets whom ------------------------------------------------------------------------------


def test_hard_negatives_are_the_likeliest_that_show_another_photo():
    logits = jnp.array([[9.0, 8.0, 0.0], [0.0, 9.0, 90.0], [0.0, 90.0, 9.0]]) * 10
    pairs = pairing.hard(logits, jnp.array([4, 4, 7]), key=jax.random.key(0))
    np.testing.assert_array_equal(pairs.matched, [True] * 3 + [False] * 6)
    np.testing.assert_array_equal(pairs.text[:6], [0, 1, 2, 0, 1, 2])
    # Photos of captions 0 and 1 are one photo, so that 2 alone is wrong for them.
    np.testing.assert_array_equal(pairs.image[3:6], [2, 2, 1])
    np.testing.assert_array_equal(pairs.image[6:], [0, 1, 2])
    np.testing.assert_array_equal(pairs.text[6:], [2, 2, 1])


def test_without_another_photo_nothing_is_wrong():
    pairs = pairing.hard(jnp.zeros((2, 2)), jnp.array([3, 3]), key=jax.random.key(0))
    assert pairs.matched.all()
    np.testing.assert_array_equal(pairs.text, pairs.image)


def test_contrast_with_soft_labels_by_hand():
    logits = jnp.log(jnp.array([[[1.0, 2.0, 1.0], [1.0, 1.0, 2.0], [4.0, 3.0, 1.0]]]))
    found = per_example.soft_contrast(logits, jnp.array([5, 6, 5]))
    expected = [-np.log(1 / 4), -np.log(1 / 4), -(np.log(4 / 8) + np.log(1 / 8)) / 2]
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)


# ---- BridgeTower ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_bridgetower_tells_pairs_apart_in_a_pass_of_their_own():
    model = bridgetower("none", reading="bridgetower", mlm=1.0, mlm_rate=1.0, mismatch=1.0)
    loss, terms = terms_of(model)
    # All pairs are mismatched for the match, and none for the words, every one of which is hidden.
    assert terms["mlm"].count == 3 + 4 + 3 + 4
    np.testing.assert_allclose(loss, terms["itm"].mean + terms["mlm"].mean, rtol=1e-5)
    whole = terms_of(bridgetower("none", reading="bridgetower", mismatch=1.0))[1]
    assert whole["itm"].count == 4


def test_the_match_of_hard_negatives_is_of_three_pairs_a_caption():
    _, terms = terms_of(bridgetower(negatives="hard"))
    assert set(terms) == {"itm", "itm_accuracy", "itc"}
    assert terms["itm"].count == 12


@pytest.mark.slow
@pytest.mark.parametrize("itc", ["paper", "huggingface"])
def test_the_contrast_trains_alone(itc):
    model = bridgetower(itc, itm="none")
    run = jax.jit(jax.value_and_grad(functools.partial(compute, model), has_aux=True))
    (loss, terms), slopes = run(tiny.params(model, std=0.2))
    assert set(terms) == {"itc"}
    np.testing.assert_allclose(loss, terms["itc"].mean, rtol=1e-6)
    heads = {
        p for p, slope in trees.flatten(slopes).items() if "contrast_head" in p and np.any(slope)
    }
    assert ("contrast_head/pair/kernel" in heads) == (itc == "huggingface")
    assert {"contrast_head/text/kernel", "contrast_head/image/kernel"} <= heads


@pytest.mark.parametrize("change", [{"itc": "none"}, {"itm": "none"}])
def test_hard_negatives_need_a_contrast_and_a_match(change):
    with pytest.raises(UsageError, match=r"objective\.negatives='hard' are drawn by"):
        bridgetower(**{"negatives": "hard"} | change)


def test_unknown_readings_are_told():
    with pytest.raises(UsageError, match=r"reading='vilt' is unknown; there are study, lxmert"):
        bridgetower(reading="vilt")


@pytest.mark.slow
def test_what_learns_how_fast_in_bridgetower():
    run = resolve(experiment.get_config("base"))
    run = dataclasses.replace(run, model=dataclasses.replace(run.model, itc="paper"))
    shapes = registry.build(with_spec(run, dataclasses.replace(PIXELS, feature_dim=768))).abstract()
    paths = trees.flatten(shapes)
    rates = trees.lookup(run.optim.lr_table, paths, 1.0)
    fast = {path.split("/")[0] for path, rate in rates.items() if rate == 5.0}
    slow = {path.split("/")[0] for path, rate in rates.items() if rate == 1.0}
    assert fast == {"text_cross", "image_cross", "match", "word_head", "contrast_head"}
    assert slow == {"text", "image", "types", "contrast_head"}
    assert rates["contrast_head/log_scale"] == 1.0
    # Without a contrast too, every rule applies.
    plain = resolve(experiment.get_config("base"))
    plain_shapes = registry.build(with_spec(plain, dataclasses.replace(PIXELS, feature_dim=768)))
    assert optim.build(plain.optim, plain_shapes.abstract(), 10)


# ---- Steps ---------------------------------------------------------------------------------------


def test_bertadam_does_not_correct_its_moments():
    config = OptimConfig(
        name="bert_adam", lr=0.1, schedule="constant", warmup_steps=0, weight_decay=0.5,
        decay_table=(), b1=0.9, b2=0.99, eps=1e-6, clip_norm=1e9,
    )  # fmt: skip
    params = {"layer": {"kernel": jnp.array([2.0, -4.0])}}
    tx = optim.build(config, params, 10)
    state, m, v = tx.init(params), 0.0, 0.0
    for grad in (np.array([3.0, -0.5]), np.array([1.0, 2.0])):
        updates, state = tx.update({"layer": {"kernel": jnp.asarray(grad)}}, state, params)
        m, v = 0.9 * m + 0.1 * grad, 0.99 * v + 0.01 * grad**2
        wanted = -0.1 * (m / (np.sqrt(v) + 1e-6) + 0.5 * np.array([2.0, -4.0]))
        np.testing.assert_allclose(updates["layer"]["kernel"], wanted, rtol=1e-5)


def test_what_hugging_face_has_a_class_for():
    run = resolve(lxmert_experiment.get_config("base"))
    run = with_spec(run, dataclasses.replace(tiny.SPEC, unlabelled=True))
    assert lxmert_names.save_config(run)["task_qa"] is False
    alone = ObjectiveConfig(itm="none", mlm=0.0, mrm=0.0)
    run = with_spec(
        dataclasses.replace(run, objective=alone, task=TaskConfig(name="vqa")),
        dataclasses.replace(tiny.SPEC, unlabelled=True, num_answers=7),
    )
    saved = lxmert_names.save_config(run)
    assert saved["architectures"] == ["LxmertForQuestionAnswering"]
    assert saved["num_qa_labels"] == 7
    with pytest.raises(UsageError, match="reads one photo, and nlvr2 has two"):
        lxmert_names.save_config(dataclasses.replace(run, task=TaskConfig(name="nlvr2")))


def test_its_schedule_counts_from_nothing():
    rate = optim.schedule(OptimConfig(lr=4.0, schedule="warmup_linear", warmup_steps=2), 6)
    np.testing.assert_allclose([rate(n) for n in range(7)], [0, 2, 4, 3, 2, 1, 0], atol=1e-6)


@pytest.mark.slow
def test_rows_that_are_not_learned_stay_as_they_are():
    run = resolve(lxmert_experiment.get_config("pretraining,scale=pilot"))
    small = {"width": 12, "mlp_dim": 12, "heads": 2, "max_positions": 16, "segments": 3}
    small |= {"language_layers": 0, "region_layers": 0, "cross_layers": 1}
    run = dataclasses.replace(run, model=dataclasses.replace(run.model, **small))
    run = dataclasses.replace(run, optim=dataclasses.replace(run.optim, warmup_steps=0))
    spec = dataclasses.replace(tiny.SPEC, unlabelled=True, num_answers=3)
    model = registry.build(with_spec(run, spec))
    params = jax.tree.map(jnp.asarray, tiny.params(model, std=0.2))
    tx = optim.build(run.optim, params, 100)
    batch = tiny.batch(4, spec=spec)
    batch = dataclasses.replace(batch, targets=jnp.eye(4, 3))

    @jax.jit
    def step(params, state, key):
        grads, terms = jax.grad(lambda p: losses.compute(model, p, batch, key=key), has_aux=True)(
            params
        )
        updates, state = tx.update(grads, state, params)
        return jax.tree.map(jnp.add, params, updates), state, terms

    state, new = tx.init(params), params
    for number in range(2):
        new, state, terms = step(new, state, jax.random.key(number))
    assert {"itm", "mlm", "classes", "features", "answers"} <= set(terms)
    for table in ("positions", "segments"):
        old_rows, rows = (p["text"]["embed"][table]["embedding"] for p in (params, new))
        np.testing.assert_array_equal(rows[0], old_rows[0])
        assert not np.allclose(rows[2], old_rows[2])


@pytest.mark.parametrize(
    ("arg", "loss"),
    [
        ("original,scale=full", "hinge"),
        (
            "original,scale=tiny",
            "hinge_sum",
        ),  # the hardest mistake alone teaches fresh weights nothing
        ("kaylode,scale=full", "pairs"),
        ("kaylode,scale=tiny", "pairs"),
    ],
)
def test_tern_trains_with_its_own_losses(arg, loss):
    assert resolve(tern_experiment.get_config(arg)).objective.loss == loss
