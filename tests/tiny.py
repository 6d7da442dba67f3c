"""The smallest models and batches that still have every part."""

import zlib

import jax
import numpy as np

from mmt_jax import params as trees
from mmt_jax.configs.config import Config, DataSpec, MMTConfig, ObjectiveConfig, with_spec
from mmt_jax.models import registry
from mmt_jax.typing import Batch, Image, Text

SPEC = DataSpec(feature_dim=6, num_classes=5, vocab_size=29)
SIZES = {
    "width": 12,
    "mlp_dim": 10,
    "heads": 2,
    "head_dim": 3,
    "pooled_dim": 24,
    "max_positions": 16,
    "dropout": 0.1,
}
CLS, SEP, PAD_ID = 3, 4, 6


def model(layers=("merged",), *, objective=(), spec=SPEC, dtype="float32", **sizes):
    """A model with layers of these kinds; `objective` holds fields of ObjectiveConfig."""
    config = Config(
        dtype=dtype,
        model=MMTConfig(layers=tuple(layers), **SIZES | sizes),
        objective=ObjectiveConfig(**dict(objective)),
    )
    return registry.build(with_spec(config, spec))


def params(built, *, seed=0, std=0.4):
    """Parameters far from their initial values, so that no gradient is small by accident."""

    def draw(path, leaf):
        rng = np.random.default_rng([seed, zlib.crc32(path.encode())])
        mean = 1.0 if path.endswith("scale") else 0.0
        return rng.normal(mean, std, leaf.shape).astype(np.float32)

    flat = trees.flatten(built.abstract())
    return trees.unflatten({path: draw(path, leaf) for path, leaf in flat.items()})


def text(words, *, length=None, seed=0):
    """Captions `[pad…] [SEP] w1 … wn [CLS]` of that many one-piece words each, all different."""
    rng = np.random.default_rng(seed)
    length = length or max(words) + 2
    token_ids = np.full((len(words), length), PAD_ID, np.int32)
    word_ids = np.full_like(token_ids, -2)
    segment_ids = np.zeros_like(token_ids)
    for row, count in enumerate(words):
        token_ids[row, length - count - 2 :] = [
            SEP,
            *rng.choice(np.arange(7, SPEC.vocab_size), count, replace=False),
            CLS,
        ]
        word_ids[row, length - count - 2 :] = [-1, *range(count), -1]
    segment_ids[:, -1] = 2
    return Text(token_ids, segment_ids, word_ids, word_ids != -2)


def image(regions, *, slots=None, seed=0, spec=SPEC):
    """Photos of that many regions each, in front of them padding, behind them the global region."""
    rng = np.random.default_rng(seed)
    slots = slots or max(regions) + 1
    shape = (len(regions), slots)
    mask = np.arange(slots) >= slots - 1 - np.array(regions)[:, None]
    corners = np.sort(rng.random((*shape, 2, 2)), axis=2)  # low and high, by axis
    boxes = np.concatenate([corners.reshape(*shape, 4), np.zeros((*shape, 1))], axis=-1)
    boxes[:, -1, :4] = [0, 0, 1, 1]
    boxes[..., 4] = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    features = rng.normal(size=(*shape, spec.feature_dim))
    probs = np.sort(rng.dirichlet(np.ones(4), shape))[..., :0:-1]  # three known, a rest
    ids = np.argsort(rng.random((*shape, max(spec.num_classes, 3))))[..., :3]
    return Image(
        (features * mask[..., None]).astype(np.float32),
        (boxes * mask[..., None]).astype(np.float32),
        mask,
        ids.astype(np.int32) if spec.num_classes else None,
        (probs * mask[..., None]).astype(np.float32) if spec.num_classes else None,
    )


def batch(size=4, *, words=None, regions=None, image_ids=None, spec=SPEC):
    """Matched pairs of different photos unless `image_ids` says otherwise."""
    words = words or [3 + row % 2 for row in range(size)]
    regions = regions or [3 - row % 2 for row in range(size)]
    ids = np.arange(size) if image_ids is None else np.asarray(image_ids)
    host = Batch(text(words), image(regions, spec=spec), ids.astype(np.int32))
    return jax.tree.map(jax.numpy.asarray, host)


def row(folder, **changes):
    """What --config takes: data_cc at pilot scale with other fields, from a file in `folder`."""
    path = folder / "mine.py"
    path.write_text(
        "import dataclasses\n"
        "from mmt_jax.configs import variants\n"
        "from mmt_jax.configs.config import EvalConfig\n"
        "def get_config(arg):\n"
        "    config = variants.parse('data_cc,scale=pilot')\n"
        f"    return dataclasses.replace(config, **{changes!r})\n"
    )
    return f"{path}:x"


def fused(built, params, text, image):
    """Row p of `text` with row p of `image`."""
    return built.fuse(params, built.encode_text(params, text), built.encode_image(params, image))


def compiled(function, *args):
    """`function` for such arguments, traced as strictly as all tests are.

    Where jax makes a program of what was traced, it promotes dtypes in gradients of 16 bits itself.
    """
    traced = jax.jit(function).trace(*args)
    with jax.numpy_dtype_promotion("standard"):
        return traced.lower().compile()
