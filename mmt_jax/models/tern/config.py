"""Sizes of TERN."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

from mmt_jax.configs.fields import Choice, Count, Whole
from mmt_jax.configs.models import Dropout, ModelConfig


@dataclasses.dataclass(frozen=True)
class TernConfig(ModelConfig):
    """TERN (Messina et al., 2020): encoders of captions and regions, one vector each."""

    family: str = "tern"
    reading: Annotated[str, Choice("original", "kaylode")] = "original"  # whose code
    width: Count = 1024  # of the embeddings, and of the layers that both encoders share
    heads: Count = 4
    mlp_dim: Count = 2048
    shared_layers: Whole = 2
    text_width: Count = 768
    text_heads: Count = 12
    text_mlp_dim: Count = 3072
    text_layers: Whole = 6  # of BERT
    image_width: Count = 2048
    image_heads: Count = 4
    image_mlp_dim: Count = 2048
    image_layers: Whole = 4
    # Both off in what was published. Whether features of regions are read as their square roots,
    # standardised within each region; and dropout of them, the same ones of all regions of a photo.
    even_out: bool = False
    image_dropout: Dropout = 0.0

    free: ClassVar = (*ModelConfig.free, "image_dropout")
    origins: ClassVar = {
        "bert": {
            "text_width": "width",
            "text_heads": "heads",
            "text_mlp_dim": "mlp_dim",
            "text_layers": "layers",
            "max_positions": "max_positions",
        }
    }


CONFIG = TernConfig
