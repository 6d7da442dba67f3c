"""Models of a few thousand weights, and photos and captions for them."""

import functools

import jax
import numpy as np

from mmt_jax import params as params_lib
from mmt_jax.configs.config import Config, DataConfig, MMTConfig, ObjectiveConfig
from mmt_jax.data import schema
from mmt_jax.infer.export import signature
from mmt_jax.models import registry
from mmt_jax.text import vocabulary
from mmt_jax.train import checkpoint
from mmt_jax.train import state as states
from mmt_jax.train import workdir as workdirs

FEATURE_DIM = 6
PATCH = 2
LENGTH = 16  # T
MAX_REGIONS = 5
CAPTIONS = ("a red cube", "two green balls", "a cube left of a ball", "a blue ball")

TOKENIZER = vocabulary.train(CAPTIONS * 4, 90)


def config(layers, *, family="mmt", itm="classification", pixels=False, **model):
    return Config(
        model=MMTConfig(
            family=family,
            width=16,
            mlp_dim=32,
            heads=2,
            head_dim=8,
            layers=layers,
            pooled_dim=8,
            max_positions=32,
            pixels=pixels,
            patch_size=PATCH,
            feature_dim=3 * PATCH**2 if pixels else FEATURE_DIM,
            num_classes=0,
            vocab_size=TOKENIZER.vocab_size,
            **model,
        ),
        objective=ObjectiveConfig(itm=itm, mrm=float(family not in ("bert", "roberta"))),
        data=DataConfig(text_length=LENGTH, max_regions=MAX_REGIONS),
    )


def build(config):
    """The model, and random parameters that are large enough for pairs to differ."""
    model = registry.build(config)
    rng = np.random.default_rng(0)
    flat = params_lib.flatten(model.abstract())
    return model, params_lib.unflatten(
        {
            path: path.endswith("/scale") + 0.5 * rng.standard_normal(leaf.shape, np.float32)
            for path, leaf in flat.items()
        }
    )


def make_workdir(folder, config, *, metrics=None):
    """What `mmt train` leaves behind, with the weights of `build`."""
    _, params = build(config)
    workdirs.write_config(folder, config)
    (folder / vocabulary.VOCABULARY).write_bytes(TOKENIZER.model)
    checkpoints = checkpoint.Checkpoints(folder, config)
    state = states.State(np.array(3, np.int32), params, {})
    checkpoints.save(state, 3, position={}, metrics=metrics or {})
    checkpoints.close()
    return folder


def record(regions, *, seed=0, padding=0):
    """One photo: `regions` and the global one, behind `padding` slots."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 0.5, (regions + 1, 2))
    high = low + rng.uniform(0.1, 0.5, low.shape)
    boxes = np.concatenate([low, high, (high - low).prod(axis=1, keepdims=True)], axis=1)
    boxes[-1] = 0, 0, 1, 1, 1
    features = rng.standard_normal((regions + 1, FEATURE_DIM), np.float32)
    return {
        schema.BOXES: np.pad(boxes.astype(np.float32), ((padding, 0), (0, 0))),
        schema.FEATURES: np.pad(features, ((padding, 0), (0, 0))),
        schema.IMAGE_PADDING: np.repeat(np.array([1, 0], np.int32), [padding, regions + 1]),
    }


def pixels(height, width, *, seed=0):
    rng = np.random.default_rng(seed)
    return {schema.PIXELS: rng.random((height, width, 3), np.float32)}


def batch(records, captions, *, length=LENGTH):
    """The signature's keys for pairs; records of one size."""
    texts = schema.from_text(TOKENIZER.texts(captions, length=length))
    return {key: np.stack([r[key] for r in records]) for key in records[0]} | texts


def probability(model, params, inputs):
    """Match probabilities [B] of pairs, computed from the model alone."""
    return np.asarray(_probability(model, params, inputs))


@functools.partial(jax.jit, static_argnums=0)
def _probability(model, params, inputs):
    text = model.encode_text(params, schema.to_text(inputs))
    image = model.encode_image(params, signature.image(model.config, inputs))
    return jax.nn.softmax(model.fuse(params, text, image).logits[-1])[:, 0]
