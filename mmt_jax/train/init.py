"""Starting from what another run has learned."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mmt_jax import params as params_lib
from mmt_jax.configs import variants
from mmt_jax.configs.config import SIZES, Config, ModelConfig, as_dict, resolve
from mmt_jax.errors import UsageError
from mmt_jax.models.base import Model
from mmt_jax.nn.kinds import kinds
from mmt_jax.tasks import labels as labels_lib
from mmt_jax.tasks import vqa
from mmt_jax.text.vocabulary import stored
from mmt_jax.train import checkpoint, published
from mmt_jax.train.workdir import read_config
from mmt_jax.typing import Params

SHOWN = 3  # parameters at odds that a message lists

# Of these a row's own values always stand: who it is, and how it is best optimised.
_OWN = ("tag", "pretrained", "init_from", "optim")
# Of these they stand where the two rows differ: BERT has other layers and losses than who starts
# from it, but a width that was changed is changed for both.
_SHAPE = ("model", "objective")


def pretraining(config: Config) -> Config:
    """The run that `config.pretrained` stands for, with what the user changed in `config`.

    A field was changed where it differs from the row of `config.tag`. `optim` is never carried
    over; `model` and `objective` are where both rows agree on the field, but no loss that the run
    does not have.
    """
    row = _flat(variants.get_config(config.tag, scale=config.scale))
    source = _flat(variants.get_config(config.pretrained, scale=config.scale))
    sized = {f"model/{name}" for name in SIZES}
    for path, value in _flat(config).items():
        top = path.split("/")[0]
        shared = top not in _SHAPE or row[path] == source[path]
        shared &= top != "objective" or bool(source[path])
        if value != row[path] and top not in _OWN and shared and path not in sized:
            source[path] = value
    return resolve(params_lib.unflatten(source))


def _flat(config: Config) -> dict[str, object]:
    return params_lib.flatten(as_dict(config))


def sources(init_from: str | None) -> list[pathlib.Path]:
    """The workdirs that `config.init_from` names; of published weights one is made."""
    return [published.workdir(name) for name in (init_from or "").split(",") if name]


def models(config: Config, workdirs: Sequence[pathlib.Path]) -> dict[pathlib.Path, ModelConfig]:
    """What the runs are of; in front that whose words are read, with its vocabulary."""
    found = {workdir: read_config(workdir).model for workdir in workdirs}
    first = sorted(found, key=lambda w: "max_positions" not in fixed(config.model, found[w]))
    return {workdir: found[workdir] for workdir in first}


def beside(config: Config, workdirs: Sequence[pathlib.Path]) -> Config:
    """`config` from fresh weights, of the sizes and with the vocabulary of runs."""
    theirs = models(config, workdirs)
    for model in theirs.values():
        config = sized(config, model)
    vocab = next(filter(None, map(stored, theirs)), config.data.vocab)
    data = dataclasses.replace(config.data, vocab=vocab and str(vocab))
    return dataclasses.replace(config, init_from=None, data=data)


def fixed(ours: ModelConfig, theirs: ModelConfig) -> Mapping[str, str]:
    """Fields of `ours` that weights of `theirs`, taken to start from, fix, with theirs."""
    if (listed := ours.origins.get(theirs.family)) is not None:
        return listed
    if ours.family != theirs.family:
        return {}
    names = (field.name for field in dataclasses.fields(ours))
    return {name: name for name in names if name not in (*SIZES, *ours.free)}


def sized(config: Config, theirs: ModelConfig) -> Config:
    """The config with the sizes of the weights that it starts from, where these fix them.

    Of the study's rows, fields that differ from the row are the user's and stay. Where layers are
    BERT's, first ones of it, there are at most as many; where the study's models begin with
    language-specific layers, there are so many that all layers in which text reads text are as many
    as the stack's.
    """
    sizes = {}
    for name, other in fixed(config.model, theirs).items():
        value = getattr(theirs, other)
        sizes[name] = min(getattr(config.model, name), len(value)) if other == "layers" else value
    if "layout" in sizes:  # the study's models
        layers = (_row(config) or config.model).layers
        others = tuple(itertools.dropwhile("text".__eq__, layers))
        if len(others) < len(layers):
            reading = sum("text" in kind.text for kind in kinds(others))
            layers = ("text",) * max(len(theirs.layers) - reading, 0) + others
        sizes["layers"] = layers
    return _with_sizes(config, sizes)


def as_stored(config: Config, model: ModelConfig) -> Config:
    """The config of a run that goes on, with what its origins have fixed of its stored model."""
    names = {*fixed(config.model, model)}.union(*model.origins.values())
    if model.family in ("mmt", "two_tower", "bert"):
        names.add("layers")
    return _with_sizes(config, {name: getattr(model, name) for name in names})


def _with_sizes(config: Config, sizes: Mapping[str, Any]) -> Config:
    row = _row(config)
    if row is not None:
        sizes = {n: v for n, v in sizes.items() if getattr(config.model, n) == getattr(row, n)}
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **sizes))


def _row(config: Config) -> ModelConfig | None:
    """The model of the study's row that a config is made of; None = it is of another system."""
    rows = (*variants.VARIANTS, *variants.ALIASES, variants.BERT.tag)
    row = variants.get_config(config.tag, scale=config.scale).model if config.tag in rows else None
    return row if type(row) is type(config.model) else None


