"""Published weights as runs of ours: one file of names for each family, and one engine.

`load` reads a folder (or a hub id) into a config, parameters and a tokenizer, which
`train.checkpoint.write` makes a workdir of; `save` goes the other way.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pathlib
import re
import types
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from mmt_jax import params as params_lib
from mmt_jax.configs.config import Config, as_dict, resolve
from mmt_jax.configs.models import NAMES
from mmt_jax.errors import UsageError
from mmt_jax.hub import card, preparation, questions
from mmt_jax.hub import folders as hub
from mmt_jax.models import registry
from mmt_jax.models import weight_fields as fields
from mmt_jax.models import weights as engine
from mmt_jax.models.weights import Importer
from mmt_jax.tasks import labels as labels_lib
from mmt_jax.text import huggingface, pretrained
from mmt_jax.text.base import Tokenizer
from mmt_jax.typing import Params

PADDING = 128  # rows by which a vocabulary may be padded, to a multiple of 8 or more
# Families with published weights: those that say how to read them.
MODELS = tuple(name for name in sorted(NAMES) if find_spec(f"mmt_jax.models.{name}.weights"))


@dataclasses.dataclass(frozen=True)
class Imported:
    """What a workdir is made of."""

    config: Config
    params: Params
    tokenizer: Tokenizer
    others: Mapping[str, bytes]  # content of further files by name


def load(
    source: str | os.PathLike,
    model: str = "",
    *,
    task: str = "",
    labels: str | os.PathLike | None = None,
) -> Imported:
    """Reads published weights.

    Args:
      source: a folder with `config.json`, the weights and the vocabulary, or a hub id.
      model: one of MODELS; "" = as `config.json` says.
      task: what they were fine-tuned on, a name in `TASKS`; "" = as they tell, if they were.
      labels: a JSON list of their answers by number; None = as `config.json` or the task has them.

    Raises:
      UsageError: no such source or model, a config of another model, weights that are damaged or
        do not fit the config (every fault is listed), no vocabulary, or answers to questions that
        nobody names.
    """
    importer = _find(model) if model else None
    folder = hub.folder(source)
    foreign = hub.read_config(folder)
    kind = foreign.get("model_type")
    if importer is None:
        importer = _find(model := str(kind), f"{folder} holds a model of the type {kind!r}, which")
    if kind != model:
        raise UsageError(
            f"{folder} has the config of a model of the type {kind!r}, and --model={model} reads "
            f"{model}; give the right --model"
        )
    arrays, vocabulary = hub.read_arrays(folder), folder
    if importer.part and (part := folder / importer.part).is_dir():
        foreign, vocabulary = {**foreign, importer.part: hub.read_config(part)}, part
        arrays |= {f"{importer.part}.{key}": x for key, x in hub.read_arrays(part).items()}
    arrays = _renamed(arrays, importer, folder)
    config = resolve(as_dict(importer.config(foreign, arrays)), path=f"{folder}: config")
    config = questions.asked(config, foreign, task, name=str(folder))
    names = questions.labels(config, foreign, labels, name=str(folder))
    tokenizer = pretrained.read(vocabulary)
    padding = config.model.vocab_size - tokenizer.vocab_size
    if not 0 <= padding < PADDING or (padding and config.model.vocab_size % 8):
        raise UsageError(
            f"{folder} has a vocabulary of {tokenizer.vocab_size} pieces, but its config says "
            f"{config.model.vocab_size}; put the vocabulary of these weights there"
        )
    special = {"mask_id": tokenizer.mask_id, "pad_id": tokenizer.pad_id}
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, **special))
    fresh = params_lib.flatten(importer.fresh(config))
    wanted = params_lib.select(registry.build(config).abstract(), lambda p: p not in fresh)
    params = engine.convert(arrays, importer.table(config), wanted, name=str(folder))
    params = params_lib.merge(params, params_lib.unflatten(fresh))
    if padding:
        config, params = _cut(config, params, tokenizer.vocab_size)
    others = {}
    if config.model.pixels and (settings := preparation.read(folder)):
        preparation.processor(settings, config, name=str(folder))  # or it is refused
        others[preparation.FILE] = json.dumps(settings, indent=2, sort_keys=True).encode()
    if names:
        others[labels_lib.FILE] = labels_lib.as_json(names)
    return Imported(config, params, tokenizer, others)


def save(
    config: Config,
    params: Params,
    tokenizer: Tokenizer,
    out: str | os.PathLike,
    *,
    settings: Mapping[str, Any] | None = None,
    labels: Sequence[str] = (),
    step: int = 0,
    metrics: Mapping[str, float] = types.MappingProxyType({}),
) -> None:
    """Writes a folder that the family's own library loads with `from_pretrained`.

    `settings` are of photos, as `preparation.read` gives them, None = the family's own. `labels`
    are what its answers are called, by number; () = it answers nothing, or nobody knows. The card
    says after which `step`, and with which `metrics`.

    Raises:
      UsageError: the family has no published counterpart, this model has parameters that the
        counterpart has not, or its vocabulary cannot be written for transformers.
    """
    family = config.model.family
    importer = _find(family) if family in MODELS else None
    if importer is None or importer.save_config is None:
        raise UsageError(
            f"models of the family {family} have no counterpart in transformers; export them as a "
            f"SavedModel (leave --format out)"
        )
    foreign = fields.nest(importer.save_config(config) | {"model_type": family})
    foreign |= questions.saved(config, labels)
    fresh = params_lib.flatten(importer.fresh(config))
    arrays = engine.revert(
        params_lib.select(params, lambda p: p not in fresh), importer.table(config)
    )
    arrays |= importer.zeros(config)
    if any(key.startswith(importer.heads) for key in arrays):
        own = {key: "" if key.startswith(importer.heads) else f"{family}." for key in arrays}
        arrays = {own[key] + key: value for key, value in arrays.items()}
    others = huggingface.files(tokenizer)
    if config.model.pixels:
        settings = settings or preparation.settings(config)
        others[preparation.FILE] = json.dumps(settings, indent=2, sort_keys=True).encode()
    usage = card.transformers(foreign["architectures"][0], photos=preparation.FILE in others)
    model = registry.build(config)
    about = card.text(model, params, usage, library="transformers", step=step, metrics=metrics)
    others[card.FILE] = about.encode()
    hub.write(pathlib.Path(out), foreign, arrays, others=others)


def _renamed(
    arrays: Mapping[str, np.ndarray], importer: Importer, folder: pathlib.Path
) -> dict[str, np.ndarray]:
    """The arrays under the table's names."""
    keys: dict[str, str] = {}
    for key in arrays:
        # As a model wrapped in DataParallel is saved.
        if other := keys.get(name := importer.rename(key.removeprefix("module."))):
            raise UsageError(
                f"{folder} has {other} and {key}, which are two names for the same; leave one of "
                f"them out"
            )
        keys[name] = key
    return {name: arrays[key] for name, key in keys.items()}


def _cut(config: Config, params: Params, size: int) -> tuple[Config, Params]:
    """Without the rows of a vocabulary that was padded for speed: no piece has them."""
    flat = params_lib.flatten(params)
    for path, leaf in flat.items():
        if re.fullmatch(r"text/(embed/)?tokens/embedding|word_head/bias", path):
            flat[path] = leaf[:size]
        elif path == "word_head/decoder/kernel":
            flat[path] = leaf[:, :size]
    model = dataclasses.replace(config.model, vocab_size=size)
    return dataclasses.replace(config, model=model), params_lib.unflatten(flat)


def _find(model: str, named: str = "") -> Importer:
    if model not in MODELS:
        named = named or f"--model={model}"
        raise UsageError(f"{named} cannot be imported; there are {', '.join(MODELS)}")
    return importlib.import_module(f"mmt_jax.models.{model}.weights").IMPORTER
