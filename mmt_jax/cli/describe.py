"""Prints what stands behind a name: config, number of parameters, and their tree.

  mmt describe architecture_heads1-768
  mmt describe lxmert:base,scale=tiny --json

No weights are allocated. Scales are full (the release's sizes, the default), tiny (each width
divided by eight, one language-specific layer, no dropout) and pilot (tiny with two multimodal
layers, except where depth is the subject). At full scale the sizes that a model takes from its data
are the release's (a vocabulary of 32,000 pieces, features of 2,048, 1,601 classes), else those of
the generated scenes.
"""

from __future__ import annotations

import math
import types
from typing import Any

from mmt_jax.cli import flags
from mmt_jax.configs import config as config_lib
from mmt_jax.configs import overrides

ARGUMENTS = ("TAG",)
FLAGS = (flags.JSON,)


def run(args: types.SimpleNamespace) -> None:
    """Prints the description."""
    about = describe(args.tag)
    tree = [[path, " × ".join(map(str, shape))] for path, shape in about["tree"].items()]
    parts = [
        f"{about['tag']}: {about['parameters']:,} parameters",
        "\n".join(_lines(about["config"], "config")),
        flags.table(["parameter", "shape"], tree),
    ]
    flags.show(args, about, "\n\n".join(parts))


def describe(tag: str) -> dict[str, Any]:
    """What `overrides.load` takes → tag, parameters in all, resolved config, shapes by path."""
    config = overrides.load(tag)

    from mmt_jax import params as params_lib
    from mmt_jax.infer import api
    from mmt_jax.models import registry

    config = config_lib.with_spec(config, api.data_spec(config))
    params = registry.build(config).abstract()
    leaves = sorted(params_lib.flatten(params).items(), key=lambda leaf: _natural(leaf[0]))
    tree = {path: leaf.shape for path, leaf in leaves}
    return {
        "tag": config.tag,
        "parameters": sum(map(math.prod, tree.values())),
        "config": config_lib.as_dict(config),
        "tree": tree,
    }


def _natural(path: str) -> list[tuple[int, str]]:
    """A key that sorts layer 2 before layer 10."""
    return [(int(key), "") if key.isdigit() else (-1, key) for key in path.split("/")]


def _lines(values: dict[str, Any], path: str) -> list[str]:
    """Nested fields as `config.a.b = value`, the form in which flags set them."""
    lines = []
    for name, value in values.items():
        below = isinstance(value, dict)
        lines += _lines(value, f"{path}.{name}") if below else [f"{path}.{name} = {value!r}"]
    return lines
