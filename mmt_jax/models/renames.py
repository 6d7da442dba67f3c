"""Names that parameters had in checkpoints written before one library of layers served all."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

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


def current(params: Params, num_classes: int, part: Callable[[Any, int, int], Any]) -> Params:
    """Parameters under today's names.

    Args:
      params: as they were stored, arrays or what is known of them.
      num_classes: of the model's regions.
      part: a leaf, and from where to where of its last axis → that part.
    """
    flat = {}
    for path, leaf in params_lib.flatten(params).items():
        if not path.startswith(REGIONS):
            flat[renamed(path)] = leaf
            continue
        cuts = {"classes": (0, num_classes), "features": (num_classes, leaf.shape[-1])}
        for name, (start, stop) in cuts.items():
            if start < stop:
                new = f"region_head/outs/{name}/{path.removeprefix(REGIONS)}"
                flat[new] = part(leaf, start, stop)
    return params_lib.unflatten(flat)
