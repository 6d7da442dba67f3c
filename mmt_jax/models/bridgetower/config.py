"""Sizes of BridgeTower."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

from mmt_jax.configs.fields import Choice, Count, Share, Whole
from mmt_jax.configs.models import ModelConfig


@dataclasses.dataclass(frozen=True)
class BridgeTowerConfig(ModelConfig):
    """BridgeTower (Xu et al., 2023): RoBERTa and CLIP's vision tower, bridged into cross layers."""

    family: str = "bridgetower"
    width: Count = 768  # of the cross layers
    mlp_dim: Count = 3072
    heads: Count = 12
    cross_layers: Whole = 6  # the same number of layers at the top of each tower are tapped
    # How a tap meets the state.
    link: Annotated[str, Choice("add", "scaled_add", "interpolate")] = "add"
    shared_transforms: bool = True  # one linear map for all taps of a tower
    tied_words: bool = False  # the word head's matrix is the token table
    # Image–text contrast: none, as in the paper, or as Hugging Face has it.
    itc: Annotated[str, Choice("none", "paper", "huggingface")] = "none"
    itc_dim: Count = 256
    tower_layers: Count = 12  # of each tower
    text_width: Count = 768
    text_heads: Count = 12
    text_mlp_dim: Count = 3072
    image_width: Count = 768
    image_heads: Count = 12
    image_size: Count = 288  # pixels a side, of the photos that positions are learned on
    patch_size: Count = 16
    text_eps: Share = 1e-5  # these five: of LayerNorm in each part; the paper's code has 1e-12 in
    image_eps: Share = 1e-5  # the cross layers and the word head
    cross_eps: Share = 1e-5
    bridge_eps: Share = 1e-5
    head_eps: Share = 1e-5

    pixels: ClassVar[bool] = True
    origins: ClassVar = {
        "roberta": {
            "text_width": "width",
            "text_heads": "heads",
            "text_mlp_dim": "mlp_dim",
            "text_eps": "eps",
            "tower_layers": "text_layers",
            "max_positions": "max_positions",
        },
        "clip": {
            **{name: name for name in ("image_width", "image_heads", "image_size", "patch_size")},
            "image_eps": "eps",
            "tower_layers": "image_layers",
        },
    }
    free: ClassVar = (*ModelConfig.free, "itc", "itc_dim")


CONFIG = BridgeTowerConfig
