"""What a run is, as frozen dataclasses, and `resolve`, which makes them from a ConfigDict.

Imports no jax: listing and checking configs must be instant.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from mmt_jax.configs import fields
from mmt_jax.configs.fields import Checked, Choice, Count, Range, Share, Weight, Whole
from mmt_jax.configs.models import FAMILIES, ModelConfig
from mmt_jax.configs.tasks import TaskConfig
from mmt_jax.errors import UsageError

MMTConfig = FAMILIES["mmt"]  # the default


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """What a model must know of its data before it can be built."""

    feature_dim: int
    num_classes: int  # of the detector; 0: none of its class distributions is known
    vocab_size: int
    mask_id: int = 6  # of the token that hides a word; these are XLNet's, and those of vocabularies
    pad_id: int = 5  # that we train
    unlabelled: bool = False  # some regions have no class distribution: MRM regresses features
    num_answers: int | None = None  # labels of the task; None: it has none to ask for
    num_attributes: int | None = None  # of the detector; 0: it has none; None: not known


# Fields of a model's config that its data fills in.
SIZES = tuple(field.name for field in dataclasses.fields(DataSpec))

# XLNet's 32,000 pieces; a bottom-up detector's 2,048-d features, 1,600 objects and background.
RELEASE_SPEC = DataSpec(feature_dim=2048, num_classes=1601, vocab_size=32000)


Seed = Annotated[int, Range(0, 2**32 - 1)]  # jax's keys read 32 bits: more would repeat a smaller
Moment = Annotated[float, Range(0.0, 0.9999999)]  # at 1, moments would learn nothing

# What contrastive ITM trains: the softmax over candidates, or a loss on the embeddings of the whole
# batch, by its name in mmt_jax.objectives.embedding; and those of its settings that are fields.
LOSSES = {
    "softmax": (),
    "hinge": ("margin",),
    "hinge_sum": ("margin",),
    "triplet": ("margin", "distance", "miner"),
    "pairs": ("positive_margin", "negative_margin", "distance"),
    "nt_xent": ("temperature",),
    "convirt": ("temperature",),
}

# BridgeTower's changes of photos, by name in mmt_jax.photos.augment: `blip` crops at random and
# flips, `wc` changes colours too, `wohf` does not flip, `clip` neither crops nor flips.
AUGMENTS = (
    "clip_randaug",
    "blip_randaug",
    "blip_randaug_pretrain",
    "blip_randaug_wc",
    "blip_randaug_wohf",
)

# Whose masking, by its name in mmt_jax.objectives.readings.
READINGS = ("study", "lxmert", "bridgetower")


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig(Checked):
    """Losses. A weight of 0 removes MLM or MRM, and its head."""

    itm: Annotated[str, Choice("classification", "contrastive", "none")] = "classification"
    loss: Annotated[str, Choice(*LOSSES)] = "softmax"  # of contrastive ITM
    candidates: Whole = 32  # K of the contrastive softmax, at most; 0 = all of the batch
    chunk: Whole = 0  # candidate pairs fused at once, about, by joint models; 0 = all of a batch
    mismatch: Share = 0.5  # share of pairs that classification mismatches
    hloss: bool = False  # ITM loss after every layer
    mlm: Weight = 1.0
    mrm: Weight = 1.0
    itc: Weight = 1.0  # image–text contrast, of models that embed beside a joint score
    mlm_rate: Share = 0.15  # share of words hidden
    mrm_rate: Share = 0.15  # share of regions hidden
    answers: Weight = 1.0  # answers to a task's questions
    reading: Annotated[str, Choice(*READINGS)] = "study"  # whose masking
    # ITM's wrong pairs: hard ones are drawn by the image–text contrast.
    negatives: Annotated[str, Choice("random", "hard")] = "random"

    # Settings of `loss`; None = its own, see mmt_jax.objectives.embedding.
    margin: Weight | None = None
    positive_margin: Weight | None = None
    negative_margin: Weight | None = None
    temperature: Annotated[float, Range(1e-3)] | None = None
    distance: Annotated[str, Choice("euclidean", "cosine")] | None = None
    miner: Annotated[str, Choice("all", "semihard", "hard")] | None = None

    path: ClassVar[str] = "config.objective"

    def __post_init__(self) -> None:
        super().__post_init__()
        own = LOSSES[self.loss]
        for name in sorted({name for names in LOSSES.values() for name in names} - {*own}):
            if getattr(self, name) is not None:
                raise UsageError(
                    f"config.objective.{name} is no setting of the loss {self.loss!r}, which has "
                    f"{', '.join(own) or 'none'}; leave it out"
                )

    @property
    def settings(self) -> dict[str, Any]:
        """Of `loss`, those that are set."""
        values = {name: getattr(self, name) for name in LOSSES[self.loss]}
        return {name: value for name, value in values.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class DataConfig(Checked):
    """Where records come from and how they become arrays."""

    source: str = "scenes/cc"  # several, separated by commas, are a mixture
    # Of a mixture: each source ∝ its size, or uniform.
    sampling: Annotated[str, Choice("instance", "dataset")] = "instance"
    split: str = "train"
    vocab: str | None = None  # any vocabulary's file; None = trained on the source's captions
    vocab_size: Count = 2000  # of a vocabulary that is trained
    text_length: Annotated[int, Range(2)] = 25  # T at most, [SEP] and [CLS] included
    max_regions: Count = 100  # R - 1 at most
    # The release loses the lowest-scoring region.
    regions: Annotated[str, Choice("plain", "release")] = "plain"
    size: Count | None = None  # photos of a generated corpus; None = its own size
    # Pixels a side of photos as models see them; None = the model's own size.
    image_size: Count | None = None
    # How photos that train are changed at random: "" = not at all, or BridgeTower's name for it.
    augment: Annotated[str, Choice("", *AUGMENTS)] = ""
    cache: str | None = None  # folder to keep decoded photos in, 3 · image_size² bytes each
    workers: Whole = 0  # processes that read records; 0 = threads
    # (T, R) sizes that batches are cut to, which groups pairs of like size; none = neither
    buckets: tuple[tuple[int, int], ...] = ()

    path: ClassVar[str] = "config.data"


@dataclasses.dataclass(frozen=True)
class OptimConfig(Checked):
    """The optimiser. Tables hold (regex over a parameter's path, value); the first match counts."""

    name: Annotated[str, Choice("adamw", "lamb", "bert_adam")] = "adamw"
    lr: Weight = 1e-3  # peak
    # Decay to 0 after warm-up.
    schedule: Annotated[str, Choice("linear", "cosine", "constant", "warmup_linear")] = "linear"
    warmup_steps: Whole = 100
    b1: Moment = 0.9
    b2: Moment = 0.999
    eps: Weight = 1e-6
    weight_decay: Weight = 0.01
    clip_norm: float = 1.0
    lr_table: tuple[tuple[str, float], ...] = ()  # multiplies the learning rate
    decay_table: tuple[tuple[str, float], ...] = ((r".*/(bias|scale)", 0.0),)  # and the decay
    freeze: tuple[str, ...] = ()  # regexes of parameters that stay as they are
    # Decay of a running mean of the parameters, which is what is evaluated, kept and exported; 0 =
    # the parameters themselves.
    ema: Moment = 0.0

    path: ClassVar[str] = "config.optim"


@dataclasses.dataclass(frozen=True)
class EvalConfig(Checked):
    """Retrieval during and after training."""

    source: str | None = None  # None: `scenes` for generated corpora, else the training source
    split: str | None = None  # None: the source's `val` or `dev`
    every: Whole = 0  # steps between evaluations; 0 = only at the end
    # Photos (of a task, questions); 0 = all. 100 with five captions each cost a small joint model
    # some 40 seconds on two cores.
    limit: Whole = 100
    pairs: Count = 1024  # pairs fused at once
    best: str = "image_retrieval/r@1"  # the metric whose best checkpoint is kept; or rsum
    patience: Whole = 0  # evaluations in a row below the best that end training; 0 = none do

    path: ClassVar[str] = "config.eval"


class Steps:
    """Nothing, or a step from 1 on and how many from there."""

    def check(self, value: tuple[int, ...], path: str) -> None:
        """Refuses others; the message names `path` and the value."""
        if value and (len(value) != 2 or min(value) < 1):
            raise UsageError(
                f"{path} is {value}; give the first step and how many, such as (100,5), or ()"
            )


@dataclasses.dataclass(frozen=True)
class Config(Checked):
    """One run, whole."""

    tag: str = ""
    scale: str = "full"
    pretrained: str = ""  # tag whose checkpoint this run starts from
    # A workdir to start from, or several, separated by commas; None with `pretrained` = train it.
    init_from: str | None = None
    seed: Seed = 0
    steps: Count = 1000
    batch_size: Count = 128
    grad_accum: Count = 1  # the batch is cut into that many equal parts
    # Of products; parameters, sums and scores are float32.
    dtype: Annotated[str, Choice("float32", "bfloat16")] = "float32"
    # Of jax.nn.dot_product_attention; auto is what jax takes, in this version xla.
    attention: Annotated[str, Choice("auto", "xla", "cudnn")] = "auto"
    # Layers are computed again for the gradient, to save memory.
    remat: Annotated[str, Choice("none", "layers")] = "none"
    mesh: tuple[tuple[str, int], ...] = (("data", -1), ("model", 1))  # one -1 = the other devices
    fsdp: bool = False  # parameters and the optimiser's state are cut over the axis "data" too
    # Of dropout, pairs and masks; rbg is quicker on a TPU, and depends on the mesh.
    prng: Annotated[str, Choice("threefry", "rbg")] = "threefry"
    profile: Annotated[tuple[int, ...], Steps()] = ()  # the first step to be traced, and how many
    log_every: Count = 50
    checkpoint_every: Count = 500
    keep: Count = 2  # checkpoints kept beside the best
    model: ModelConfig = dataclasses.field(default_factory=MMTConfig)  # the family's own
    objective: ObjectiveConfig = ObjectiveConfig()
    task: TaskConfig = dataclasses.field(default_factory=TaskConfig)
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    eval: EvalConfig = EvalConfig()


@dataclasses.dataclass(frozen=True)
class Study:
    """A set of runs to be compared: every row with every seed, under the same settings.

    A row of `tags` is whatever --config takes: a tag of the study, lxmert:base, FILE.py:ARG.

    Checkpoints are chosen on each run's own evaluation split (`Config.eval`); `test` is what the
    study reports, read once when a run is over.
    """

    name: str
    tags: tuple[str, ...]
    seeds: int = 3  # 0, 1, …; the same seed sees the same order of examples
    scale: str = "tiny"
    level: int | None = (
        None  # of the generated corpora (`mmt_jax.scenes.levels`); None = each row's
    )
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # "optim.lr" → value
    test: EvalConfig = EvalConfig(split="test", limit=0)  # source None: as each run's own


def with_spec(config: Config, spec: DataSpec) -> Config:
    """Fills the sizes that the model takes from its data; one that is set must be the data's.

    A model may do without the attributes that its data has: 0 stays.
    """
    sizes = {}
    for name, value in dataclasses.asdict(spec).items():
        asked = getattr(config.model, name)
        if value is None or (name == "num_attributes" and asked == 0):
            continue
        if asked is not None and asked != value:
            raise UsageError(
                f"config.model.{name} is {asked}, but the data ({config.data.source}) has {value}; "
                f"leave config.model.{name} unset to take it from the data"
            )
        sizes[name] = value
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **sizes))


