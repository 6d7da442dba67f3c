"""BridgeTower (Xu et al., 2023), trained with the study's objectives or its own.

  mmt train --config=bridgetower:base,scale=tiny --workdir=work/bridgetower
  mmt train --config=bridgetower:base,scale=tiny --workdir=work/own \
    --config.objective.reading=bridgetower
  mmt train --config=bridgetower:base,scale=tiny --workdir=work/retrieval \
    --config.model.itc=paper --config.objective.mlm=0 --config.objective.negatives=hard
  mmt train --config=bridgetower:large --workdir=work/bridgetower \
    --config.data.source=regions:FOLDER --config.init_from=WORKDIR

scale=full has the published sizes, and starts from weights of `mmt import` where init_from names
them; tiny has each width divided by eight and four layers a tower, and pilot two.
objective.reading=bridgetower, which scale=full has, is its own pre-training: hidden words on true
pairs and the match on whole captions, in two passes. The third command is its fine-tuning for
retrieval: a contrast with soft labels, whose nearest mistakes are the match's wrong pairs; without
a match, objective.itm=none, the contrast trains alone. Photos may have another size than the one
that positions were learned on (config.model.image_size), in whole patches.
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
from mmt_jax.configs.models import BridgeTowerConfig
from mmt_jax.errors import UsageError

MODELS = {
    "base": BridgeTowerConfig(),
    "large": BridgeTowerConfig(
        **dict.fromkeys(("width", "text_width", "image_width"), 1024),
        **dict.fromkeys(("mlp_dim", "text_mlp_dim"), 4096),
        **dict.fromkeys(("heads", "text_heads", "image_heads"), 16),
        tower_layers=24,
        image_size=294,
        patch_size=14,
    ),
}
CONFIGS = tuple(MODELS)
# Layers of each tower, and of the cross-modal encoder; None = as published.
DEPTHS = {"full": None, "tiny": (4, 2), "pilot": (2, 2)}
# In the published code the LayerNorms of the image tower decay, and all others do not.
DECAYS = ((r"image/.*norm/scale", 1.0), (r".*/(bias|scale)", 0.0))
# What is new beside the towers learns five times as fast, but for token types and the contrast's
# temperature.
RATES = ((r"(text_cross|image_cross|match|\w+_head)/(?!log_scale).*", 5.0),)


def get_config(arg: str = "base") -> ConfigDict:
    """The config of `base|large[,scale=tiny]`, locked: an unknown field is an error."""
    tag, _, option = arg.partition(",")
    scale = option.removeprefix("scale=") or "full"
    if tag not in MODELS or scale not in DEPTHS:
        raise UsageError(
            f"{arg!r} is no config of BridgeTower; write {' or '.join(MODELS)}, then "
            f"{' or '.join(f',scale={name}' for name in DEPTHS)}"
        )
    config = Config(
        tag=f"bridgetower_{tag}",
        scale=scale,
        model=MODELS[tag],
        objective=ObjectiveConfig(mrm=0.0),
    )
    return to_config_dict(_full(config) if scale == "full" else _small(config))


def _full(config: Config) -> Config:
    """The published recipe, from weights of RoBERTa and CLIP."""
    steps = 100_000
    return dataclasses.replace(
        config,
        objective=dataclasses.replace(config.objective, reading="bridgetower"),
        steps=steps,
        batch_size=4096,
        checkpoint_every=5000,
        data=DataConfig(source="scenes/cc", text_length=50),
        optim=OptimConfig(
            lr=1e-5,
            warmup_steps=steps // 10,
            b2=0.98,
            eps=1e-8,
            lr_table=RATES,
            decay_table=DECAYS,
        ),
        eval=EvalConfig(every=5000),
    )


def _small(config: Config) -> Config:
    """The study's own recipe for its small scales; their photos are 64 pixels wide."""
    sizes = {
        name: value // 8
        for name, value in dataclasses.asdict(config.model).items()
        if name.endswith(("width", "mlp_dim", "itc_dim"))
    }
    tower_layers, cross_layers = DEPTHS[config.scale]
    return dataclasses.replace(
        config,
        model=dataclasses.replace(
            config.model,
            **sizes,
            tower_layers=tower_layers,
            cross_layers=cross_layers,
            image_size=64,
            patch_size=16,
            max_positions=64,
            dropout=0.0,
        ),
        data=DataConfig(source="scenes/cc"),
        optim=OptimConfig(lr=1e-3, warmup_steps=100),
    )
