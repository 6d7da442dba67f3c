"""Detectors: from a picture to regions, each with a box, a feature and what it seems to show.

One small file each. A detector is named as `NAME:MODEL,OPTION=VALUE,…`, such as
`tflite:mobilenet.tflite,features=MobilenetV2/Logits/AvgPool,labels=imagenet_labels.txt`.
"""

from __future__ import annotations

import inspect

from mmt_jax.detectors import frozen_graph, grid, onnx, savedmodel, tflite, torchvision
from mmt_jax.detectors.base import Detector
from mmt_jax.errors import UsageError, nearest

# A detector is a module: MODEL says what its model is, and `load(model, *, …)` reads it. The
# keyword-only arguments are the options: strings, "" where there is a default.
_MODULES = {
    module.__name__.rpartition(".")[2]: module
    for module in (frozen_graph, savedmodel, torchvision, tflite, onnx, grid)
}
DETECTORS = {name: module.MODEL for name, module in _MODULES.items()}


def load(spec: str) -> Detector:
    """The detector that `NAME:MODEL,OPTION=VALUE,…` names; its file is read here.

    Raises:
      UsageError: no such detector, model, option or file.
    """
    name, _, rest = spec.partition(":")
    if name not in DETECTORS:
        raise UsageError(f"there is no detector {name!r}; {nearest(name, DETECTORS)}")
    model, *pairs = rest.split(",")
    if not model:
        raise UsageError(f"--detector={spec} lacks its model: {name}:MODEL, {DETECTORS[name]}")
    build = _MODULES[name].load
    known = inspect.signature(build).parameters.values()
    known = {each.name: each.default for each in known if each.kind is each.KEYWORD_ONLY}
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
    return build(model, **options)
