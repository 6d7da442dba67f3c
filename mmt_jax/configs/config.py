"""What a run is, as frozen dataclasses, and `resolve`, which makes them from a ConfigDict.

Imports no jax: listing and checking configs must be instant.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any

from mmt_jax.configs import ranges
from mmt_jax.configs.models import FAMILIES, MMTConfig, ModelConfig
from mmt_jax.configs.tasks import TaskConfig
from mmt_jax.errors import UsageError


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


# What contrastive ITM trains: the softmax over candidates, or a loss on the embeddings of the whole
# batch, by its name in mmt_jax.objectives.embedding.
LOSSES = ("softmax", "hinge", "hinge_sum", "triplet", "pairs", "nt_xent", "convirt")


# Whose masking, by its name in mmt_jax.objectives.readings.
READINGS = ("study", "lxmert", "bridgetower")


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """Losses. A weight of 0 removes MLM or MRM, and its head."""

    itm: str = "classification"  # or "contrastive", or "none"
    loss: str = "softmax"  # of contrastive ITM: a name in LOSSES
    candidates: int = 32  # K of the contrastive softmax
    mismatch: float = 0.5  # share of pairs that classification mismatches
    hloss: bool = False  # ITM loss after every layer
    mlm: float = 1.0
    mrm: float = 1.0
    itc: float = 1.0  # image–text contrast, of models that embed beside a joint score
    mlm_rate: float = 0.15  # share of words hidden
    mrm_rate: float = 0.15  # share of regions hidden
    answers: float = 1.0  # answers to a task's questions
    reading: str = "study"  # whose masking: a name in READINGS
    negatives: str = "random"  # or "hard", by the image–text contrast: ITM's wrong pairs


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where records come from and how they become arrays."""

    source: str = "scenes/cc"  # several, separated by commas, are a mixture
    sampling: str = "instance"  # of a mixture: "instance" ∝ size, "dataset" uniform
    split: str = "train"
    vocab: str | None = None  # any vocabulary's file; None = trained on the source's captions
    vocab_size: int = 2000  # of a vocabulary that is trained
    text_length: int = 25  # T at most, [SEP] and [CLS] included
    max_regions: int = 100  # R - 1 at most
    regions: str = "plain"  # or "release", which loses the lowest-scoring region
    size: int | None = None  # photos of a generated corpus; None = its own size
    workers: int = 0  # processes that read records; 0 = threads
    # (T, R) sizes that batches are cut to, which groups pairs of like size; none = neither
    buckets: tuple[tuple[int, int], ...] = ()


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """The optimiser. Tables hold (regex over a parameter's path, value); the first match counts."""

    name: str = "adamw"  # or "lamb", "bert_adam"
    lr: float = 1e-3  # peak
    schedule: str = (
        "linear"  # decay to 0 after warm-up: "linear", "cosine", "constant", "warmup_linear"
    )
    warmup_steps: int = 100
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-6
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    lr_table: tuple[tuple[str, float], ...] = ()  # multiplies the learning rate
    decay_table: tuple[tuple[str, float], ...] = ((r".*/(bias|scale)", 0.0),)  # and the decay
    freeze: tuple[str, ...] = ()  # regexes of parameters that stay as they are


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Retrieval during and after training."""

    source: str | None = None  # None: `scenes` for generated corpora, else the training source
    split: str | None = None  # None: the source's `val` or `dev`
    every: int = 0  # steps between evaluations; 0 = only at the end
    limit: int = 200  # photos; 0 = all
    pairs: int = 1024  # pairs fused at once
    best: str = "image_retrieval/r@1"  # the metric whose best checkpoint is kept


@dataclasses.dataclass(frozen=True)
class Config:
    """One run, whole."""

    tag: str = ""
    scale: str = "full"
    pretrained: str = ""  # tag whose checkpoint this run starts from
    # A workdir to start from, or several, separated by commas; None with `pretrained` = train it.
    init_from: str | None = None
    seed: int = 0
    steps: int = 1000
    batch_size: int = 128
    grad_accum: int = 1  # the batch is cut into that many equal parts
    dtype: str = "float32"  # of the computation; or "bfloat16". Parameters are float32
    mesh: tuple[tuple[str, int], ...] = (("data", -1), ("model", 1))  # one -1 = the other devices
    log_every: int = 50
    checkpoint_every: int = 500
    keep: int = 2  # checkpoints kept beside the best
    model: ModelConfig = dataclasses.field(default_factory=MMTConfig)  # the family's own
    objective: ObjectiveConfig = ObjectiveConfig()
    task: TaskConfig = dataclasses.field(default_factory=TaskConfig)
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    eval: EvalConfig = EvalConfig()


@dataclasses.dataclass(frozen=True)
class Study:
    """A set of runs to be compared: every row with every seed, under the same settings.

    A row of `tags` is a tag of the study, or a config file as --config takes it, FILE.py:ARG.

    Checkpoints are chosen on each run's own evaluation split (`Config.eval`); `test` is what the
    study reports, read once when a run is over.
    """

    name: str
    tags: tuple[str, ...]
    seeds: int = 3  # 0, 1, …; the same seed sees the same order of examples
    scale: str = "tiny"
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # "optim.lr" → value
    test: EvalConfig = EvalConfig(split="test", limit=0)  # source None: as each run's own


def with_spec(config: Config, spec: DataSpec) -> Config:
    """Fills the sizes that the model takes from its data.

    A model may do without the attributes that its data has: 0 stays.

    Raises:
      UsageError: a size is set and the data has another.
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


