"""Prints every model that --config can name, and every study.

  mmt list | grep single
  mmt list | grep lxmert

First the models of the study: heads × head dim is the inner width of attention, which need not be
the model's width, and layers are multimodal layers. Then other systems and tasks, then what
`mmt ablate` runs; experiments/ of a checkout holds the files behind them, to be read and copied.
`mmt describe NAME` says all of one model. --json prints the first table.
"""

from __future__ import annotations

import json
import types
from typing import Any

from mmt_jax.cli import flags
from mmt_jax.configs import overrides, variants

FLAGS = (flags.JSON,)


def run(args: types.SimpleNamespace) -> None:
    """Prints the table."""
    models = rows()
    if args.json:
        print(json.dumps(models, indent=1))
        return
    for model in models:
        model["itm"] += f" {model.pop('candidates') or ''}".rstrip()
    cells = [[_cell(value) for value in model.values()] for model in models]
    print(flags.table([name.replace("_", " ") for name in models[0]], cells))
    others = overrides.configs()
    first = {about: name for name, about in reversed(others.items())}
    cells = [[name, about if first[about] == name else ""] for name, about in others.items()]
    print("\n" + flags.table(["system or task", "what it is"], cells))
    studies = [
        [name, str(len(study.tags)), str(study.seeds), study.scale]
        for name, study in overrides.defined(overrides.STUDIES, "STUDIES").items()
    ]
    print("\n" + flags.table(["study", "models", "seeds", "scale"], studies))


def rows() -> list[dict[str, Any]]:
    """One dict a name that the release has, aliases included, and `architecture_coattention`."""
    models = []
    for tag, row in variants.VARIANTS.items():
        models.append(_row(tag, row))
        for alias, meant in variants.ALIASES.items():
            if meant == tag:
                models.append(_row(alias, row) | {"notes": f"alias of {tag}"})
    return models


def _row(tag: str, row: variants.Variant) -> dict[str, Any]:
    notes = [row.notes] if row.notes else []
    if row.hloss:
        notes.append("ITM loss after every layer")
    if row.fine_tuned:
        notes.append(f"starts from {row.pretrained}")
    elif row.pretrained and not notes:
        notes.append(f"language stack starts from {row.pretrained.upper()}")
    return {
        "tag": tag,
        "corpus": row.corpus,
        "itm": row.itm,
        "candidates": row.candidates or None,
        "mrm": row.mrm,
        "mlm": row.mlm,
        "heads": row.heads,
        "head_dim": row.head_dim,
        "layers": row.depth,
        "attention": row.attention,
        "fine_tuned": row.fine_tuned,
        "notes": "; ".join(notes),
    }


def _cell(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
