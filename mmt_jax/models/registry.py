"""Families by name. A new system is one new file beside this one and one row here."""

from __future__ import annotations

import math

from mmt_jax.config import Config, UsageError
from mmt_jax.models.base import Model, Network
from mmt_jax.models.bert import Bert
from mmt_jax.models.mmt import MMT
from mmt_jax.models.two_tower import TwoTower
from mmt_jax.nn.blocks import STREAMS, kinds
from mmt_jax.nn.streams import unimodal_depth

ITM = ("classification", "contrastive", "none")
FAMILIES: dict[str, type[Network]] = {"mmt": MMT, "two_tower": TwoTower, "bert": Bert}

# field of config.model or config.objective → least and greatest value that make sense
RANGES = {
    "model": {
        **dict.fromkeys(("width", "mlp_dim", "heads", "head_dim", "pooled_dim"), (1, math.inf)),
        **dict.fromkeys(("max_positions", "patch_size"), (1, math.inf)),
        "dropout": (0.0, 0.99),
    },
    "objective": {
        **dict.fromkeys(("mlm", "mrm"), (0.0, math.inf)),
        **dict.fromkeys(("mlm_rate", "mrm_rate", "mismatch"), (0.0, 1.0)),
    },
}


def build(config: Config) -> Model:
    """The model of a resolved config whose data sizes are filled in (`config.with_spec`).

    Raises:
      UsageError: an unknown family, kind of layer or kind of ITM, a size that is not filled in, or
        an ITM loss after every layer of a model without multimodal layers.
    """
    _check_ranges(config)
    model = config.model
    if model.family not in FAMILIES:
        raise UsageError(
            f"config.model.family={model.family!r} is unknown; there are {', '.join(FAMILIES)}",
        )
    objective = config.objective
    if objective.itm not in ITM:
        raise UsageError(
            f"config.objective.itm={objective.itm!r} is unknown; there are {', '.join(ITM)}",
        )
    if (objective.itm == "none") != (model.family == "bert"):
        raise UsageError(
            f"config.objective.itm={objective.itm!r} does not fit config.model.family="
            f"{model.family!r}; the family bert scores no pairs (itm='none'), all others do"
        )
    missing = [n for n in ("feature_dim", "num_classes", "vocab_size") if getattr(model, n) is None]
    if missing:
        raise UsageError(f"config.model.{missing[0]} is unset; take it from the data or set it")
    table = kinds(model.layers)
    if objective.hloss and not any(kind.multimodal for kind in table):
        raise UsageError(
            "config.objective.hloss puts a loss after every multimodal layer, "
            "but config.model.layers has none",
        )
    separable = all(unimodal_depth(table, stream) == len(table) for stream in STREAMS)
    return Model(config, FAMILIES[model.family], separable and model.family != "bert")


def _check_ranges(config: Config) -> None:
    for part, ranges in RANGES.items():
        for name, (least, greatest) in ranges.items():
            value = getattr(getattr(config, part), name)
            if not least <= value <= greatest:
                raise UsageError(
                    f"config.{part}.{name} is {value}; it must be from {least} to {greatest}"
                )