def as_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as nested dicts; tuples stay tuples."""
    return {
        field.name: as_dict(value) if dataclasses.is_dataclass(value) else value
        for field in dataclasses.fields(config)
        for value in [getattr(config, field.name)]
    }


def to_config_dict(config: Config) -> Any:
    """`config` as a locked ml_collections ConfigDict, whose fields flags can override."""
    from ml_collections import config_dict

    def convert(node: Any) -> config_dict.ConfigDict:
        hints = _hints(type(node))
        fields = {}
        for name, value in ((f.name, getattr(node, f.name)) for f in dataclasses.fields(node)):
            if dataclasses.is_dataclass(value):
                value = convert(value)
            elif types.NoneType in typing.get_args(hints[name]):
                kind = typing.get_args(hints[name])[0]
                value = config_dict.placeholder(kind) if value is None else value
            fields[name] = value
        return config_dict.ConfigDict(fields).lock()

    return convert(config)


def resolve(values: Mapping[str, Any], *, cls: Any = Config, path: str = "config") -> Any:
    """Makes frozen dataclasses of nested mappings (a ConfigDict, or JSON that was read back).

    Args:
      values: fields by name; those left out keep their defaults.
      cls: the dataclass to make.
      path: how errors name the mapping.

    Raises:
      UsageError: a field is unknown (the nearest right name is given), has the wrong type or is out
        of its range, or there is no such family of models.
    """
    if cls is ModelConfig:
        cls = _family(values.get("family", MMTConfig.family), path)
    fields = {}
    for name, value in values.items():
        kind = field_type(cls, name, path=path)
        if dataclasses.is_dataclass(kind):
            if not hasattr(value, "items"):  # a ConfigDict is no Mapping
                raise UsageError(f"{path}.{name} must hold fields, not {value!r}")
            fields[name] = resolve(value, cls=kind, path=f"{path}.{name}")
        else:
            fields[name] = _typed(value, kind, f"{path}.{name}")
    made = cls(**fields)
    check_ranges(made, path=path)
    return made


def check_ranges(config: Any, *, path: str = "config") -> None:
    """Refuses a config dataclass that holds a number outside its range (`mmt_jax.configs.ranges`).

    Raises:
      UsageError: names the field, as `path` and its own name, and the range.
    """
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{path}.{field.name}"
        if dataclasses.is_dataclass(value):
            check_ranges(value, path=name)
            continue
        fault = ranges.fault(type(config), field.name, value)
        if fault:
            raise UsageError(f"{name} is {value}; {fault}")


def _family(name: Any, path: str) -> type[ModelConfig]:
    if not isinstance(name, str) or name not in FAMILIES:
        raise UsageError(f"{path}.family={name!r} is unknown; there are {', '.join(FAMILIES)}")
    return FAMILIES[name]


@functools.cache  # parses every annotation of the class
def _hints(cls: type) -> dict[str, Any]:
    """Types of a dataclass's fields by name; of `ModelConfig`, those of every family."""
    kinds = {*FAMILIES.values()} if cls is ModelConfig else {cls}
    return {
        field.name: typing.get_type_hints(kind)[field.name]
        for kind in sorted(kinds, key=lambda kind: kind.__name__)
        for field in dataclasses.fields(kind)
    }


def field_names(cls: type) -> list[str]:
    """Names of a config dataclass's fields; of `ModelConfig`, those of every family."""
    return list(_hints(cls))


def field_type(cls: type, name: str, *, path: str) -> Any:
    """The type of a field of a config dataclass; `path` is how errors name the dataclass.

    Raises:
      UsageError: there is no such field; the nearest right name is given.
    """
    hints = _hints(cls)
    if name not in hints:
        near = difflib.get_close_matches(name, hints, n=1)
        hint = f"did you mean {path}.{near[0]}?" if near else f"it has {', '.join(hints)}"
        raise UsageError(f"{path}.{name} is not a field; {hint}")
    return hints[name]


def _typed(value: Any, hint: Any, path: str) -> Any:
    """`value` as the type `hint`: JSON's lists become tuples, whole numbers become floats."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return None if value is None else _typed(value, args[0], path)
    if origin is tuple and isinstance(value, list | tuple):
        if args[-1] is Ellipsis:
            return tuple(_typed(v, args[0], f"{path}[{i}]") for i, v in enumerate(value))
        if len(args) == len(value):
            return tuple(_typed(v, a, path) for v, a in zip(value, args, strict=True))
    elif hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and type(value) is hint:
        return value
    wanted = hint.__name__ if isinstance(hint, type) and origin is None else str(hint)
    raise UsageError(f"{path} must be {wanted}, not {value!r}")
