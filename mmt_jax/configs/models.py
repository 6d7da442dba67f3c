"""Sizes of each family of models, as frozen dataclasses; `Config.model` holds one of them.

`ModelConfig` is what trainer, data and exporter may ask of any family. What is a choice of some
families and a fact of others is a class variable there, and a field where it can be chosen.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

# Layout of a caption → where [CLS] stands, and with it the side on which there is no padding.
LAYOUTS = {
    "release": -1,  # [pad…] [SEP] w1 … wn [CLS]
    "cls_first": 0,  # [CLS] w1 … wn [SEP] [pad…]
}

# A size that the data fills in (`config.with_spec`): None until then, and never in a network, for
# `models.registry.build` refuses a config that lacks one.
if TYPE_CHECKING:
    FromData = int
else:
    FromData = int | None
UNSET: Any = None


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What every family has."""

    family: str = ""  # a name in FAMILIES
    dropout: float = 0.1
    max_positions: int = 512
    feature_dim: FromData = UNSET  # these seven: None = as the data has
    num_classes: FromData = UNSET
    vocab_size: FromData = UNSET
    mask_id: FromData = UNSET  # of the token that hides a word
    pad_id: FromData = UNSET  # of the token that fills up captions
    unlabelled: bool | None = None  # some regions have no class distribution
    num_answers: int | None = None  # of a task's head; None = as the task has, or no such head

    layout: ClassVar[str] = "cls_first"  # a name in LAYOUTS
    global_region: ClassVar[bool] = False  # the last region of a photo is the whole photo
    pixels: ClassVar[bool] = False  # reads patches of the whole image in place of detector regions
    patch_size: ClassVar[int] = 16  # pixels a side
    num_attributes: ClassVar[int | None] = 0  # of regions, predicted beside their classes

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """What the family's own dataclass has besides."""

    @property
    def regressed(self) -> int:
        """How many features MRM regresses: F if some regions have no class distribution, or 0."""
        return self.feature_dim if self.unlabelled or not self.num_classes else 0

    @property
    def cls_index(self) -> int:
        """Index of [CLS] among the tokens of a caption."""
        return LAYOUTS[self.layout]


@dataclasses.dataclass(frozen=True)
class MMTConfig(ModelConfig):
    """The study's models. `layers` names each layer's kind, in order (mmt_jax.nn.blocks.KINDS)."""

    family: str = "mmt"  # or "two_tower", or "bert"
    width: int = 768
    mlp_dim: int = 3072
    heads: int = 12
    head_dim: int = 64  # heads × head_dim need not be width
    layers: tuple[str, ...] = ("text",) * 6 + ("merged",) * 6
    pooled_dim: int = 1024
    pixels: bool = False
    patch_size: int = 16
    layout: str = "release"

    global_region: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True)
class LxmertConfig(ModelConfig):
    """LXMERT (Tan and Bansal, 2019): language, object-relation and cross layers of one width."""

    family: str = "lxmert"
    width: int = 768
    mlp_dim: int = 3072
    heads: int = 12
    language_layers: int = 9
    region_layers: int = 5
    cross_layers: int = 5
    segments: int = 2
    num_attributes: int | None = 0  # None = as the data has; only the reading "lxmert" learns them


@dataclasses.dataclass(frozen=True)
class BridgeTowerConfig(ModelConfig):
    """BridgeTower (Xu et al., 2023): RoBERTa and CLIP's vision tower, bridged into cross layers."""

    family: str = "bridgetower"
    width: int = 768  # of the cross layers
    mlp_dim: int = 3072
    heads: int = 12
    cross_layers: int = 6  # the same number of layers at the top of each tower are tapped
    link: str = "add"  # or "scaled_add", "interpolate": how a tap meets the state
    shared_transforms: bool = True  # one linear map for all taps of a tower
    tied_words: bool = False  # the word head's matrix is the token table
    itc: str = "none"  # image–text contrast: as in the "paper", or as "huggingface" has it
    itc_dim: int = 256
    tower_layers: int = 12  # of each tower
    text_width: int = 768
    text_heads: int = 12
    text_mlp_dim: int = 3072
    image_width: int = 768
    image_heads: int = 12
    image_size: int = 288  # pixels a side, of the photos that positions are learned on
    patch_size: int = 16
    text_eps: float = 1e-5  # these five: of LayerNorm in each part; the paper's code has 1e-12 in
    image_eps: float = 1e-5  # the cross layers and the word head
    cross_eps: float = 1e-5
    bridge_eps: float = 1e-5
    head_eps: float = 1e-5

    pixels: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True)
class RobertaConfig(ModelConfig):
    """RoBERTa (Liu et al., 2019): a text encoder that scores no pairs."""

    family: str = "roberta"
    width: int = 768
    mlp_dim: int = 3072
    heads: int = 12
    text_layers: int = 12
    segments: int = 1
    eps: float = 1e-5  # of every LayerNorm


@dataclasses.dataclass(frozen=True)
class ClipConfig(ModelConfig):
    """CLIP (Radford et al., 2021): a text and an image tower, one vector each."""

    family: str = "clip"
    dropout: float = 0.0
    width: int = 512  # of the vectors
    text_width: int = 512
    text_layers: int = 12
    text_heads: int = 8
    text_mlp_dim: int = 2048
    image_width: int = 768
    image_layers: int = 12
    image_heads: int = 12
    image_mlp_dim: int = 3072
    image_size: int = 224  # pixels a side, of the photos that positions are learned on
    patch_size: int = 32
    max_positions: int = 77
    activation: str = "quick_gelu"  # a name in mmt_jax.nn.encoders.ACTIVATIONS
    eps: float = 1e-5  # of every LayerNorm

    pixels: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True)
class TernConfig(ModelConfig):
    """TERN (Messina et al., 2020): encoders of captions and regions, one vector each."""

    family: str = "tern"
    reading: str = "original"  # or "kaylode": a name in mmt_jax.models.tern.READINGS
    width: int = 1024  # of the embeddings, and of the layers that both encoders share
    heads: int = 4
    mlp_dim: int = 2048
    shared_layers: int = 2
    text_width: int = 768
    text_heads: int = 12
    text_mlp_dim: int = 3072
    text_layers: int = 6  # of BERT
    image_width: int = 2048
    image_heads: int = 4
    image_mlp_dim: int = 2048
    image_layers: int = 4


FAMILIES: dict[str, type[ModelConfig]] = {
    "mmt": MMTConfig,
    "two_tower": MMTConfig,
    "bert": MMTConfig,
    "lxmert": LxmertConfig,
    "bridgetower": BridgeTowerConfig,
    "tern": TernConfig,
    "roberta": RobertaConfig,
    "clip": ClipConfig,
}
