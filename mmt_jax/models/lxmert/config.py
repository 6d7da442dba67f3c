"""Sizes of LXMERT."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from mmt_jax.configs.fields import Count, Whole
from mmt_jax.configs.models import ModelConfig


@dataclasses.dataclass(frozen=True)
class LxmertConfig(ModelConfig):
    """LXMERT (Tan and Bansal, 2019): language, object-relation and cross layers of one width."""

    family: str = "lxmert"
    width: Count = 768
    mlp_dim: Count = 3072
    heads: Count = 12
    language_layers: Whole = 9
    region_layers: Whole = 5
    cross_layers: Whole = 5
    segments: Count = 2
    # None = as the data has; only the reading "lxmert" learns them.
    num_attributes: Whole | None = 0

    origins: ClassVar = {
        "bert": {
            **{name: name for name in ("width", "mlp_dim", "heads", "max_positions")},
            "language_layers": "layers",
        }
    }


CONFIG = LxmertConfig
