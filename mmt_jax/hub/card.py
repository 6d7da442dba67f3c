"""The README.md of what is exported: a model card, as people and Hugging Face read it."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np

from mmt_jax.configs.config import Config
from mmt_jax.configs.tasks import TASKS
from mmt_jax.models import checks
from mmt_jax.models.base import Model
from mmt_jax.typing import Params
from mmt_jax.version import version

FILE = "README.md"
_CARD = """---
{front}
---

# {name}

A model of the family {family} with {parameters:,} parameters, made with mmt_jax {version}. It
{does}; it reads {reads}.

## How to call it

```python
{usage}
```

## Data and recipe

{recipe}

## Scores

{scores}

## Licence

Not stated. What these weights may be used for depends on what they were trained on and began from:
say it here, and as `license` above, before you pass them on. mmt_jax itself is under Apache 2.0.
"""
_SAVED_MODEL = """import mmt_jax
import tensorflow_hub as hub

module = hub.load("FOLDER")  # its signatures: {signatures}; its config: assets/mmt.json
inputs = module.signatures["{first}"].structured_input_signature[1]  # names, shapes, dtypes

scorer = mmt_jax.load("FOLDER")  # prepares photos and sentences
{call}"""
_TRANSFORMERS = """import transformers

model = transformers.{architecture}.from_pretrained("FOLDER")
tokenizer = transformers.AutoTokenizer.from_pretrained("FOLDER")"""


def saved_model(config: Config, signatures: Collection[str]) -> str:
    """How a SavedModel with these signatures is called."""
    two = checks.asked_about(config) > 1
    photos = '["left.jpg", "right.jpg"]' if two else '"photo.jpg"'
    call = f'scorer.answer({photos}, "a question or sentence")  # labels and probabilities'
    if "default" in signatures:
        call = 'scorer.score("photo.jpg", ["a dog", "a cat"])  # the probabilities of a match'
    if not config.model.pixels:
        call += (
            "\n# Photos are given as records of regions, or with detector=, the one of its data."
        )
    return _SAVED_MODEL.format(
        signatures=", ".join(signatures), first=next(iter(signatures)), call=call
    )


def transformers(architecture: str, *, photos: bool) -> str:
    """How a folder of Hugging Face's is called; `photos`: it says how they are prepared."""
    processor = '\nprocessor = transformers.AutoImageProcessor.from_pretrained("FOLDER")'
    return _TRANSFORMERS.format(architecture=architecture) + processor * photos


def text(
    model: Model,
    params: Params,
    usage: str,
    *,
    step: int,
    metrics: Mapping[str, float],
    library: str,
) -> str:
    """The card of a model.

    Args:
      model, params: its functions and parameters.
      usage: how to call it, in Python.
      step: how long it was trained; 0 = its weights were imported.
      metrics: of its checkpoint; those of an evaluation are shown.
      library: what loads it, by Hugging Face's name.
    """
    config = public(model.config)
    name, task = config.tag or config.model.family, config.task.name
    kind, does = _purpose(config)
    shown = {
        metric: round(value, 4)
        for metric, value in sorted(metrics.items())
        if (metric == config.eval.best or "_retrieval/" in metric) and math.isfinite(value)
    }
    front: dict[str, Any] = {
        "language": "en",
        "license": "unknown",
        "library_name": library,
        "pipeline_tag": kind,
        "tags": ["mmt_jax", config.model.family, *([task] if task else [])],
    }
    if shown:
        source = task or config.eval.source or config.data.source
        result = {
            "task": {"type": kind},
            "dataset": {"name": source, "type": source},
            "metrics": [{"type": metric, "value": value} for metric, value in shown.items()],
        }
        front["model-index"] = [{"name": name, "results": [result]}]
    rows = "\n".join(f"| {metric} | {value} |" for metric, value in shown.items())
    return _CARD.format(
        front="\n".join(f"{key}: {json.dumps(value)}" for key, value in front.items()),
        name=name,
        family=config.model.family,
        parameters=sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(params)),
        version=version(),
        does=does,
        reads=_reads(config),
        usage=usage,
        recipe=_recipe(model, config, step),
        scores=f"Of step {step}.\n\n| metric | value |\n|---|---|\n{rows}"
        if rows
        else "None were measured while it was trained; `mmt eval` measures them.",
    )


def _purpose(config: Config) -> tuple[str, str]:
    """Its kind by Hugging Face's name, and what it does."""
    task = config.task.name
    if photos := checks.asked_about(config):
        about = "two photos" if photos > 1 else "a photo"
        return (
            "visual-question-answering",
            f"answers questions about {about}, as of {task or 'VQA'}",
        )
    if config.objective.itm != "none":
        return "zero-shot-image-classification", "tells how well a caption fits a photo"
    if config.model.num_answers:
        photo = TASKS[task].reads == ("image",)
        kind = "image-classification" if photo else "text-classification"
        return kind, f"answers as {task} asks"
    return (
        ("fill-mask", "fills in words")
        if config.objective.mlm
        else ("feature-extraction", "encodes")
    )


def _reads(config: Config) -> str:
    data, model = config.data, config.model
    told = {"text": f"sentences of at most {data.text_length} pieces"}
    if model.pixels:
        told["image"] = f"photos in patches of {model.patch_size} × {model.patch_size} pixels"
    elif model.feature_dim:
        regions = f"{data.max_regions} regions of photos, {model.feature_dim} features each"
        told["image"] = f"at most {regions}"
    asked = TASKS[config.task.name].reads if config.task.name else told
    return " and ".join(told[kind] for kind in told if kind in asked)


def _learned(model: Model) -> str:
    """The losses that were trained, and their weights."""
    config, objective = model.config, model.config.objective
    kind = objective.itm if objective.loss == "softmax" else f"{objective.itm}, {objective.loss}"
    weights = {
        f"answers to {config.task.name}": objective.answers if config.task.name else 0,
        f"itm ({kind})": objective.itm != "none",
        "itc": objective.itc if model.embeds and not model.separable else 0,
        "mlm": objective.mlm,
        "mrm": objective.mrm,
    }
    return ", ".join(f"{name} × {weight:g}" for name, weight in weights.items() if weight)


def public(config: Any) -> Any:
    """A config whose texts name, of a path on this machine, its last part alone."""
    changes = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = public(value)
        elif isinstance(value, str):
            parts = [part.strip() for part in value.split(",")]
            if (shown := [*map(_last, parts)]) != parts:
                changes[field.name] = ", ".join(shown)
    return dataclasses.replace(config, **changes)


def _last(source: str) -> str:
    """Of one source or folder; `photos:FOLDER?captions=FILE` names two."""
    local = source.startswith(("/", "~", "."))
    scheme, colon, path = ("", "", source) if local else source.partition(":")
    if path.startswith("//") or not (colon or local):
        return source
    names = (pathlib.PurePath(part).name for part in path.split("?captions="))
    return scheme + colon + "?captions=".join(names)


def _recipe(model: Model, config: Config, step: int) -> str:
    """`config` is that of `model`, as `public` has it."""
    if not step:
        return "Its weights were imported: the card that they came with tells how they were made."
    optim, data = config.optim, config.data
    told = {
        "data": f"`{data.source}`, split `{data.split}`",
        "learned": _learned(model),
        "steps": f"{step} of {config.steps}, each of {config.batch_size} records; {config.dtype}",
        "optimiser": f"{optim.name}, {optim.schedule} from {optim.lr:g}, seed {config.seed}",
        "began from": f"`{config.init_from or config.pretrained or 'fresh weights'}`",
    }
    return "\n".join(f"- {name}: {value}" for name, value in told.items())