def grouped(config: Config) -> Config:
    """The config with as many candidates as a contrastive loss sees: at most those of a batch.

    The batch, or the part of it that is seen at once, is cut into such groups.
    """
    part, asked = config.batch_size // config.grad_accum, config.objective.candidates
    if config.objective.itm != "contrastive":
        return config
    number = min(asked or part, part)
    if number < 2 or part % number:
        fits = number > 1 and number * max(1, round(part / number))
        raise UsageError(
            f"config.batch_size={config.batch_size} leaves {config.tag!r} {part} pairs at once, "
            f"which cannot be cut into groups of {number} candidates; "
            + (
                f"give --config.batch_size={fits * config.grad_accum}, or --config.objective."
                f"candidates=0 for all of a batch"
                if fits
                else "a contrast needs 2 or more: give a larger --config.batch_size"
            )
        )
    return dataclasses.replace(
        config, objective=dataclasses.replace(config.objective, candidates=number)
    )


def as_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as nested dicts; tuples stay tuples."""
    return {
        field.name: as_dict(value) if dataclasses.is_dataclass(value) else value
        for field in dataclasses.fields(config)
        for value in [getattr(config, field.name)]
    }


def to_config_dict(config: Config) -> Any:
    """`config` as a locked ml_collections ConfigDict, which a file's `get_config` may change."""
    from ml_collections import config_dict

    def convert(node: Any) -> config_dict.ConfigDict:
        values = {}
        for name, hint in fields.hints(type(node)).items():
            value = getattr(node, name)
            if dataclasses.is_dataclass(value):
                value = convert(value)
            elif value is None:
                value = config_dict.placeholder(fields.parts(hint)[0])
            values[name] = value
        return config_dict.ConfigDict(values).lock()

    return convert(config)


