"""Names that parameters had in checkpoints written before one library of layers served all."""

from __future__ import annotations

import re

from mmt_jax import params as params_lib
from mmt_jax.typing import Params

_STREAM = r"(streams/layers/\d+/\w+)/"
RENAMED = (
    (_STREAM + r"(attention|mlp)_norm/(\w+)", r"\1/\2/norm/\3"),
    (_STREAM + r"mlp_in/(\w+)", r"\1/mlp/hidden/\2"),
    (_STREAM + r"mlp_out/(\w+)", r"\1/mlp/out/\2"),
)
REGIONS = "region_head/out/"  # classes and features side by side


def outdated(params: Params) -> bool:
    """Whether some names are old; arrays are not looked at."""
    return any(p.startswith(REGIONS) or renamed(p) != p for p in params_lib.flatten(params))


def renamed(path: str) -> str:
    """Today's name; itself where it has not changed."""
    for old, new in RENAMED:
        if match := re.fullmatch(old, path):
            return match.expand(new)
    return path


def current(params: Params, num_classes: int) -> Params:
    """Parameters under today's names, of a model with so many classes of regions."""
    flat = {}
    for path, leaf in params_lib.flatten(params).items():
        if not path.startswith(REGIONS):
            flat[renamed(path)] = leaf
            continue
        parts = {"classes": leaf[..., :num_classes], "features": leaf[..., num_classes:]}
        for name, part in parts.items():
            if part.size:
                flat[f"region_head/outs/{name}/{path.removeprefix(REGIONS)}"] = part
    return params_lib.unflatten(flat)
