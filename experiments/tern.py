"""TERN (Messina et al., 2020) and its re-implementation kaylode/tern, each with its own loss.

  mmt train --config=tern:original,scale=tiny --workdir=work/tern
  mmt train --config=tern:original --workdir=work/tern \
    --config.data.source=regions:FOLDER --config.init_from=WORKDIR

config.objective.loss=softmax is the study's contrast in their place, over cosines as they are;
nt_xent has a temperature, and learns faster. scale=full has the published sizes and optimisers,
which start from a BERT or from TERN's own weights (`mmt import`); tiny has each width divided by
eight and half of the layers, and pilot one layer of each kind, of a BERT that it starts from too,
unless config.model.text_layers says more. Small ones start from fresh weights, which TERN's hinge
over the hardest mistake leaves at chance: theirs is the sum over all mistakes.
"""

import dataclasses

from ml_collections import ConfigDict

from mmt_jax.configs.config import (
    Config,
    DataConfig,
    EvalConfig,
    ObjectiveConfig,
    OptimConfig,
    to_config_dict,
)
from mmt_jax.configs.models import TernConfig
from mmt_jax.errors import UsageError

MODELS = {
    "original": TernConfig(),
    "kaylode": TernConfig(reading="kaylode", image_width=768, shared_layers=0),
}
CONFIGS = tuple(MODELS)
# 113,287 photos of COCO with five captions each, 80 at a time, 30 times; 29,000 of Flickr30k,
# 128 at a time, 100 times, on text features that stay as they are.
RECIPES = {
    "original": {
        "steps": 30 * 5 * 113_287 // 80,
        "batch_size": 80,
        "optim": OptimConfig(
            lr=2e-6, warmup_steps=1000, schedule="constant", weight_decay=0.0, clip_norm=2.0
        ),
    },
    "kaylode": {
        "steps": 100 * 5 * 29_000 // 128,
        "batch_size": 128,
        "optim": OptimConfig(
            lr=1e-3,
            warmup_steps=0,
            schedule="cosine",
            b1=0.937,
            b2=0.98,
            eps=1e-9,
            weight_decay=5e-4,
            decay_table=(),
            freeze=("text/.*",),
        ),
    },
}
# VSE++'s hinge over the hardest mistakes, and kaylode/tern's default, Hadsell's contrast.
LOSSES = {"original": "hinge", "kaylode": "pairs"}
SMALL_LOSSES = LOSSES | {"original": "hinge_sum"}
DEPTHS = {"tiny": 2, "pilot": None}  # the published depth is divided by that; None = one layer
SCALES = ("full", *DEPTHS)


def get_config(arg: str = "original") -> ConfigDict:
    """The config of `original|kaylode[,scale=tiny]`, locked: an unknown field is an error."""
    tag, _, option = arg.partition(",")
    scale = option.removeprefix("scale=") or "full"
    if tag not in MODELS or scale not in SCALES:
        raise UsageError(
            f"{arg!r} is no config of TERN; write {' or '.join(MODELS)}, then "
            f"{' or '.join(f',scale={name}' for name in SCALES)}"
        )
    config = Config(
        tag=f"tern_{tag}",
        scale=scale,
        model=MODELS[tag],
        data=DataConfig(source="scenes/cc", max_regions=36),
    )
    return to_config_dict(_full(config, tag) if scale == "full" else _small(config, tag))


def _full(config: Config, tag: str) -> Config:
    """The published recipe."""
    recipe = RECIPES[tag]
    return dataclasses.replace(
        config,
        **recipe,
        objective=_contrast(LOSSES[tag]),
        checkpoint_every=5000,
        eval=EvalConfig(every=5000),
    )


def _small(config: Config, tag: str) -> Config:
    """The study's own recipe for its small scales."""
    sizes = dataclasses.asdict(config.model)
    for name, value in sizes.items():
        if name.endswith(("width", "mlp_dim")):
            sizes[name] = value // 8
        elif name.endswith("layers"):
            divisor = DEPTHS[config.scale]
            sizes[name] = min(value, 1) if divisor is None else value // divisor
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **sizes | {"max_positions": 64, "dropout": 0.0}),
        objective=_contrast(SMALL_LOSSES[tag]),
        optim=OptimConfig(lr=1e-3, warmup_steps=100),
    )


def _contrast(loss: str) -> ObjectiveConfig:
    """Each caption among all photos of its batch, and no other loss."""
    return ObjectiveConfig(itm="contrastive", loss=loss, candidates=0, mlm=0.0, mrm=0.0)
