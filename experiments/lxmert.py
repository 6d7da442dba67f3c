"""LXMERT (Tan and Bansal, 2019), trained with the study's objectives or its own five tasks.

  mmt train --config=lxmert:base,scale=tiny --workdir=work/lxmert
  mmt train --config=lxmert:pretraining,scale=tiny --workdir=work/own \
    --config.data.source=regions:FOLDER --config.task.questions=mscoco_train.json
  mmt train --config=lxmert:base --workdir=work/lxmert \
    --config.data.source=regions:FOLDER --config.init_from=WORKDIR

pretraining hides words and regions as LXMERT does, learns from mismatched pairs too, sums words,
match, a detector's classes, attributes (where records have them) and features of regions, and
answers to the questions that its files hold beside captions, and takes BertAdam's steps. scale=full
has the published sizes, and starts from weights of `mmt import` where init_from names them; tiny
has each width divided by eight and a third of the layers; pilot has fewer of them.
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
from mmt_jax.configs.models import LxmertConfig
from mmt_jax.configs.tasks import TaskConfig
from mmt_jax.errors import UsageError

CONFIGS = ("base", "pretraining")
# Layers that read the caption, the regions, and both.
DEPTHS = {"full": (9, 5, 5), "tiny": (3, 2, 2), "pilot": (1, 1, 2)}


def get_config(arg: str = "base") -> ConfigDict:
    """The config of `base[,scale=tiny]`, locked: an unknown field is an error."""
    tag, _, option = arg.partition(",")
    scale = option.removeprefix("scale=") or "full"
    if tag not in CONFIGS or scale not in DEPTHS:
        raise UsageError(
            f"{arg!r} is no config of LXMERT; write {' or '.join(CONFIGS)}, then "
            f"{' or '.join(f',scale={name}' for name in DEPTHS)}"
        )
    depths = dict(zip(("language_layers", "region_layers", "cross_layers"), DEPTHS[scale]))
    model = LxmertConfig(**depths)
    config = Config(tag=f"lxmert_{tag}", scale=scale, model=model)
    config = _full(config) if scale == "full" else _small(config)
    return to_config_dict(_own(config) if tag == "pretraining" else config)


def _full(config: Config) -> Config:
    """The published recipe: 20 epochs over 9.2 million pairs (the number is from memory)."""
    steps = 720_000
    return dataclasses.replace(
        config,
        steps=steps,
        batch_size=256,
        checkpoint_every=5000,
        data=DataConfig(source="scenes/cc", text_length=20, max_regions=36),
        optim=OptimConfig(lr=1e-4, warmup_steps=steps // 20, decay_table=()),
        eval=EvalConfig(every=20_000),
    )


def _own(config: Config) -> Config:
    """Its five tasks and its optimiser."""
    # Row 0 of positions and segments is never learned (`nn.embed.Tables`): in the published code
    # it shrinks by the decay alone, here the tables that have such rows do not decay.
    kept = ((r"text/embed/(positions|segments)/embedding", 0.0),)
    return dataclasses.replace(
        config,
        objective=ObjectiveConfig(reading="lxmert"),
        task=TaskConfig(name="lxmert"),
        model=dataclasses.replace(config.model, num_attributes=None),
        optim=dataclasses.replace(
            config.optim, name="bert_adam", schedule="warmup_linear", decay_table=kept
        ),
    )


def _small(config: Config) -> Config:
    """The study's own recipe for its small scales."""
    width, mlp_dim = config.model.width // 8, config.model.mlp_dim // 8
    return dataclasses.replace(
        config,
        model=dataclasses.replace(
            config.model, width=width, mlp_dim=mlp_dim, max_positions=64, dropout=0.0
        ),
        data=DataConfig(source="scenes/cc"),
        optim=OptimConfig(lr=1e-3, warmup_steps=100),
    )
