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

    Raises:
      UsageError: a number out of its range, an unknown family, a kind of ITM or a loss that it does
        not have, a size that is not filled in, or what else the family refuses.
    """
    model = config.model
    if model.family not in FAMILIES:
        raise UsageError(
            f"config.model.family={model.family!r} is unknown; there are {', '.join(FAMILIES)}",
        )
    network = FAMILIES[model.family]
    if config.task.name:
        checks.task(config, network.answers_on)
    # A model that answers questions need not score pairs.
    itms = (*network.itms, "none") if config.task.name else network.itms
    if config.objective.itm not in itms:
        raise UsageError(
            f"config.objective.itm={config.objective.itm!r} is unknown to the family "
            f"{model.family}; it has {', '.join(dict.fromkeys(itms))}",
        )
    missing = [n for n in ("feature_dim", "num_classes", "vocab_size") if getattr(model, n) is None]
    if missing:
        raise UsageError(f"config.model.{missing[0]} is unset; take it from the data or set it")
    network.check(config)
    separable = network.separable(config)
    contrasts = bool(config.objective.itc and network.embeds(config) and not separable)
    if config.task.name:
        checks.task_losses(config, contrasts=contrasts)
    _check_negatives(config, contrasts=contrasts)
    _check_loss(config, network)
    return Model(config, network, separable)


def _check_loss(config: Config, network: type[Network]) -> None:
    objective = config.objective
    by_embeddings = network.separable(config) and not objective.hloss
    if objective.loss != "softmax" and not (objective.itm == "contrastive" and by_embeddings):
        raise UsageError(
            f"config.objective.loss={objective.loss!r} compares embeddings: it needs "
            f"config.objective.itm='contrastive' without hloss, and a model whose scores are inner "
            f"products of embeddings, such as two_tower, tern or clip; else leave it at 'softmax'"
        )


def _check_negatives(config: Config, *, contrasts: bool) -> None:
    objective = config.objective
    if objective.negatives == "hard" and not (contrasts and objective.itm == "classification"):
        raise UsageError(
            "config.objective.negatives='hard' are drawn by an image–text contrast beside a two-way"
            " match: it needs config.objective.itm='classification' and a model with both, such as "
            "bridgetower with config.model.itc"
        )
