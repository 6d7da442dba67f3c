"""Losses against hand-computed values, alone and as summed over a batch."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from mmt_jax import params as trees
from mmt_jax.errors import UsageError
from mmt_jax.models.base import take
from mmt_jax.objectives import losses, per_example

# --- Per example ---


def log_softmax(x):
    x = np.float64(x)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_cross_entropy_by_hand():
    logits = np.log([[1.0, 2.0, 5.0], [4.0, 4.0, 2.0]])
    got = per_example.cross_entropy(logits, np.array([2, 0]))
    np.testing.assert_allclose(got, -np.log([5 / 8, 4 / 10]), rtol=1e-6)


def dense(ids, probs, classes):
    """The distribution in full: the rest of the mass over the classes that are not named."""
    others = np.setdiff1d(np.arange(classes), ids)
    out = np.zeros(classes)
    out[ids] = probs
    out[others] = (1 - np.sum(probs)) / max(len(others), 1)
    return out


@pytest.mark.parametrize(
    ("ids", "probs"),
    [
        ([4, 1], [0.5, 0.2]),
        ([0, 5], [0.9, 0.1]),  # nothing is left for the others
        ([2, 3], [1.0, 0.0]),
        ([5, 3, 1, 0, 2, 4], [0.3, 0.25, 0.2, 0.15, 0.06, 0.04]),  # every class is named
    ],
)
def test_class_divergence_equals_kl_of_the_dense_distribution(ids, probs):
    logits = np.random.default_rng(0).normal(0, 2, (3, 6))
    full = dense(ids, probs, 6)
    entropy = sum(p * math.log(p) for p in full if p)
    got = per_example.class_divergence(logits, np.tile(ids, (3, 1)), np.tile(probs, (3, 1)))
    np.testing.assert_allclose(got, entropy - log_softmax(logits) @ full, rtol=1e-5, atol=1e-6)


def test_class_divergence_is_zero_where_the_model_agrees():
    full = dense([3, 1], [0.4, 0.3], 5)
    got = per_example.class_divergence(
        np.log(full)[None], np.array([[3, 1]]), np.array([[0.4, 0.3]])
    )
    np.testing.assert_allclose(got, [0.0], atol=1e-6)


def test_feature_error_by_hand():
    got = per_example.feature_error(
        np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([[3.0, 1.0], [0, 0]])
    )
    np.testing.assert_allclose(got, [2.5, 0.0])


def test_contrastive_by_hand_in_both_directions():
    scores = np.log([[[6.0, 2.0], [1.0, 3.0]]])  # caption by photo
    to_photo, to_caption = per_example.contrastive(scores, np.ones((1, 2, 2), bool))
    np.testing.assert_allclose(to_photo, -np.log([[6 / 8, 3 / 4]]), rtol=1e-6)
    np.testing.assert_allclose(to_caption, -np.log([[6 / 7, 3 / 5]]), rtol=1e-6)


@pytest.mark.slow
def test_contrastive_leaves_out_candidates_of_the_same_photo():
    scores = np.log([[[6.0, 50.0, 2.0], [70.0, 3.0, 1.0], [4.0, 5.0, 8.0]]])
    allowed = np.ones((1, 3, 3), bool)
    allowed[0, [0, 1], [1, 0]] = False
    to_photo, to_caption = per_example.contrastive(scores, allowed)
    np.testing.assert_allclose(to_photo, -np.log([[6 / 8, 3 / 4, 8 / 17]]), rtol=1e-6)
    np.testing.assert_allclose(to_caption, -np.log([[6 / 10, 3 / 8, 8 / 11]]), rtol=1e-6)
    slope = jax.grad(lambda x: sum(x.sum() for x in per_example.contrastive(x, allowed)))(scores)
    assert np.isfinite(slope).all()
    np.testing.assert_array_equal(slope[~allowed], 0)


# --- Over a batch ---

BATCH = tiny.batch(4, words=[3, 1, 2, 3], regions=[3, 2, 1, 3])
KEY = jax.random.key(3)
fused = jax.jit(tiny.fused, static_argnums=0)
NO_MASKING = {"mlm": 0.0, "mrm": 0.0}
CALIBRATION = ("calibration_true", "calibration_wrong")


@functools.cache
def compiled(model, dropout):
    """`losses.compute` of a model."""
    return jax.jit(functools.partial(losses.compute, model, dropout=dropout))


def computed(model, params, batch=BATCH, *, key=KEY, dropout=False):
    return compiled(model, dropout)(params, batch, key=key)


def by_bias_alone(params):
    """Both heads answer the same for every state: their bias."""
    norm = {"norm": {"scale": np.zeros(12, np.float32), "bias": np.zeros(12, np.float32)}}
    heads = {"word_head": norm, "region_head": norm}
    return trees.merge(params, {head: heads[head] for head in heads if head in params})


def words_of(rows, params):
    """MLM of these captions where all of their words are hidden: the sum, and the tokens."""
    text = jax.tree.map(np.asarray, BATCH.text)
    tokens = text.token_ids[rows][text.word_ids[rows] >= 0]
    return -log_softmax(params["word_head"]["bias"])[tokens].sum(), len(tokens)


def regions_of(rows, params, image):
    """MRM of these photos where all regions are hidden: the sum, and the regions."""
    outs, terms = params["region_head"]["outs"], []
    classes = 0 if image.class_ids is None else tiny.SPEC.num_classes
    for row, slot in itertools.product(rows, range(image.mask.shape[1] - 1)):
        if not image.mask[row, slot]:
            continue
        if classes and image.class_probs[row, slot].any():
            p = dense(image.class_ids[row, slot], image.class_probs[row, slot], classes)
            terms.append((p * (np.log(p) - log_softmax(outs["classes"]["bias"]))).sum())
        elif "features" in outs:
            wrong = outs["features"]["bias"] - image.features[row, slot]
            terms.append(np.square(wrong).mean())
    return sum(terms), len(terms)


def assert_metric(metric, wanted):
    np.testing.assert_allclose(metric.sum, wanted[0], rtol=1e-4)
    assert metric.count == wanted[1]


ALL_HIDDEN = {"mlm_rate": 1.0, "mrm_rate": 1.0}


@pytest.mark.slow
def test_masked_losses_count_on_matched_pairs_only():
    model = tiny.model(objective={**ALL_HIDDEN, "mismatch": 0.5})
    params = by_bias_alone(tiny.params(model))
    # The first region's classes are unknown: it does not count.
    known = BATCH.image.class_probs.at[0, 0].set(0.0)
    image = dataclasses.replace(BATCH.image, class_probs=known)
    _, terms = computed(model, params, dataclasses.replace(BATCH, image=image))
    image = jax.tree.map(np.asarray, image)
    halves = [list(rows) for rows in itertools.combinations(range(4), 2)]
    [matched] = [
        rows
        for rows in halves
        if np.isclose(terms["mlm"].sum, words_of(rows, params)[0], rtol=1e-4)
    ]
    assert_metric(terms["mlm"], words_of(matched, params))
    assert_metric(terms["mrm"], regions_of(matched, params, image))


@pytest.mark.slow
def test_no_masked_loss_counts_where_no_pair_is_matched():
    model = tiny.model(objective={**ALL_HIDDEN, "mismatch": 1.0})
    loss, terms = computed(model, tiny.params(model))
    assert terms["mlm"].count == terms["mrm"].count == 0
    np.testing.assert_allclose(loss, terms["itm"].mean, rtol=1e-6)


def test_regions_without_classes_regress_the_features_that_were_hidden():
    spec = dataclasses.replace(tiny.SPEC, num_classes=0)
    model = tiny.model(spec=spec, objective={**ALL_HIDDEN, "mismatch": 0.0})
    params = by_bias_alone(tiny.params(model))
    image = dataclasses.replace(BATCH.image, class_ids=None, class_probs=None)
    _, terms = computed(model, params, dataclasses.replace(BATCH, image=image))
    image = jax.tree.map(np.asarray, image)
    assert_metric(terms["mrm"], regions_of(range(4), params, image))


def test_each_region_is_classified_where_its_classes_are_known_and_regressed_where_not():
    spec = dataclasses.replace(tiny.SPEC, unlabelled=True)
    model = tiny.model(spec=spec, objective={**ALL_HIDDEN, "mismatch": 0.0})
    params = by_bias_alone(tiny.params(model))
    probs = BATCH.image.class_probs.at[0, 0].set(0.0).at[3].set(0.0)
    image = dataclasses.replace(BATCH.image, class_probs=probs)
    _, terms = computed(model, params, dataclasses.replace(BATCH, image=image))
    assert_metric(terms["mrm"], regions_of(range(4), params, jax.tree.map(np.asarray, image)))
    assert terms["mrm"].count == 3 + 2 + 1 + 3


def test_text_alone_learns_from_every_caption():
    objective = {"itm": "none", "mrm": 0.0, "mlm": 0.5, "mlm_rate": 1.0}
    model = tiny.model(["text"], family="bert", objective=objective)
    params = by_bias_alone(tiny.params(model))
    loss, terms = computed(model, params)
    assert set(terms) == {"mlm"}
    assert_metric(terms["mlm"], words_of(range(4), params))
    np.testing.assert_allclose(loss, 0.5 * terms["mlm"].mean, rtol=1e-6)


@pytest.mark.slow
def test_masked_losses_of_candidates_are_those_of_the_matched_pairs():
    contrastive = {"itm": "contrastive", "candidates": 2}
    joint, matched = (tiny.model(objective=o) for o in (contrastive, {"mismatch": 0.0}))
    terms = [computed(model, tiny.params(model))[1] for model in (joint, matched)]
    for name in ("mlm", "mrm"):
        assert_metric(terms[0][name], (terms[1][name].sum, terms[1][name].count))


@pytest.mark.parametrize("mismatch", [0.0, 1.0])
def test_classification_by_hand(mismatch):
    model = tiny.model(objective={**NO_MASKING, "mismatch": mismatch})
    params, two = tiny.params(model), jax.tree.map(lambda x: x[:2], BATCH)
    loss, terms = computed(model, params, two)
    # Of two captions, both mismatched, each meets the other's photo.
    image = take(two.image, np.array([0, 1] if mismatch == 0 else [1, 0]))
    log_probs = log_softmax(fused(model, params, two.text, image).logits[0])
    wanted = -log_probs[:, int(mismatch)]
    np.testing.assert_allclose(terms["itm"].sum, wanted.sum(), rtol=1e-4)
    assert terms["itm"].count == 2
    np.testing.assert_allclose(terms["itm_accuracy"].sum, (wanted < math.log(2)).sum())
    np.testing.assert_allclose(loss, wanted.mean(), rtol=1e-4)


def test_hloss_is_the_mean_over_layers():
    model = tiny.model(["single"] * 2, objective={**NO_MASKING, "mismatch": 0.0, "hloss": True})
    params = tiny.params(model)
    loss, _ = computed(model, params)
    logits = fused(model, params, BATCH.text, BATCH.image).logits
    assert logits.shape == (2, 4, 2)
    np.testing.assert_allclose(loss, -log_softmax(logits)[..., 0].mean(), rtol=1e-4)


def all_scores(model, params, batch):
    """[B, B]: each caption with each photo."""
    size = len(batch.image_ids)
    rows, columns = np.repeat(np.arange(size), size), np.tile(np.arange(size), size)
    pairs = fused(model, params, take(batch.text, rows), take(batch.image, columns))
    return np.float64(pairs.scores[-1]).reshape(size, size)


@pytest.mark.parametrize("layers", [("single",), ("merged",)])
def test_contrastive_over_groups_by_hand(layers):
    model = tiny.model(layers, objective={**NO_MASKING, "itm": "contrastive", "candidates": 2})
    params = tiny.params(model)
    batch = dataclasses.replace(BATCH, image_ids=jnp.array([5, 5, 0, 1]))
    loss, terms = computed(model, params, batch)
    # The first group holds one photo twice: nothing to tell apart. The second is as any other.
    scores = all_scores(model, params, batch)
    group = scores[2:, 2:]
    wrong = -np.diag(log_softmax(group)).sum() - np.diag(log_softmax(group.T)).sum()
    np.testing.assert_allclose(terms["itm"].sum, wrong / 2, rtol=1e-4)
    assert terms["itm"].count == terms["itm_accuracy"].count == 4
    right = 2 + (group[0, 0] > group[0, 1]) + (group[1, 1] > group[1, 0])
    assert terms["itm_accuracy"].sum == int(right)
    calibrated = scores * params["calibration"]["scale"] + params["calibration"]["bias"]
    matched = np.log1p(np.exp(-np.diag(calibrated))).mean()
    mismatched = np.log1p(np.exp([calibrated[2, 3], calibrated[3, 2]])).mean()
    np.testing.assert_allclose(terms["calibration_true"].mean, matched, rtol=1e-4)
    np.testing.assert_allclose(terms["calibration_wrong"].mean, mismatched, rtol=1e-4)
    wanted = terms["itm"].mean + (matched + mismatched) / 2
    np.testing.assert_allclose(loss, wanted, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("layers", [("single",), ("merged",), ("coattention", "merged")])
def test_the_gradient_of_a_contrast_is_that_of_pairs_fused_whole(layers):
    """Of pairs that are no more than candidates the score alone is computed, and loses nothing."""
    model = tiny.model(layers, objective={**NO_MASKING, "itm": "contrastive", "candidates": 4})
    params = jax.tree.map(jnp.asarray, tiny.params(model))
    rows, columns = np.repeat(np.arange(4), 4), np.tile(np.arange(4), 4)

    def whole(params):
        text, image = model.encode_text(params, BATCH.text), model.encode_image(params, BATCH.image)
        pairs = model.fuse(params, take(text, rows), take(image, columns), states=True)
        scores = pairs.scores[-1].reshape(4, 4)
        both = jax.nn.log_softmax(scores), jax.nn.log_softmax(scores.T)
        return -sum(jnp.trace(log_probs) for log_probs in both) / 8

    def trained(params):
        return losses.terms(model, params, BATCH, key=KEY, dropout=False)["itm"].mean

    (found, slopes), (wanted, expected) = (
        jax.jit(jax.value_and_grad(f))(params) for f in (trained, whole)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    for path, slope in trees.flatten(slopes).items():
        np.testing.assert_allclose(
            slope, trees.flatten(expected)[path], rtol=1e-4, atol=1e-6, err_msg=path
        )


@pytest.mark.slow
def test_running_every_pair_equals_one_matrix_product():
    objective = {"itm": "contrastive", "candidates": 4}
    product = tiny.model(["single"], objective=objective)
    # A loss after every one of the layers, of which there is one, runs every pair.
    pairs = tiny.model(["single"], objective={**objective, "hloss": True})
    params = tiny.params(product)
    terms = [computed(model, params)[1] for model in (product, pairs)]
    assert set(terms[0]) == {"itm", "itm_accuracy", *CALIBRATION, "mlm", "mrm"}
    for name in terms[0]:
        assert_metric(terms[0][name], (terms[1][name].sum, terms[1][name].count))


def test_calibration_moves_its_two_parameters_and_no_other():
    model = tiny.model(["single"], objective={**NO_MASKING, "itm": "contrastive", "candidates": 4})
    params = jax.tree.map(jnp.asarray, tiny.params(model))

    def calibration(params):
        terms = losses.terms(model, params, BATCH, key=KEY, dropout=False)
        return sum(terms[name].mean for name in CALIBRATION)

    slopes = trees.flatten(jax.jit(jax.grad(calibration))(params))
    moved = {path for path, slope in slopes.items() if np.any(np.asarray(slope) != 0)}
    assert moved == {"calibration/scale", "calibration/bias"}


@pytest.mark.parametrize("itm", ["classification", "contrastive"])
def test_loss_is_the_weighted_sum_of_its_terms(itm):
    weights = {"mlm": 0.5, "mrm": 2.0}
    model = tiny.model(["single"], objective={**weights, "itm": itm, "candidates": 2})
    loss, terms = computed(model, tiny.params(model))
    means = {name: float(term.mean) for name, term in terms.items()}
    assert all(means[name] > 0 for name in ("itm", "mlm", "mrm"))
    wanted = means["itm"] + 0.5 * means["mlm"] + 2 * means["mrm"]
    wanted += sum(means.get(name, 0) for name in CALIBRATION) / 2
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    assert ({*CALIBRATION} <= {*means}) == (itm == "contrastive")


@pytest.mark.slow
def test_loss_is_a_function_of_the_key_and_dropout_of_its_switch():
    model = tiny.model(objective={**NO_MASKING, "mismatch": 0.0}, dropout=0.5)
    params = tiny.params(model)
    off = [computed(model, params, key=jax.random.key(seed))[0] for seed in (0, 1)]
    assert off[0] == off[1]  # nothing else in it is random
    on = [computed(model, params, key=jax.random.key(s), dropout=True)[0] for s in (0, 0, 1)]
    assert on[0] == on[1]
    assert len({float(loss) for loss in (*on, off[0])}) == 3


@pytest.mark.parametrize("layers", [("single",), ("merged",)])
@pytest.mark.parametrize("candidates", [3])
def test_candidates_that_do_not_divide_the_batch_are_refused(layers, candidates):
    model = tiny.model(layers, objective={"itm": "contrastive", "candidates": candidates})
    with pytest.raises(UsageError, match=rf"config\.objective\.candidates={candidates} .*4 pairs"):
        jax.eval_shape(functools.partial(losses.compute, model, key=KEY), model.abstract(), BATCH)
