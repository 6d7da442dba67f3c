"""Sizes of RoBERTa."""

from __future__ import annotations

import dataclasses

from mmt_jax.configs.fields import Count, Share, Whole
from mmt_jax.configs.models import ModelConfig


@dataclasses.dataclass(frozen=True)
class RobertaConfig(ModelConfig):
    """RoBERTa (Liu et al., 2019): a text encoder that scores no pairs."""

    family: str = "roberta"
    width: Count = 768
    mlp_dim: Count = 3072
    heads: Count = 12
    text_layers: Whole = 12
    segments: Count = 1
    eps: Share = 1e-5  # of every LayerNorm


CONFIG = RobertaConfig
