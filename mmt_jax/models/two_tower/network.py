"""The study's baselines: two encoders that never attend to each other, one vector each."""

from __future__ import annotations

from typing import Any

from mmt_jax.configs.config import Config
from mmt_jax.models.mmt.network import MMT
from mmt_jax.nn.heads import DotScore, LinearPooler


class TwoTower(MMT):
    """Linear projections; a dot product or cosine if contrastive, else a head on their product."""

    @staticmethod
    def score_of(config: Config) -> tuple[Any, Any]:
        if config.objective.itm != "contrastive" or config.model.cosine:
            return MMT.score_of(config)
        return LinearPooler, DotScore()


NETWORK = TwoTower
