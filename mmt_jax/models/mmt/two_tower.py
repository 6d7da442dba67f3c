"""The study's baselines: two encoders that never attend to each other, one vector each."""

from __future__ import annotations

from flax import nnx

from mmt_jax.configs.config import Config
from mmt_jax.models.mmt.network import MMT
from mmt_jax.nn.blocks import linear
from mmt_jax.nn.heads import DotScore


class TwoTower(MMT):
    """Linear projections; their dot product if contrastive, else a head on their product."""

    def build_score(self, config: Config, rngs: nnx.Rngs) -> None:
        """See `MMT.build_score`."""
        if config.objective.itm != "contrastive":
            super().build_score(config, rngs)
            return
        self.pool_text = linear(config.model.width, config.model.pooled_dim, rngs)
        self.pool_image = linear(config.model.width, config.model.pooled_dim, rngs)
        self.score = DotScore()
