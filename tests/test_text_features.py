"""What a frozen text encoder makes of captions: once, apart from the step, and without dropout."""

import dataclasses

import jax
import numpy as np
import pytest

from mmt_jax import params as trees
from mmt_jax.configs.config import (
    Config,
    DataConfig,
    MMTConfig,
    ObjectiveConfig,
    OptimConfig,
    with_spec,
)
from mmt_jax.configs.models import TernConfig
from mmt_jax.models import registry
from mmt_jax.objectives import losses
from mmt_jax.train import loop, text_features
from mmt_jax.train.checkpoint import load
from mmt_jax.train.run import prepare
from tests import tiny

CONTRAST = ObjectiveConfig(itm="contrastive", candidates=4, mlm=0.0, mrm=0.0)
TWO_WAY = ObjectiveConfig(mlm=0.0)  # and masked regions
WHOLE = (r"text/.*", r"streams/layers/\d+/text/.*")
BELOW = (r"text/.*", r"streams/layers/[01]/text/.*")
STREAMS = MMTConfig(**tiny.SIZES | {"max_positions": 32})
TERN = TernConfig(
    width=12,
    heads=2,
    mlp_dim=10,
    shared_layers=1,
    text_width=8,
    text_heads=2,
    text_mlp_dim=10,
    text_layers=2,
    image_width=12,
    image_heads=2,
    image_mlp_dim=10,
    image_layers=1,
    max_positions=32,
    dropout=0.1,
)


def streams(**fields):
    return dataclasses.replace(STREAMS, **fields)


# A model, and what is frozen of it.
MODELS = {
    "towers": (
        streams(
            family="two_tower",
            layers=("text", "image"),
            cosine=True,
            pooling="mean+cls+words",
            text_dropout=0.3,
        ),
        WHOLE,
    ),
    "apart": (streams(layers=("text", "single")), WHOLE),
    "merged": (
        streams(layers=("text", "single", "merged")),
        BELOW,
    ),
    "coattention": (
        streams(layers=("single", "text", "coattention")),
        BELOW,
    ),
    "tern": (TERN, (r"text/.*",)),
    "kaylode": (
        dataclasses.replace(TERN, reading="kaylode", shared_layers=0),
        (r"text/.*",),
    ),
}
TRAINING = Config(
    steps=3,
    batch_size=8,
    mesh=(("data", 1), ("model", 1)),
    checkpoint_every=9,
    objective=dataclasses.replace(CONTRAST, candidates=8),
    data=DataConfig(
        source="scenes@1/cc",
        size=16,
        vocab_size=120,
        text_length=12,
        max_regions=4,
        buckets=((8, 4),),
    ),
    optim=OptimConfig(lr=0.01, schedule="constant", warmup_steps=0, eps=1e-3),
)


def config(name, **fields):
    model, freeze = MODELS[name]
    optim = dataclasses.replace(TRAINING.optim, freeze=freeze)
    return dataclasses.replace(TRAINING, **{"model": model, "optim": optim} | fields)


def built(name, **fields):
    made = config(name, **{"objective": CONTRAST} | fields)
    return registry.build(with_spec(made, tiny.SPEC))


def pairs(name):
    """Captions of several lengths; TERN's begin with [CLS], end with padding and have a segment."""
    batch = tiny.batch(4, words=[3, 5, 2, 4])
    if isinstance(MODELS[name][0], TernConfig):
        text = jax.tree.map(lambda leaf: leaf[:, ::-1], batch.text)
        text = dataclasses.replace(text, segment_ids=text.segment_ids * 0)
        batch = dataclasses.replace(batch, text=text)
    return batch


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "objective"),
    [
        *((name, CONTRAST) for name in MODELS),
        *((name, TWO_WAY) for name in ("apart", "merged", "coattention")),
    ],
)
def test_features_in_place_of_tokens_give_the_same_loss_and_gradient(name, objective):
    still = dataclasses.replace(config(name).model, dropout=0.0)
    model = built(name, model=still, objective=objective)
    params = jax.tree.map(jax.numpy.asarray, tiny.params(model))
    batch = pairs(name)
    known = text_features.given(model, params, batch)
    blank = dataclasses.replace(known.text, token_ids=known.text.token_ids * 0)
    known = dataclasses.replace(known, text=blank)

    @jax.jit
    @jax.value_and_grad
    def loss(params, batch):
        return losses.compute(model, params, batch, key=jax.random.key(3))[0]

    (wanted, gradient), (found, other) = loss(params, batch), loss(params, known)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    gradient, other = trees.flatten(gradient), trees.flatten(other)
    own = trees.lookup([(model.network.remembered(model.config), True)], gradient, False)
    assert any(np.abs(gradient[path]).max() > 0 for path in gradient if own[path])
    for path in gradient:
        wanted = 0.0 if own[path] else gradient[path]
        np.testing.assert_allclose(other[path], wanted, rtol=1e-4, atol=1e-5, err_msg=path)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_frozen_is_read_without_dropout_and_the_rest_with_it(name):
    model = built(name)
    params, batch = tiny.params(model), pairs(name)
    known = text_features.given(model, params, batch).text
    one, two, none = (
        model.encode_text(params, text, key=key)
        for text, key in ((known, jax.random.key(1)), (known, jax.random.key(2)), (known, None))
    )
    plain = model.encode_text(params, batch.text)
    one, two, none, plain = (
        np.asarray(item.heads[0] if item.heads else item.states) for item in (one, two, none, plain)
    )
    np.testing.assert_allclose(none, plain, atol=1e-5)
    drops = name in ("towers", "tern")  # of what is trained, before pairs meet
    assert np.array_equal(one, two) != drops


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("merged", {"freeze": (r"text/.*", r"streams/layers/0/text/.*")}),  # one layer learns
        ("towers", {"freeze": (r"text/.*",)}),
        ("tern", {"freeze": (r"text/embed/.*",)}),
        ("merged", {"objective": dataclasses.replace(CONTRAST, mlm=1.0)}),  # words are hidden
        ("tern", {"objective": dataclasses.replace(CONTRAST, mlm=1.0)}),
        ("merged", {"model": streams(layers=("text", "image_query_self", "merged"))}),
        ("merged", {"model": streams(layers=("merged",)), "freeze": (r"text/.*",)}),
        ("merged", {"model": streams(layers=("text",) * 12, family="two_tower"), "freeze": BELOW}),
    ],
)
def test_what_is_not_frozen_whole_or_read_otherwise_is_computed_in_the_step(name, changes):
    changed = config(name, objective=CONTRAST)
    if freeze := changes.pop("freeze", ()):
        changed = dataclasses.replace(
            changed, optim=dataclasses.replace(changed.optim, freeze=freeze)
        )
    model = registry.build(with_spec(dataclasses.replace(changed, **changes), tiny.SPEC))
    assert text_features.extracts(built(name))
    assert not text_features.extracts(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["towers", "merged", "tern"])
def test_captions_encoded_once_train_as_those_encoded_in_each_step(tmp_path, monkeypatch, name):
    assert prepare(config(name), tmp_path / "once").remembers
    loop.train(config(name), tmp_path / "once", progress=False)
    monkeypatch.setattr(text_features, "_MOST", 1000)
    assert not prepare(config(name), tmp_path / "always").remembers
    loop.train(config(name), tmp_path / "always", progress=False)
    found, wanted = (trees.flatten(load(tmp_path / f).params) for f in ("once", "always"))
    for path in wanted:
        np.testing.assert_allclose(found[path], wanted[path], atol=2e-5, err_msg=path)