def changes(before: ModelConfig, after: ModelConfig) -> str:
    """What `sized` has changed, as flags that would do the same; "" = nothing."""
    names = [field.name for field in dataclasses.fields(after)]
    names.sort(key=lambda name: hasattr(ModelConfig, name))  # the family's own in front
    return _flags({n: v for n in names if (v := getattr(after, n)) != getattr(before, n)})


def _flags(values: Mapping[str, Any]) -> str:
    """Fields of a model's config as a command line sets them."""
    return " ".join(
        f'--config.model.{name}="{value}"'
        if isinstance(value, tuple)
        else f"--config.model.{name}={value}"
        for name, value in values.items()
    )


def params(
    workdirs: Sequence[str | os.PathLike],
    model: Model,
    key: jax.Array,
    say: Callable[[str], None],
    *,
    labels: Sequence[str] = (),
) -> Params:
    """Parameters of `model` that start from the best checkpoints of runs.

    A text-only source (family "bert") gives what it has: its embeddings, its word head, and its
    layers in order to the layers in which the model's text stream reads itself; to families with a
    text encoder of BERT's (`nn.embed.TextEncoder`) its embeddings and as many layers as that
    has. A source with another kind of config gives the towers that are built alike. Any other must
    have the parameters of `model`, heads aside: a head that only one of them has, or that differs
    in a size (as with another detector's classes), begins fresh. A head of answers starts from what
    both have: see `_answers`.

    Of what several have, the last one's is taken. `key` is of the parameters that the sources lack;
    `labels` are the run's answers by number; `say` is told what was taken, which layers were not,
    and what stayed fresh.

    UsageError: no workdir, or parameters that are missing, extra or misshapen: the first of them
    and the sizes that differ are named.
    """
    taken: Params = {}
    for workdir in workdirs:
        part = _taken(workdir, model, labels, say)
        say(f"taken from {workdir}: {_summary(part)}")
        taken = params_lib.merge(taken, part)
    known = params_lib.flatten(taken)
    fresh = params_lib.select(model.abstract(), lambda path: path not in known)
    if not fresh:
        return taken
    say(f"fresh: {_summary(fresh)}")
    return params_lib.merge(model.init(key), taken)


def _taken(
    workdir: str | os.PathLike, model: Model, labels: Sequence[str], say: Callable[[str], None]
) -> Params:
    """What `model` takes from one source."""
    source = checkpoint.load(workdir)
    theirs, ours = source.model.config.model, model.config.model
    taken, wanted = source.params, model.abstract()
    if theirs.family not in (families := dict.fromkeys((ours.family, *ours.origins))):
        raise UsageError(
            f"{model.config.tag or 'this model'} cannot start from {workdir}, of family "
            f"{theirs.family}: weights of {' or '.join(families)} have parts in common with it"
        )
    if type(theirs) is type(ours):
        taken = _answers(model.adopt(taken), labels_lib.known(workdir), labels, say)
    if theirs.family == "bert" != ours.family:
        taken, number = _language(source, model)
        if number < (there := len(theirs.layers)):
            field = {of: name for name, of in fixed(ours, theirs).items()}.get("layers", "layers")
            say(
                f"layers taken from {workdir}: the first {number} of {there}, as many as "
                f"config.model.{field} has room for"
            )
        paths = params_lib.flatten(taken).__contains__
    elif type(theirs) is type(ours):
        paths = _shared_heads(taken, wanted)
    else:
        taken = _first_segments(taken, wanted)
        paths = _shared_towers(taken, wanted)
    taken, wanted = (params_lib.select(tree, paths) for tree in (taken, wanted))
    if differ := params_lib.differences(taken, wanted):
        more = [f"and {len(differ) - SHOWN} parameters more"] if len(differ) > SHOWN else []
        apart = _sizes_apart(ours, theirs)
        said = [
            f"config.model.{n} is {getattr(ours, n)!r} and there {v!r}" for n, v in apart.items()
        ]
        wrong = "; ".join([*said, *differ[:SHOWN], *more])
        flags = _flags({name: value for name, value in apart.items() if name not in SIZES})
        raise UsageError(
            f"{model.config.tag or 'this model'} cannot start from {workdir} "
            f"({source.config.tag}): {wrong}; train with that run's sizes and objective"
            f"{f' ({flags})' if flags else ''}, or start from another run"
        )
    return taken


def _sizes_apart(ours: ModelConfig, theirs: ModelConfig) -> dict[str, Any]:
    """What the configs of a model and of what it starts from say differently, by name: theirs."""
    names = fixed(ours, theirs)
    if type(ours) is type(theirs) and not (theirs.family == "bert" != ours.family):
        fields = (field.name for field in dataclasses.fields(ours))
        names = {name: name for name in fields if name not in ours.free}
    found = {name: getattr(theirs, other) for name, other in names.items()}
    return {  # of BERT's layers, those that are there are enough
        name: value
        for name, value in found.items()
        if value != getattr(ours, name) and (names[name] != "layers" or name == "layers")
    }


