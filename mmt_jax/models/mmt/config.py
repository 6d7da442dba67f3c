"""Sizes of the study's models."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

from mmt_jax.configs.fields import Choice, Count
from mmt_jax.configs.models import LAYOUTS, Dropout, ModelConfig


@dataclasses.dataclass(frozen=True)
class MMTConfig(ModelConfig):
    """The study's models. `layers` names each layer's kind, in order (mmt_jax.nn.kinds.KINDS)."""

    family: str = "mmt"  # or "two_tower", or "bert"
    width: Count = 768
    mlp_dim: Count = 3072
    heads: Count = 12
    head_dim: Count = 64  # heads × head_dim need not be width
    layers: tuple[str, ...] = ("text",) * 6 + ("merged",) * 6
    pooled_dim: Count = 1024
    pixels: bool = False
    patch_size: Count = 16
    layout: Annotated[str, Choice(*LAYOUTS)] = "release"
    attention_dropout: Dropout | None = 0.0
    # Of models in which no stream reads the other:
    cosine: bool = False  # a contrastive score is a cosine times a learned scale
    # What stands for an item: its [CLS] or whole photo, beside that the mean of all its states and
    # the greatest of each entry, and of a caption the mean of its pieces' embeddings, as the first
    # layer reads them.
    pooling: Annotated[str, Choice("cls", "mean+cls", "mean+cls+words", "mean+max+cls+words")] = (
        "cls"
    )
    # Of the entries of what stands for a caption, around their mean over the batch.
    text_dropout: Dropout = 0.0
    # Of the features of regions, the same ones of all regions of a photo; where they are not
    # embedded, of the entries of what stands for a photo, likewise around their mean.
    image_dropout: Dropout = 0.0
    # Where no layer reads them, regions may stay as their features: what is learned of photos is
    # then one linear map of their pooled features.
    embed_regions: bool = True

    global_region: ClassVar[bool] = True
    origins: ClassVar = {
        "bert": {
            name: name
            for name in ("width", "mlp_dim", "heads", "head_dim", "max_positions", "layout")
        },
        "mmt": {},
        "two_tower": {},
    }


CONFIG = MMTConfig
