"""Least and greatest values that make sense in a config's numbers, by its dataclass and field.

`mmt_jax.configs.config.resolve` refuses what lies outside, before anything is read or written.
"""

from __future__ import annotations

import math
from typing import Any

ANY = math.inf  # no bound: every finite number. A learning rate of infinity is a mistake

# The families share one table, of which each has some fields.
_MODEL = {
    **dict.fromkeys(("width", "mlp_dim", "heads", "head_dim", "pooled_dim"), (1, ANY)),
    **dict.fromkeys(("max_positions", "patch_size", "image_size", "segments"), (1, ANY)),
    **dict.fromkeys(("language_layers", "region_layers", "shared_layers"), (0, ANY)),
    **dict.fromkeys(("cross_layers", "text_layers", "image_layers"), (0, ANY)),
    **dict.fromkeys(("num_answers", "num_attributes"), (0, ANY)),
    **dict.fromkeys(("tower_layers", "itc_dim"), (1, ANY)),
    **dict.fromkeys(("text_width", "text_heads", "text_mlp_dim"), (1, ANY)),
    **dict.fromkeys(("image_width", "image_heads", "image_mlp_dim"), (1, ANY)),
    "dropout": (0.0, 0.99),
    **dict.fromkeys(("eps", "text_eps", "image_eps", "cross_eps"), (0.0, 1.0)),
    **dict.fromkeys(("bridge_eps", "head_eps"), (0.0, 1.0)),
}

RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "Config": {
        **dict.fromkeys(("steps", "batch_size", "grad_accum"), (1, ANY)),
        **dict.fromkeys(("log_every", "checkpoint_every", "keep"), (1, ANY)),
        "seed": (0, 2**32 - 1),  # jax's keys read 32 bits: a larger seed would repeat a smaller one
    },
    "ModelConfig": _MODEL,
    "ObjectiveConfig": {
        **dict.fromkeys(("mlm", "mrm", "itc", "answers"), (0.0, ANY)),
        **dict.fromkeys(("mlm_rate", "mrm_rate", "mismatch"), (0.0, 1.0)),
        "candidates": (0, ANY),  # 0: unused, as by two-way matches
    },
    "TaskConfig": {"least": (1, ANY)},
    "DataConfig": {"vocab_size": (1, ANY), "workers": (0, ANY)},
    "OptimConfig": {
        **dict.fromkeys(("lr", "warmup_steps", "eps", "weight_decay"), (0, ANY)),
        **dict.fromkeys(("b1", "b2"), (0.0, 0.9999999)),  # at 1, moments would learn nothing
    },
    "EvalConfig": {"every": (0, ANY), "limit": (0, ANY), "pairs": (1, ANY)},
}


def fault(kind: type, name: str, value: Any) -> str | None:
    """What is wrong with the value of a config's field.

    Args:
      kind: the dataclass whose field it is; one derived from it has its ranges.
      name: of the field.
      value: of the field; None, where the data has yet to say, is never wrong.

    Returns:
      None, or what follows "config.optim.lr is -1.0; ".
    """
    for base in kind.__mro__:
        bounds = RANGES.get(base.__name__, {}).get(name)
        if bounds and value is not None:
            least, greatest = bounds
            if least <= value <= greatest and math.isfinite(value):
                return None
            if greatest == ANY:
                return f"it must be at least {least}" + ("" if value < least else ", and finite")
            return f"it must be from {least} to {greatest}"
    return None
