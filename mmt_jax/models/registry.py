"""Families by name. A new system is one new file beside this one and one row here."""

from __future__ import annotations

from mmt_jax.config import Config, UsageError
from mmt_jax.models.base import Model, Network
from mmt_jax.models.bert import Bert
from mmt_jax.models.mmt import MMT
from mmt_jax.models.two_tower import TwoTower
from mmt_jax.nn.blocks import STREAMS, kinds
from mmt_jax.nn.streams import unimodal_depth

FAMILIES: dict[str, type[Network]] = {"mmt": MMT, "two_tower": TwoTower, "bert": Bert}


def build(config: Config) -> Model:
    """The model of a resolved config whose data sizes are filled in (`config.with_spec`).

    Raises:
      UsageError: an unknown family or kind of layer, or a size that is not filled in.
    """
    model = config.model
    if model.family not in FAMILIES:
        raise UsageError(
            f"config.model.family={model.family!r} is unknown; there are {', '.join(FAMILIES)}"
        )
    missing = [n for n in ("feature_dim", "num_classes", "vocab_size") if getattr(model, n) is None]
    if missing:
        raise UsageError(f"config.model.{missing[0]} is unset; take it from the data or set it")
    table = kinds(model.layers)
    separable = all(unimodal_depth(table, stream) == len(table) for stream in STREAMS)
    return Model(config, FAMILIES[model.family], separable and model.family != "bert")
