"""What sizes of any family have in common; `Config.model` holds those of one.

`ModelConfig` is what trainer, data and exporter may ask of any family. What is a choice of some
families and a fact of others is a class variable there, and a field where it can be chosen.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from mmt_jax.configs.fields import Checked, Count, Range, Whole

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
    # What weights that a model starts from fix of it: by their family, our field → theirs. Weights
    # of its own family fix all fields, or those listed, but the `free` ones and the data's.
    origins: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    free: ClassVar[tuple[str, ...]] = ("dropout", "attention_dropout")

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


# Every family. Each has a folder of this name in mmt_jax/models, whose modules declare what it is:
# `config` its sizes, `network` the model, `weights`, where it has published ones, how to read them.
NAMES = ("mmt", "two_tower", "bert", "lxmert", "bridgetower", "tern", "roberta", "clip")


class Declared(Mapping[str, Any]):
    """What each family declares, by its name; its module is imported when it is asked for."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def __getitem__(self, family: str) -> Any:
        if family not in NAMES:
            raise KeyError(family)
        module = importlib.import_module(f"mmt_jax.models.{family}.{self._module}")
        return getattr(module, self._name)

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)


FAMILIES: Mapping[str, Any] = Declared("config", "CONFIG")


def __getattr__(name: str) -> Any:
    """A family's sizes by the name of their class, such as `LxmertConfig`."""
    for config in FAMILIES.values() if name.endswith("Config") else ():
        if config.__name__ == name:
            return config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
