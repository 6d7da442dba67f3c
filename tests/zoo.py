"""One small model of every family, with a batch that it trains on."""

import dataclasses

import jax
import numpy as np
import tiny

from mmt_jax.configs import models as sizes
from mmt_jax.configs.config import Config, ObjectiveConfig
from mmt_jax.data import regions
from mmt_jax.models import registry
from mmt_jax.typing import Batch, Text

VOCAB, PAD, MASK = 31, 1, 30
PATCH, SIDE = 4, 2
DATA = {"vocab_size": VOCAB, "pad_id": PAD, "mask_id": MASK, "max_positions": 12}
REGIONS = DATA | {"feature_dim": tiny.SPEC.feature_dim, "num_classes": tiny.SPEC.num_classes}
PIXELS = DATA | {"feature_dim": 3 * PATCH**2, "num_classes": 0}
BODY = {"width": 12, "heads": 2, "mlp_dim": 10}
TOWERS = {"text_width": 8, "text_heads": 2, "text_mlp_dim": 9, "image_width": 16, "image_heads": 4}
PHOTO = {"image_size": PATCH * SIDE, "patch_size": PATCH}
TWO_TOWER = {"itm": "contrastive", "candidates": 4, "mlm": 0.0, "mrm": 0.0}

# Family → its sizes and its objective; layers and depths are added by `config`.
FAMILIES = {
    "mmt": (sizes.MMTConfig(**BODY, **REGIONS, head_dim=3, pooled_dim=8), {}),
    "two_tower": (
        sizes.MMTConfig(family="two_tower", **BODY, **REGIONS, head_dim=3, pooled_dim=8),
        TWO_TOWER,
    ),
    "bert": (
        sizes.MMTConfig(family="bert", **BODY, **DATA, head_dim=3, feature_dim=0, num_classes=0),
        {"itm": "none", "mrm": 0.0},
    ),
    "lxmert": (sizes.LxmertConfig(**BODY, **REGIONS), {}),
    "bridgetower": (
        sizes.BridgeTowerConfig(**BODY, **PIXELS, **TOWERS, **PHOTO, itc="paper", itc_dim=6),
        {},
    ),
    "tern": (
        sizes.TernConfig(**BODY, **REGIONS, **TOWERS, image_mlp_dim=9),
        {"itm": "contrastive", "candidates": 4},
    ),
    "roberta": (
        sizes.RobertaConfig(**BODY, **DATA, feature_dim=0, num_classes=0),
        {"itm": "none", "mrm": 0.0},
    ),
    "clip": (
        sizes.ClipConfig(**PIXELS, **TOWERS, **PHOTO, width=12, image_mlp_dim=9),
        TWO_TOWER,
    ),
}
LAYERS = {
    "mmt": lambda depth: ("text",) + ("merged",) * depth,
    "two_tower": lambda depth: ("text",) * depth + ("image",) * depth,
    "bert": lambda depth: ("text",) * depth,
}
DEPTHS = {
    "lxmert": ("language_layers", "region_layers", "cross_layers"),
    "bridgetower": ("tower_layers", "cross_layers"),
    "tern": ("text_layers", "image_layers", "shared_layers"),
    "roberta": ("text_layers",),
    "clip": ("text_layers", "image_layers"),
}


def config(family, *, depth=1, objective=None, model=None, **run):
    """A run of that family; `objective`, `model` and `run` change fields."""
    own, losses = FAMILIES[family]
    depths = (
        {"layers": LAYERS[family](depth)}
        if family in LAYERS
        else dict.fromkeys(DEPTHS[family], depth)
    )
    return Config(
        model=dataclasses.replace(own, **{"dropout": 0.0} | depths | (model or {})),
        objective=ObjectiveConfig(**losses | (objective or {})),
        **run,
    )


def build(family, **changes):
    """The model of `config`."""
    return registry.build(config(family, **changes))


def captions(words, *, layout, seed=0, length=9):
    """Captions of that many words each, in a family's layout."""
    rng = np.random.default_rng(seed)
    if layout == "release":
        text = tiny.text(words, length=length, seed=seed)
        return dataclasses.replace(text, token_ids=np.minimum(text.token_ids, VOCAB - 2))
    columns, last = np.arange(length), np.array(words)[:, None] + 1
    mask = columns <= last
    ids = rng.integers(4, MASK, mask.shape, np.int32)
    ids = np.where(columns == 0, 0, np.where(columns == last, 2, np.where(mask, ids, PAD)))
    inside = mask & (columns > 0) & (columns < last)
    word_ids = np.where(inside, columns - 1, np.where(mask, -1, -2)).astype(np.int32)
    return Text(ids.astype(np.int32), np.zeros_like(ids), word_ids, mask)


def batch(model, *, words=(1, 6, 2, 5), seed=0):
    """Captions of very different lengths, each with a photo of its own where photos are read."""
    family, size = model.config.model, len(words)
    rng = np.random.default_rng(seed)
    if not family.feature_dim:
        image = None
    elif family.pixels:
        photos = rng.random((size, SIDE * PATCH, SIDE * PATCH, 3), np.float32)
        image = regions.pixel_image(photos, PATCH, global_region=False)
    else:
        image = tiny.image([1 + row % 3 for row in range(size)], seed=seed)
    text = captions(words, layout=family.layout, seed=seed)
    host = Batch(text, image, np.arange(size, dtype=np.int32))
    return jax.tree.map(jax.numpy.asarray, host)
