"""Fields of a `config.json` and of our configs, as pairs of names.

`text_config.hidden_size` is the field `hidden_size` of the part `text_config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmt_jax.configs.fields import hints, parts
from mmt_jax.configs.models import FAMILIES, ModelConfig
from mmt_jax.errors import UsageError
from mmt_jax.models.weights import Arrays

Fields = tuple[tuple[str, str], ...]  # ours, theirs; several may stand for one


def flatten(foreign: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """All fields by name, those of parts too."""
    flat: dict[str, Any] = {}
    for name, value in foreign.items():
        inner = flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {}
        flat |= inner or {f"{prefix}{name}": value}
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The `config.json` whose fields `flatten` lists; one part deep."""
    foreign: dict[str, Any] = {}
    for name, value in flat.items():
        part, _, field = name.rpartition(".")
        (foreign.setdefault(part, {}) if part else foreign)[field] = value
    return foreign


def read(
    foreign: Mapping[str, Any],
    fields: Fields,
    arrays: Arrays,
    *,
    fixed: Mapping[str, Any],
    name: str,
    remedy: str = "take the one of these weights",
) -> dict[str, Any]:
    """Values of our fields, all of which must be there; no size can exceed the weights' own.

    `fixed` holds the one value that each of these must have where it is there, `remedy` says what
    to do where a field is missing.
    """
    flat = flatten(foreign)
    if missing := sorted({theirs for _, theirs in fields} - flat.keys()):
        raise UsageError(f"config.json lacks {', '.join(missing)}; {remedy}")
    for field, value in fixed.items():
        if flat.get(field, value) != value:
            raise UsageError(f"config.json has {field}={flat[field]!r}; {name} reads {value!r}")
    values: dict[str, Any] = {}
    kinds = {ours: parts(hint)[0] for ours, hint in hints(FAMILIES[name]).items()}
    layers, values_in_all = len(arrays), sum(array.size for array in arrays.values())
    for ours, theirs in fields:
        deep = ours == "depth" or ours.endswith("layers")
        least, most = int(not deep and ours != "pad_id"), layers if deep else values_in_all
        if kinds.get(ours, int) is int:
            if type(flat[theirs]) is not int or flat[theirs] < least:
                raise UsageError(
                    f"config.json has {theirs}={flat[theirs]!r}, and not a whole number of {least} "
                    f"or more; take the one of these weights"
                )
            if flat[theirs] > most:
                raise UsageError(
                    f"config.json has {theirs}={flat[theirs]}, which weights of {layers} arrays "
                    f"with {values_in_all:,} values cannot have; take the one of these weights"
                )
        if values.setdefault(ours, flat[theirs]) != flat[theirs]:
            first = next(other for field, other in fields if field == ours)
            raise UsageError(
                f"config.json has {first}={values[ours]!r} and {theirs}={flat[theirs]!r}; {name} "
                f"reads weights in which they are equal"
            )
    return values


def typed(foreign: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    """A field, which must be of a kind, or `default` where it is not there."""
    value = foreign.get(name, default)
    if not isinstance(value, kind):
        raise UsageError(
            f"config.json has {name}={value!r}, and not a {kind.__name__}; take the one of these "
            f"weights"
        )
    return value


def attention_dropout(foreign: Mapping[str, Any], part: str = "") -> float | None:
    """Dropout of attention weights as `config.json` says, of a part; None where it is silent."""
    name = f"{part}attention_probs_dropout_prob"
    value = flatten(foreign).get(name)
    if value is not None and not isinstance(value, int | float):
        raise UsageError(f"config.json has {name}={value!r}, and not a number")
    return None if value is None else float(value)


def write(model: ModelConfig, fields: Fields) -> dict[str, Any]:
    """The inverse of `read`: fields of a `config.json` by name, to be nested.

    Fields of ours that are one field there must have one value.
    """
    flat: dict[str, Any] = {}
    for ours, theirs in fields:
        value = getattr(model, ours)
        if flat.setdefault(theirs, value) != value:
            first = next(field for field, name in fields if name == theirs)
            raise UsageError(
                f"Hugging Face's model has one {theirs} for config.model.{first}={flat[theirs]!r} "
                f"and config.model.{ours}={value!r}"
            )
    return flat
