"""CLIP (Radford et al., 2021) on photos with captions: two towers, trained by their contrast alone.

  mmt train --config=clip:base,scale=tiny --workdir=work/clip \
    --config.data.source=photos:FOLDER --config.data.split='train[:92%]' \
    --config.eval.split='train[92%:]'
  mmt train --config=clip:base --workdir=work/clip --config.init_from=WORKDIR \
    --config.data.source=photos:FOLDER --config.steps=2000 --config.optim.lr=1e-5

scale=full has the sizes and the recipe of ViT-B/32; tiny has each width divided by eight, four
layers a tower and photos of 64 pixels, and pilot two layers. Photos may have another size than the
one that positions were learned on (config.data.image_size), in whole patches.
"""

import dataclasses

from ml_collections import ConfigDict

from mmt_jax.configs.config import Config, DataConfig, ObjectiveConfig, OptimConfig, to_config_dict
from mmt_jax.configs.models import ClipConfig
from mmt_jax.errors import UsageError

CONFIGS = ("base",)
DEPTHS = {"full": 12, "tiny": 4, "pilot": 2}  # layers of each tower


def get_config(arg: str = "base") -> ConfigDict:
    """The config of `base[,scale=tiny]`, locked: an unknown field is an error."""
    tag, _, option = arg.partition(",")
    scale = option.removeprefix("scale=") or "full"
    if tag != "base" or scale not in DEPTHS:
        raise UsageError(
            f"{arg!r} is no config of CLIP; write base, then "
            f"{' or '.join(f',scale={name}' for name in DEPTHS)}"
        )
    config = Config(
        tag="clip_base",
        scale=scale,
        model=ClipConfig(),
        objective=ObjectiveConfig(itm="contrastive", mlm=0.0, mrm=0.0),
        steps=400_000,
        batch_size=32_768,
        checkpoint_every=5000,
        data=DataConfig(source="scenes/cc", text_length=77),
        optim=OptimConfig(lr=5e-4, schedule="cosine", warmup_steps=2000, b2=0.98, weight_decay=0.2),
    )
    return to_config_dict(config if scale == "full" else _small(config))


def _small(config: Config) -> Config:
    """The study's own recipe for its small scales."""
    sizes = {
        name: value // 8
        for name, value in dataclasses.asdict(config.model).items()
        if name.endswith(("width", "mlp_dim"))
    }
    layers = dict.fromkeys(("text_layers", "image_layers"), DEPTHS[config.scale])
    return Config(
        tag=config.tag,
        scale=config.scale,
        model=dataclasses.replace(config.model, **sizes, **layers, image_size=64, patch_size=16),
        objective=config.objective,
        data=DataConfig(source="scenes/cc"),
        optim=OptimConfig(lr=1e-3, warmup_steps=100),
    )
