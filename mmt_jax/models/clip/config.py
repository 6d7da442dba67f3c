"""Sizes of CLIP."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

from mmt_jax.configs.fields import Choice, Count, Share, Whole
from mmt_jax.configs.models import ModelConfig


@dataclasses.dataclass(frozen=True)
class ClipConfig(ModelConfig):
    """CLIP (Radford et al., 2021): a text and an image tower, one vector each."""

    family: str = "clip"
    dropout: float = 0.0
    width: Count = 512  # of the vectors
    text_width: Count = 512
    text_layers: Whole = 12
    text_heads: Count = 8
    text_mlp_dim: Count = 2048
    image_width: Count = 768
    image_layers: Whole = 12
    image_heads: Count = 12
    image_mlp_dim: Count = 3072
    image_size: Count = 224  # pixels a side, of the photos that positions are learned on
    patch_size: Count = 32
    max_positions: int = 77
    activation: Annotated[str, Choice("gelu", "quick_gelu", "relu")] = "quick_gelu"
    eps: Share = 1e-5  # of every LayerNorm

    pixels: ClassVar[bool] = True


CONFIG = ClipConfig
