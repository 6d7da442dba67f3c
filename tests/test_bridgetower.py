"""BridgeTower as a model of ours: what is trained, scored and refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from experiments import bridgetower as experiment
from mmt_jax import params as trees
from mmt_jax.configs.config import Config, DataSpec, ObjectiveConfig, resolve, with_spec
from mmt_jax.configs.models import BridgeTowerConfig
from mmt_jax.data import regions
from mmt_jax.errors import UsageError
from mmt_jax.infer import retrieval
from mmt_jax.infer.predict import Predictor
from mmt_jax.models import registry
from mmt_jax.objectives import losses
from mmt_jax.train import sharding
from mmt_jax.typing import Batch, Text

LETTERS = "abcdefghijklmnopqrstuvwxyz01234567\u0120"  # the last: a blank, for byte-level BPE
VOCABULARY = ["<s>", "<pad>", "</s>", "<unk>", *LETTERS, "<mask>"]
PAD = 1
PATCH, SIDE, TOKENS = 4, 3, 8


def captions(lengths, *, slots=TOKENS):
    """`<s> … </s> <pad> …` of that many tokens each, one word a token."""
    rng, columns = np.random.default_rng(1), np.arange(slots)
    last = np.array(lengths)[:, None] - 1
    mask = columns <= last
    ids = rng.integers(PAD + 3, len(VOCABULARY) - 1, mask.shape, np.int32)
    ids = np.where(columns == 0, 0, np.where(columns == last, 2, np.where(mask, ids, PAD)))
    words = np.where(mask & (columns > 0) & (columns < last), columns - 1, np.where(mask, -1, -2))
    return Text(ids, np.zeros_like(ids), words, mask)


def photos(count, *, side=SIDE):
    return np.random.default_rng(2).random((count, side * PATCH, side * PATCH, 3), np.float32)


def patches(pixels):
    return regions.pixel_image(pixels, PATCH, global_region=False)


def model(*, itm="classification", mlm=1.0, mrm=1.0, dtype="float32", **sizes):
    """A model of ours, of other sizes than its towers."""
    sizes = {
        "width": 12,
        "heads": 2,
        "mlp_dim": 10,
        "cross_layers": 2,
        "tower_layers": 2,
        "text_width": 8,
        "text_heads": 2,
        "text_mlp_dim": 9,
        "image_width": 16,
        "image_heads": 4,
        "image_size": PATCH * SIDE,
        "patch_size": PATCH,
        "max_positions": TOKENS,
        "itc_dim": 6,
        "vocab_size": len(VOCABULARY),
        "mask_id": len(VOCABULARY) - 1,
        "pad_id": PAD,
        "feature_dim": 3 * PATCH**2,
        "num_classes": 0,
    } | sizes
    objective = ObjectiveConfig(itm=itm, mlm=mlm, mrm=mrm, candidates=2)
    config = Config(model=BridgeTowerConfig(**sizes), objective=objective, dtype=dtype)
    return registry.build(config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("heads", "base", "large"),
    [
        ({}, 326_347_008, 864_514_048),
        ({"itm": "classification"}, 326_350_082, 864_518_146),
        ({"mlm": 1.0}, 365_592_921, 917_087_321),
        ({"itc": "huggingface", "itc_dim": 512}, 327_921_409, 866_612_737),
    ],
)
def test_published_sizes_have_the_published_number_of_parameters(heads, base, large):
    for name, count in (("base", base), ("large", large)):
        run = resolve(experiment.get_config(name))
        contrast = {field: value for field, value in heads.items() if field.startswith("itc")}
        others = {"itm": "none", "mlm": 0.0, "mrm": 0.0} | heads
        run = dataclasses.replace(
            run,
            model=dataclasses.replace(run.model, **contrast),
            objective=ObjectiveConfig(**{k: v for k, v in others.items() if k not in contrast}),
        )
        spec = DataSpec(3 * run.model.patch_size**2, 0, vocab_size=50265, pad_id=1)
        shapes = registry.build(with_spec(run, spec)).abstract()
        ours = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        never_called = run.model.width * (run.model.width + 1)  # the text tower's own pooler
        assert ours + never_called == count


OBJECTIVES = {
    "classification": {},
    "contrastive": {"itm": "contrastive", "mrm": 0.0},
    "scaled": {"mlm": 0.0, "link": "scaled_add", "shared_transforms": False},
    "tied": {"mrm": 0.0, "link": "interpolate", "tied_words": True, "text_width": 12},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_parameter_is_trained(name):
    built = model(**OBJECTIVES[name])
    params = tiny.params(built)
    batch = Batch(captions([8, 6, 8, 7]), patches(photos(4)), np.arange(4, dtype=np.int32))
    batch = jax.tree.map(jnp.asarray, batch)

    def loss(params):
        return losses.compute(built, params, batch, key=jax.random.key(1), dropout=False)[0]

    grads = trees.flatten(jax.jit(jax.grad(loss))(params))
    still = {path for path, grad in grads.items() if not np.any(np.abs(grad) > 1e-7)}
    assert {path for path in still if not path.endswith("key/bias")} == set()
    assert sharding.of_params(params, built.config, sharding.mesh(built.config))


@pytest.mark.slow
def test_towers_alone_are_contrasted_in_the_paper():
    built = model(itm="none", mlm=0.0, mrm=0.0, itc="paper")
    params = tiny.params(built)
    text, image = captions([8, 5]), patches(photos(2))

    def embeddings(params):
        encoded = built.encode_text(params, text), built.encode_image(params, image)
        return built.embed_text(params, encoded[0]), built.embed_image(params, encoded[1])

    ours = jax.jit(embeddings)(params)
    states = np.asarray(built.apply(params, built.network.text_states, text)[-1])
    cls = np.asarray(built.apply(params, built.network.image_states, image)[-1][:, 0])
    cls = (cls - cls.mean(-1, keepdims=True)) / np.sqrt(cls.var(-1, keepdims=True) + 1e-5)
    weights = jax.device_get(params)
    norm = weights["image"]["last_norm"]
    for found, state, head in zip(
        ours, (states[:, 0], cls * norm["scale"] + norm["bias"]), ("text", "image")
    ):
        dense = weights["contrast_head"][head]
        expected = state @ dense["kernel"] + dense["bias"]
        expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert built.embeds
    assert not built.separable
    scores = Predictor(built, params).score(text, image)
    np.testing.assert_allclose(scores, ours[0] @ ours[1].T, atol=1e-5)
    with pytest.raises(UsageError, match="has no head that scores pairs jointly"):
        retrieval.evaluate(built, params, None, rerank=1)
    reached = jax.jit(jax.grad(lambda p: (embeddings(p)[0] @ embeddings(p)[1].T)[0, 0]))(params)
    crossed = {path: grad for path, grad in trees.flatten(reached).items() if "cross" in path}
    assert crossed
    assert not any(np.any(grad) for grad in crossed.values())


@pytest.mark.parametrize(
    ("itc", "scale", "expected"),
    [
        ("paper", np.log(10), 10),
        ("paper", np.log(5000), 1000),  # a temperature of 0.001 at least
        ("paper", np.log(0.1), 2),  # and 0.5 at most
        ("huggingface", np.log(5000), 5000),
    ],
)
def test_the_scale_of_the_contrast(itc, scale, expected):
    built = model(itc=itc)
    params = trees.merge(tiny.params(built), {"contrast_head": {"log_scale": jnp.float32(scale)}})
    found = built.apply(params, lambda network: network.contrast_head.scale())
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def scores(built, params, text, pixels):
    encoded = built.encode_text(params, text), built.encode_image(params, patches(pixels))
    return built.fuse(params, *encoded).scores[-1]


@pytest.mark.slow
def test_every_caption_is_scored_with_every_photo():
    built = model()
    params, text, pixels = tiny.params(built, std=0.2), captions([8, 3, 5]), photos(2)
    found = Predictor(built, params).score(text, patches(pixels), pairs=2)
    run = jax.jit(functools.partial(scores, built))
    for row in range(3):
        pair = jax.tree.map(lambda x, row=row: x[[row, row]], text)
        np.testing.assert_allclose(found[row], run(params, pair, pixels), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_of_training_is_finite(dtype):
    built = model(dtype=dtype)
    params = built.init(jax.random.key(0))
    batch = Batch(captions([8, 6, 8, 7]), patches(photos(4)), np.arange(4, dtype=np.int32))
    batch = jax.tree.map(jnp.asarray, batch)
    run = jax.value_and_grad(lambda p, key: losses.compute(built, p, batch, key=key)[0])
    run = tiny.compiled(run, params, jax.random.key(1))
    (value, grads), (again, _) = (run(params, jax.random.key(seed)) for seed in (1, 2))
    assert value.dtype == jnp.float32
    assert np.isfinite([value, again]).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert not np.isclose(value, again, atol=1e-6)  # other words, pairs and dropout


@pytest.mark.slow
def test_padding_behind_a_caption_changes_nothing():
    built = model()
    params, pixels = tiny.params(built, std=0.2), photos(2)
    run = jax.jit(functools.partial(scores, built))
    short = captions([5, 3], slots=5)
    columns = (short.token_ids, short.segment_ids, short.word_ids, short.mask)
    padded = Text(
        *(
            np.pad(x, ((0, 0), (0, 3)), constant_values=fill)
            for x, fill in zip(columns, (PAD, 0, -2, False))
        )
    )
    np.testing.assert_allclose(run(params, short, pixels), run(params, padded, pixels), atol=1e-5)


@pytest.mark.slow
def test_photos_of_another_size_are_read():
    built = model()
    params, text = tiny.params(built, std=0.2), captions([5, 3])
    run = jax.jit(functools.partial(scores, built))
    small = photos(2, side=2)
    large = np.repeat(np.repeat(small, 2, axis=1), 2, axis=2)
    found = [run(params, text, pixels) for pixels in (small, large)]
    assert found[0].shape == found[1].shape == (2,)
    assert not np.allclose(*found)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"link": "concat"}, "link='concat' is unknown; there are add, scaled_add, interpolate"),
        ({"itc": "clip"}, "itc='clip' is unknown"),
        ({"text_heads": 3}, "text_width is 8; it must be a multiple of config.model.text_heads, 3"),
        ({"image_size": 10}, "image_size is 10; it must be a multiple of .*patch_size, 4"),
        (
            {"cross_layers": 3},
            "cross_layers is 3; it must be from 1 to config.model.tower_layers, 2",
        ),
        ({"tied_words": True}, "tied_words needs config.model.text_width=8 to be .*width=12"),
    ],
)
def test_what_cannot_be_built_is_told(sizes, message):
    with pytest.raises(UsageError, match=message):
        model(**sizes)


@pytest.mark.parametrize("scale", experiment.DEPTHS)
@pytest.mark.parametrize("name", experiment.MODELS)
def test_experiments_are_of_models_that_can_be_built(name, scale):
    run = resolve(experiment.get_config(f"{name},scale={scale}"))
    spec = DataSpec(3 * run.model.patch_size**2, 0, vocab_size=200)
    shapes = registry.build(with_spec(run, spec)).abstract()
    assert sharding.of_params(shapes, run, sharding.mesh(run))
    assert not trees.unmatched([p for p, _ in run.optim.lr_table], trees.flatten(shapes))


def test_an_experiment_that_there_is_not():
    with pytest.raises(UsageError, match="'huge,scale=tiny' is no config of BridgeTower; write"):
        experiment.get_config("huge,scale=tiny")
