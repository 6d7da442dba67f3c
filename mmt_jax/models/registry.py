"""The model of a config, whatever its family."""

from __future__ import annotations

from collections.abc import Mapping

from mmt_jax.configs.config import Config
from mmt_jax.configs.models import Declared
from mmt_jax.errors import UsageError
from mmt_jax.models import checks
from mmt_jax.models.base import Model, Network

FAMILIES: Mapping[str, type[Network]] = Declared("network", "NETWORK")


def build(config: Config) -> Model:
    """The model of a resolved config whose data sizes are filled in (`config.with_spec`).

    UsageError: an unknown family, a kind of ITM or a loss that it does not have, a size that is not
    filled in, or what else the family refuses.
    """
    model, objective = config.model, config.objective
    if model.family not in FAMILIES:
        raise UsageError(
            f"config.model.family={model.family!r} is unknown; there are {', '.join(FAMILIES)}",
        )
    network = FAMILIES[model.family]
    if config.task.name:
        checks.task(config, network.answers_on)
    # A model that answers questions need not score pairs.
    itms = (*network.itms, "none") if config.task.name else network.itms
    if objective.itm not in itms:
        raise UsageError(
            f"config.objective.itm={objective.itm!r} is unknown to the family "
            f"{model.family}; it has {', '.join(dict.fromkeys(itms))}",
        )
    missing = [n for n in ("feature_dim", "num_classes", "vocab_size") if getattr(model, n) is None]
    if missing:
        raise UsageError(f"config.model.{missing[0]} is unset; take it from the data or set it")
    for name in ("mlm", "mrm", "hloss"):
        if (value := getattr(objective, name)) and name not in network.trains:
            raise UsageError(
                f"config.objective.{name} is {value}, but the family {model.family} is trained by "
                f"{', '.join(network.trains) or 'contrast'} alone; set it to 0"
            )
    network.check(config)
    separable = network.separable(config)
    contrasts = bool(objective.itc and network.embeds(config) and not separable)
    if config.task.name:
        checks.task_losses(config, contrasts=contrasts)
    classifies, contrastive = (objective.itm == x for x in ("classification", "contrastive"))
    if objective.negatives == "hard" and not (contrasts and classifies):
        raise UsageError(
            "config.objective.negatives='hard' are drawn by an image–text contrast beside a two-way"
            " match: it needs config.objective.itm='classification' and a model with both, such as "
            "bridgetower with config.model.itc"
        )
    if objective.loss != "softmax" and not (contrastive and separable and not objective.hloss):
        raise UsageError(
            f"config.objective.loss={objective.loss!r} compares embeddings: it needs "
            f"config.objective.itm='contrastive' without hloss, and a model whose scores are inner "
            f"products of embeddings, such as two_tower, tern or clip; else leave it at 'softmax'"
        )
    return Model(config, network, separable)
