"""Sizes of each family of models, as frozen dataclasses; `Config.model` holds one of them.

`ModelConfig` is what trainer, data and exporter may ask of any family. What is a choice of some
families and a fact of others is a class variable there, and a field where it can be chosen.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from mmt_jax.configs.fields import Checked, Choice, Count, Range, Share, Whole

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


Dropout = Annotated[float, Range(0.0, 0.99)]


@dataclasses.dataclass(frozen=True)
class ModelConfig(Checked):
    """What every family has."""

    family: str = ""  # a name in FAMILIES
    dropout: Dropout = 0.1
    attention_dropout: Dropout | None = None  # of the attention weights; None = as `dropout`
    max_positions: Count = 512
    feature_dim: FromData = UNSET  # these seven: None = as the data has
    num_classes: FromData = UNSET
    vocab_size: FromData = UNSET
    mask_id: FromData = UNSET  # of the token that hides a word
    pad_id: FromData = UNSET  # of the token that fills up captions
    unlabelled: bool | None = None  # some regions have no class distribution
    num_answers: Whole | None = None  # of a task's head; None = as the task has, or no such head

    path: ClassVar[str] = "config.model"
    layout: ClassVar[str] = "cls_first"  # a name in LAYOUTS
    global_region: ClassVar[bool] = False  # the last region of a photo is the whole photo
    pixels: ClassVar[bool] = False  # reads patches of the whole image in place of detector regions
    patch_size: ClassVar[int] = 16  # pixels a side
    num_attributes: ClassVar[int | None] = 0  # of regions, predicted beside their classes

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """What the family's own dataclass has besides."""

    @property
    def attention_rate(self) -> float:
        """Dropout of the attention weights."""
        return self.dropout if self.attention_dropout is None else self.attention_dropout

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

    global_region: ClassVar[bool] = True


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
