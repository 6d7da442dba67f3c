"""Losses on embeddings as objectives: of two towers, and beside a joint score."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from mmt_jax import params as trees
from mmt_jax.configs.config import LOSSES, Config, ObjectiveConfig, with_spec
from mmt_jax.configs.models import BridgeTowerConfig, LxmertConfig, TernConfig
from mmt_jax.errors import UsageError
from mmt_jax.models import registry
from mmt_jax.objectives import embedding, losses

KEY = jax.random.key(3)
# Captions 1 and 3 describe one photo.
BATCH = tiny.batch(4, image_ids=[5, 8, 0, 8])
WRONG = np.array([[0, 1, 1, 1], [1, 0, 1, 0], [1, 1, 0, 1], [1, 0, 1, 0]], bool)
CONTRASTIVE = {"itm": "contrastive", "candidates": 4, "mlm": 0.0, "mrm": 0.0}
SMALL = {"heads": 2, "mlp_dim": 10, "max_positions": 16, "width": 12}
LXMERT = LxmertConfig(**SMALL, language_layers=1, region_layers=1, cross_layers=1)
TERN = TernConfig(
    **SMALL,
    text_width=8,
    text_heads=2,
    text_mlp_dim=9,
    text_layers=1,
    image_width=12,
    image_heads=2,
    image_mlp_dim=9,
    image_layers=1,
    shared_layers=1,
)
BRIDGETOWER = BridgeTowerConfig(
    **SMALL,
    cross_layers=1,
    tower_layers=1,
    text_width=8,
    text_heads=2,
    text_mlp_dim=9,
    image_width=16,
    image_heads=4,
    image_size=4,
    patch_size=2,
    itc_dim=6,
)


def two_tower(**objective):
    return tiny.model(["single"], family="two_tower", objective=CONTRASTIVE | objective)


def of(model, spec=tiny.SPEC, **objective):
    config = Config(model=model, objective=ObjectiveConfig(**objective))
    return registry.build(with_spec(config, spec))


def trained(model, batch=BATCH):
    """The loss, its terms, its gradient by parameter, and the parameters."""
    params = jax.tree.map(jnp.asarray, tiny.params(model))
    compute = functools.partial(losses.compute, model, dropout=False)
    run = jax.jit(jax.value_and_grad(compute, has_aux=True))
    (loss, terms), slopes = run(params, batch, key=KEY)
    return loss, terms, trees.flatten(slopes), params


def embeddings(model, params, batch=BATCH):
    @jax.jit
    def both(params):
        text, image = (
            model.encode_text(params, batch.text),
            model.encode_image(params, batch.image),
        )
        return model.embed_text(params, text), model.embed_image(params, image)

    return both(params)


def log_softmax(x, allowed, axis):
    x = np.where(allowed, np.float64(x), -np.inf)
    return x - np.log(np.exp(x).sum(axis, keepdims=True))


# ---- In place of the softmax ---------------------------------------------------------------------


def test_every_loss_on_embeddings_has_its_name_in_the_config():
    assert set(LOSSES) == {"softmax", *embedding.LOSSES}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(embedding.LOSSES))
def test_two_towers_learn_by_it(name):
    model = two_tower(loss=name)
    loss, terms, slopes, params = trained(model)
    wanted = embedding.LOSSES[name](*embeddings(model, params), BATCH.image_ids)
    for term, metric in wanted.items():
        assert metric.mean > 0
        np.testing.assert_allclose(terms[term].mean, metric.mean, rtol=1e-4)
    calibration = [terms[f"calibration_{which}"].mean for which in ("true", "wrong")]
    expected = sum(metric.mean for metric in wanted.values()) + np.mean(calibration)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    assert all(np.isfinite(slope).all() for slope in slopes.values())
    for part in ("pool_text/kernel", "pool_image/kernel"):
        assert np.any(slopes[part] != 0)


@pytest.mark.slow
@pytest.mark.parametrize("margin", [None, 0.5])
def test_hinge_by_hand_of_the_whole_batch(margin):
    """Candidates cut the batch for the accuracy alone."""
    model = two_tower(loss="hinge", candidates=2, margin=margin)
    _, terms, _, params = trained(model)
    text, image = embeddings(model, params)
    scores = np.float64(text) @ np.float64(image).T
    true = np.diag(scores)
    margin = margin or 0.2  # VSE++'s
    of_captions = np.where(WRONG, np.maximum(0, margin + scores - true[:, None]), 0).max(axis=1)
    of_photos = np.where(WRONG, np.maximum(0, margin + scores - true[None]), 0).max(axis=0)
    np.testing.assert_allclose(terms["itm"].mean, (of_captions + of_photos).mean(), rtol=1e-4)
    right = (scores[0, 0] > scores[0, 1], scores[1, 1] > scores[1, 0])
    right += (scores[2, 2] > scores[2, 3], scores[3, 3] > scores[3, 2])
    assert terms["itm_accuracy"].sum == int(sum(right))


def test_an_unknown_loss_is_refused_with_the_names_there_are():
    with pytest.raises(UsageError, match=r"config\.objective\.loss='hing' .* hinge, hinge_sum"):
        two_tower(loss="hing")
    with pytest.raises(UsageError, match="temperature is no setting of the loss 'hinge', which ha"):
        two_tower(loss="hinge", temperature=0.1)


@pytest.mark.parametrize(
    ("model", "objective"),
    [
        (["merged"], {}),  # a joint score
        (["single"], {"itm": "classification"}),
        (["single"], {"hloss": True}),
    ],
)
def test_a_loss_on_embeddings_is_refused_where_they_are_not_the_score(model, objective):
    with pytest.raises(UsageError, match=r"config\.objective\.loss='triplet' .*embeddings"):
        tiny.model(model, objective=CONTRASTIVE | {"loss": "triplet"} | objective)


# ---- Beside a joint score ------------------------------------------------------------------------


PIXELS = dataclasses.replace(tiny.SPEC, feature_dim=12, num_classes=0, unlabelled=True)
PHOTOS = tiny.batch(4, image_ids=[5, 8, 0, 8], spec=PIXELS)


@pytest.mark.slow
def test_image_text_contrast_by_hand():
    contrasted = dataclasses.replace(BRIDGETOWER, itc="paper")
    model = of(contrasted, PIXELS, mlm=0.0, mrm=0.0, itc=0.5)
    loss, terms, slopes, params = trained(model, PHOTOS)
    text, image = embeddings(model, params, PHOTOS)
    scale = np.clip(np.exp(params["contrast_head"]["log_scale"]), 2, 1000)
    scores = scale * np.float64(text) @ np.float64(image).T
    # The second and the last show one photo: each is half right for the other.
    right = np.array([[1, 0, 0, 0], [0, 0.5, 0, 0.5], [0, 0, 1, 0], [0, 0.5, 0, 0.5]])
    everything = np.ones((4, 4), bool)
    found = [right * log_softmax(scores, everything, axis) for axis in (0, 1)]
    np.testing.assert_allclose(terms["itc"].mean, -np.sum(found) / 8, rtol=1e-4)
    np.testing.assert_allclose(loss, terms["itm"].mean + 0.5 * terms["itc"].mean, rtol=1e-5)
    for part in ("text/kernel", "image/kernel"):
        assert np.any(slopes[f"contrast_head/{part}"] != 0)


@pytest.mark.parametrize(("head", "weight"), [("paper", 0.0), ("none", 1.0)])
def test_there_is_no_contrast_without_its_weight_or_its_head(head, weight):
    model = of(dataclasses.replace(BRIDGETOWER, itc=head), PIXELS, mlm=0.0, mrm=0.0, itc=weight)
    compute = functools.partial(losses.compute, model, key=KEY)
    _, terms = jax.eval_shape(compute, model.abstract(), PHOTOS)
    assert set(terms) == {"itm", "itm_accuracy"}


# ---- MRM where no region, or not every region, has classes ---------------------------------------

FEATURE_BIASES = ("region_head/outs/features/bias",)


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [0, 5])
@pytest.mark.parametrize("family", [LXMERT, TERN, BRIDGETOWER], ids=lambda model: model.family)
def test_regions_without_classes_are_regressed(family, num_classes):
    spec = dataclasses.replace(PIXELS, num_classes=num_classes)
    itm = {"itm": "contrastive", "candidates": 2, "mlm": 0.0, "mrm_rate": 1.0}
    model = of(family, spec, **itm)
    batch = tiny.batch(4, spec=spec)
    if num_classes:
        unknown = jnp.zeros_like(batch.image.class_probs)
        image = dataclasses.replace(batch.image, class_probs=unknown)
        batch = dataclasses.replace(batch, image=image)
    text = dataclasses.replace(batch.text, segment_ids=jnp.zeros_like(batch.text.segment_ids))
    loss, terms, slopes, _ = trained(model, dataclasses.replace(batch, text=text))
    assert np.isfinite(loss)
    assert terms["mrm"].count == int(batch.image.mask.sum())
    [out] = [slope for path, slope in slopes.items() if path in FEATURE_BIASES]
    assert np.all(out[-spec.feature_dim :] != 0)
    assert not np.any(out[: -spec.feature_dim])  # classes, which nothing is known of
