"""Detectors: from a picture to regions, each with a box, a feature and what it seems to show.

One small file each. A detector is named as `NAME:MODEL,OPTION=VALUE,…`, such as
`tflite:mobilenet.tflite,features=MobilenetV2/Logits/AvgPool,labels=imagenet_labels.txt`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable

from mmt_jax.detectors.base import Detector
from mmt_jax.errors import UsageError

# Name → what MODEL is. The module of that name has a function `load(model, *, …)`, whose
# keyword-only arguments are the options: strings, "" where there is a default.
DETECTORS = {
    "frozen_graph": "a frozen graph of the TF Object Detection API, as MMT's release uses one",
    "savedmodel": "a SavedModel that returns boxes, scores and features",
    "torchvision": "a Faster R-CNN of torchvision, by its builder's name",
    "tflite": "a .tflite classifier, over a grid of boxes at several scales",
    "onnx": "an .onnx classifier, over a grid of boxes at several scales",
    "grid": "a workdir of `mmt import --model=clip`; patches are regions",
}


def load(spec: str) -> Detector:
    """The detector that `NAME:MODEL,OPTION=VALUE,…` names; its file is read here.

    Raises:
      UsageError: no such detector, model, option or file.
    """
    name, _, rest = spec.partition(":")
    if name not in DETECTORS:
        near = difflib.get_close_matches(name, DETECTORS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(DETECTORS)}"
        raise UsageError(f"there is no detector {name!r}; {hint}")
    model, *pairs = rest.split(",")
    if not model:
        raise UsageError(f"--detector={spec} lacks its model: {name}:MODEL, {DETECTORS[name]}")
    build = importlib.import_module(f"mmt_jax.detectors.{name}").load
    return build(model, **_options(build, name, pairs))


def _options(build: Callable, name: str, pairs: list[str]) -> dict[str, str]:
    """The options by name, each of which `build` must have."""
    known = inspect.signature(build).parameters.values()
    known = {p.name: p.default for p in known if p.kind is p.KEYWORD_ONLY}
    parts = [pair.partition("=") for pair in pairs]
    options = {option: value for option, _, value in parts}
    for option, value in options.items():
        if option not in known or not value:
            raise UsageError(
                f"the detector {name} has no option {option!r}, or it lacks its value; there are "
                f"{', '.join(f'{o}=…' for o in known)}"
            )
    for option, default in known.items():
        if default is inspect.Parameter.empty and option not in options:
            raise UsageError(f"the detector {name} needs {option}=…, as in {name}:MODEL,{option}=…")
    return options
