"""Names that parameters had in checkpoints written before layers and heads were one library."""

from __future__ import annotations

import re

import numpy as np

from mmt_jax import params as params_lib
from mmt_jax.typing import Params

_STREAM = r"(streams/layers/\d+/\w+)/"
RENAMED = (
    (_STREAM + r"(attention|mlp)_norm/(\w+)", r"\1/\2/norm/\3"),
    (_STREAM + r"mlp_in/(\w+)", r"\1/mlp/hidden/\2"),
    (_STREAM + r"mlp_out/(\w+)", r"\1/mlp/out/\2"),
)
_REGIONS = "region_head/out/"  # classes and features side by side


def outdated(params: Params) -> bool:
    """Whether some names are old; arrays are not looked at."""
    paths = params_lib.flatten(params)
    return any(p.startswith(_REGIONS) or _renamed(p) != p for p in paths)


def current(params: Params, *, num_classes: int) -> Params:
    """Parameters, numpy arrays, under today's names; `num_classes` of the model's regions."""
    flat = {}
    for path, leaf in params_lib.flatten(params).items():
        if not path.startswith(_REGIONS):
            flat[_renamed(path)] = leaf
            continue
        parts = np.split(np.asarray(leaf), [num_classes], axis=-1)
        for name, part in zip(("classes", "features"), parts, strict=True):
            if part.shape[-1]:
                flat[f"region_head/outs/{name}/{path.removeprefix(_REGIONS)}"] = part
    return params_lib.unflatten(flat)


def _renamed(path: str) -> str:
    for old, new in RENAMED:
        if match := re.fullmatch(old, path):
            return match.expand(new)
    return path