def resolve(values: Mapping[str, Any], *, cls: Any = Config, path: str = "config") -> Any:
    """Makes frozen dataclasses of nested mappings (a ConfigDict, or JSON that was read back).

    Fields that are left out keep their defaults; `path` is how errors name the mapping. UsageError:
    an unknown field (the nearest right name is given) or family, a wrong type or senseless value.
    """
    if cls is ModelConfig:
        name = values.get("family", MMTConfig.family)
        if not isinstance(name, str) or name not in FAMILIES:
            raise UsageError(f"{path}.family={name!r} is unknown; there are {', '.join(FAMILIES)}")
        cls = FAMILIES[name]
    made = {}
    for name, value in values.items():
        hint = field_type(cls, name, path=path)
        if not dataclasses.is_dataclass(hint):
            made[name] = fields.typed(value, hint, f"{path}.{name}")
        elif hasattr(value, "items"):  # a ConfigDict is no Mapping
            made[name] = resolve(value, cls=hint, path=f"{path}.{name}")
        else:
            raise UsageError(f"{path}.{name} must hold fields, not {value!r}")
    return cls(**made)


def field_types(cls: Any) -> dict[str, Any]:
    """Types of a config dataclass's fields by name; of `ModelConfig`, those of every family."""
    kinds = dict.fromkeys(FAMILIES.values()) if cls is ModelConfig else (cls,)
    return {name: hint for kind in kinds for name, hint in fields.hints(kind).items()}


def field_type(cls: Any, name: str, *, path: str) -> Any:
    """The type of a field of a config dataclass, which errors name `path`."""
    known = field_types(cls)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {path}.{near[0]}?" if near else f"it has {', '.join(known)}"
        raise UsageError(f"{path}.{name} is not a field; {hint}")
    return known[name]