def _answers(
    source: Params, theirs: Sequence[str], ours: Sequence[str], say: Callable[[str], None]
) -> Params:
    """Parameters of a run whose head knows the answers `theirs`, for one that knows `ours`.

    As LXMERT goes from pre-training to a task: an answer starts as the source has it, by its normal
    form (`tasks.vqa.normalise`), and one that the source does not know with zeros. Without
    an answer in common the head is left out.
    """
    if "answer_head" not in source or not theirs or not ours or [*theirs] == [*ours]:
        return source
    known = {vqa.normalise(name): number for number, name in reversed([*enumerate(theirs)])}
    known |= {name: number for number, name in enumerate(theirs)}
    places = [known.get(name, known.get(vqa.normalise(name), -1)) for name in ours]
    rows = np.array(places)
    say(f"{(rows >= 0).sum()} of {len(ours)} answers are known there")
    if (rows < 0).all():
        return {name: part for name, part in source.items() if name != "answer_head"}
    out = {
        name: np.where(rows < 0, 0, np.asarray(leaf)[..., rows])
        for name, leaf in source["answer_head"]["out"].items()
    }
    return {**source, "answer_head": {**source["answer_head"], "out": out}}


def _head(path: str) -> str:
    """The head that a parameter belongs to; "" is the body."""
    match = re.match(r"(\w+_head|match|score|calibration|pool_(?:text|image))/", path)
    return match[1] if match else ""


def _shared_heads(tree: Params, other: Params) -> Callable[[str], bool]:
    """Whether a path is of a head that is the same in both, or of the body."""
    shapes = [{p: leaf.shape for p, leaf in params_lib.flatten(t).items()} for t in (tree, other)]
    differ = {_head(path) for path, _ in shapes[0].items() ^ shapes[1].items()} - {""}
    return lambda path: _head(path) not in differ


def _shared_towers(tree: Params, other: Params) -> Callable[[str], bool]:
    """Whether a path is of a tower that both have; if they have none, everything is compared."""

    def parts(tree: Params, tower: str) -> set[str]:
        """Names of a tower's parameters, whatever the number of layers."""
        paths = params_lib.flatten(tree)
        return {re.sub(r"\d+", "*", path) for path in paths if path.startswith(tower)}

    shared = tuple(t for t in ("text/", "image/") if parts(tree, t) == parts(other, t) != set())
    return lambda path: not shared or path.startswith(shared)


def _language(source: checkpoint.Trained, model: Model) -> tuple[Params, int]:
    """The parameters of a text-only run under the paths of `model`, and of how many layers."""
    wanted = params_lib.flatten(model.abstract())
    if encoder := "text/embed/tokens/embedding" in wanted:
        places = {n: f"text/stack/layers/{n}" for n in _text_layers(source.model)}
    else:
        tied = [kind.tied for kind in kinds(model.config.model.layers)]
        pairs = zip(_text_layers(source.model), _text_layers(model))
        places = {n: f"streams/layers/{m}/{'shared' if tied[m] else 'text'}" for n, m in pairs}
    taken, layers = {}, set()
    for path, leaf in params_lib.flatten(source.params).items():
        if match := re.fullmatch(r"streams/layers/(\d+)/text/(.*)", path):
            path = f"{places.get(int(match[1]))}/{match[2]}"
            layers.update({match[1]} if path in wanted else ())
        elif encoder:
            path = path.replace("text/", "text/embed/", 1)
        if path in wanted:
            taken[path] = leaf
    return _first_segments(params_lib.unflatten(taken), model.abstract()), len(layers)


def _first_segments(tree: Params, wanted: Params) -> Params:
    """`tree` with as many segments as its tables have in `wanted`; more are read by nothing."""
    shapes = {path: leaf.shape for path, leaf in params_lib.flatten(wanted).items()}
    flat = params_lib.flatten(tree)
    for path in (p for p in flat.keys() & shapes.keys() if p.endswith("segments/embedding")):
        flat[path] = flat[path][: shapes[path][0]]
    return params_lib.unflatten(flat)


def _text_layers(model: Model) -> list[int]:
    """Numbers of the layers in which text reads text."""
    return [i for i, kind in enumerate(kinds(model.config.model.layers)) if "text" in kind.text]


def _summary(tree: Params) -> str:
    """How much, and which: layer numbers and names of leaves are left out."""
    flat = params_lib.flatten(tree)
    groups = dict.fromkeys(
        re.sub(r"/\d+/", "/*/", re.sub(r"(/(kernel|bias|scale|embedding))$", "", path))
        for path in flat
    )
    size = sum(leaf.size for leaf in flat.values())
    return f"{len(flat)} arrays, {size:,} values: {', '.join(groups)}"
