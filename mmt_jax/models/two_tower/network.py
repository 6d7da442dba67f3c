"""The study's baselines: two encoders that never attend to each other, one vector each."""

from __future__ import annotations

from mmt_jax.configs.config import Config
from mmt_jax.models.mmt.network import MMT
from mmt_jax.nn.heads import DotScore, LinearPooler


class TwoTower(MMT):
    """Linear projections; a dot product or cosine if contrastive, else a head on their product."""

    def build_score(self, config: Config) -> None:
        if config.objective.itm != "contrastive" or config.model.cosine:
            super().build_score(config)
            return
        self.pool_text, self.pool_image = self.poolers(config, LinearPooler)
        self.score = DotScore()


NETWORK = TwoTower
