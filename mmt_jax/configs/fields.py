"""Types of config fields that say which values make sense, as `Annotated` metadata.

`Count` is `Annotated[int, Range(1)]`, and so on. A config checks its own values when it is made, so
that no code behind it needs to.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import itertools
import math
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from mmt_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Range:
    """Finite numbers from `least` to `most`."""

    least: float
    most: float = math.inf

    def check(self, value: float, path: str) -> None:
        """Refuses a value outside; the message names `path`, the value and the range."""
        if not isinstance(value, int | float):
            raise UsageError(f"{path} must be a number, not {value!r}")
        if self.least <= value <= self.most and math.isfinite(value):
            return
        wanted = f"from {self.least} to {self.most}"
        if self.most == math.inf:
            wanted = f"at least {self.least}" + ("" if value < self.least else ", and finite")
        raise UsageError(f"{path} is {value}; it must be {wanted}")


class Choice:
    """One of some names."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def check(self, value: str, path: str) -> None:
        """Refuses another name; the message names `path`, the value and what there is."""
        if value not in self.names:
            known = ", ".join(filter(None, self.names))
            raise UsageError(f"{path}={value!r} is unknown; there are {known}")


Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
Weight = Annotated[float, Range(0)]
Share = Annotated[float, Range(0.0, 1.0)]


class Checked:
    """A dataclass whose fields are checked when it is made."""

    path: ClassVar[str] = "config"  # how errors name it

    def __post_init__(self) -> None:
        for name, hint in hints(type(self)).items():
            value = getattr(self, name)
            _, rules, _ = parts(hint)
            for rule in rules if value is not None else ():
                rule.check(value, f"{self.path}.{name}")


@functools.cache  # parses every annotation of the class
def hints(cls: type) -> dict[str, Any]:
    """Types of a dataclass's fields by name, with their metadata."""
    found = typing.get_type_hints(cls, include_extras=True)
    return {field.name: found[field.name] for field in dataclasses.fields(cls)}


def parts(hint: Any) -> tuple[Any, tuple[Any, ...], bool]:
    """A field's bare type, the rules that its values obey, and whether it may be None."""
    optional = typing.get_origin(hint) in (types.UnionType, typing.Union)
    if optional:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) is Annotated:
        return hint.__origin__, hint.__metadata__, optional
    return hint, (), optional


def typed(value: Any, hint: Any, path: str) -> Any:
    """`value` as the type `hint`: JSON's lists become tuples, whole numbers become floats.

    A UsageError names `path`: it is of another type, or not among the values that make sense.
    """
    kind, rules, optional = parts(hint)
    if optional and value is None:
        return None
    value = _converted(value, kind, path)
    for rule in rules:
        rule.check(value, path)
    return value


def _converted(value: Any, kind: Any, path: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and isinstance(value, list | tuple):
        if args[-1] is Ellipsis:
            return tuple(typed(v, args[0], f"{path}[{i}]") for i, v in enumerate(value))
        if len(args) == len(value):
            return tuple(typed(v, a, path) for v, a in zip(value, args, strict=True))
    elif kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif isinstance(kind, type) and type(value) is kind:
        return value
    wanted = kind.__name__ if isinstance(kind, type) and origin is None else str(kind)
    raise UsageError(f"{path} must be {wanted}, not {value!r}")


def read(texts: Sequence[str], hint: Any, path: str) -> Any:
    """What is written on a command line as the type `hint`, by the rules of ml_collections.

    Of several `texts` for one field those of a tuple are joined, else the last counts; see `typed`.
    """
    from absl import flags
    from ml_collections.config_flags import tuple_parser

    parsers: dict[Any, Any] = {
        bool: flags.BooleanParser(),
        int: flags.IntegerParser(),
        float: flags.FloatParser(),
    }
    kind, _, optional = parts(hint)
    value: Any = texts[-1]
    if optional and value == "None":
        return None
    with contextlib.suppress(ValueError, TypeError, SyntaxError):  # `typed` says what is wrong
        if kind in parsers:
            value = parsers[kind].parse(value)
        elif kind is not str:
            found = [tuple_parser.TupleParser().parse(text) for text in texts]
            value = tuple(itertools.chain.from_iterable(found))
        elif value[:1] in ("'", '"'):
            value = ast.literal_eval(value)
    return typed(value, hint, path)
