"""Parameters of other libraries under our paths, and back, by a table of names.

A row pairs a foreign key with the path of ours that it fills. `{i}` in both stands for a number.
The first row that fits a key counts. Every key must be used or skipped with a reason, and every
parameter be filled once, in its shape; whatever is wrong is told at once, and nothing half done.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mmt_jax import params as params_lib
from mmt_jax.configs.config import Config
from mmt_jax.errors import UsageError
from mmt_jax.typing import Params

SHOWN = 20  # problems that a message lists


@dataclasses.dataclass(frozen=True)
class Transform:
    """What is done to an array on its way in, and its inverse on the way out."""

    inward: Callable[[np.ndarray], Sequence[np.ndarray]]  # one array for each path of the row
    outward: Callable[..., np.ndarray]  # those arrays → the foreign one


SAME = Transform(lambda x: [x], lambda x: x)
TRANSPOSE = Transform(lambda x: [x.T], lambda x: x.T)
FLIP = Transform(lambda x: [x[::-1]], lambda x: x[::-1])  # the two answers in the other order
FLIP_TRANSPOSE = Transform(lambda x: [x[::-1].T], lambda x: x.T[::-1])
ADD_AXIS = Transform(lambda x: [x[None]], lambda x: x[0])  # a single row of a table
SPLIT = Transform(lambda x: np.split(x, 3), lambda *parts: np.concatenate(parts))
SPLIT_TRANSPOSE = Transform(
    lambda x: [part.T for part in np.split(x, 3)],
    lambda *parts: np.concatenate([part.T for part in parts]),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One foreign key, with what it fills."""

    theirs: str  # `{i}` and other names in braces stand for numbers
    ours: tuple[str, ...] = ()  # a path, or several of which each gets a part; () if it is skipped
    transform: Transform = SAME
    skip: str = ""  # why the key is not used
    copy: bool = False  # repeats what another key holds (tied weights): compared, not written


Table = tuple[Row, ...]
Arrays = Mapping[str, np.ndarray]  # weights by key


@dataclasses.dataclass(frozen=True)
class Importer:
    """What is known of one family's published weights.

    Functions raise UsageError where a field of `config.json` is missing, at odds with another or
    cannot be read, or where the other library cannot hold the model.
    """

    config: Callable[[Mapping[str, Any], Arrays], Config]  # of `config.json` and the weights
    table: Callable[[Config], Table]  # of the names that `rename` gives
    # A subfolder, of another model within this one: where it is there, its `config.json` is a part
    # of the config, its keys begin with its name, and its vocabulary is taken.
    part: str = ""
    # Parameters of ours that these weights lack by nature, as they begin.
    fresh: Callable[[Config], Params] = lambda config: {}
    rename: Callable[[str], str] = str  # a key, of whatever release → its name in the table
    # Arrays by names of the table that theirs have and ours need not.
    zeros: Callable[[Config], dict[str, np.ndarray]] = lambda config: {}
    # What keys of heads begin with: where there are such, Hugging Face's classes put the family's
    # name in front of all others.
    heads: tuple[str, ...] = ()
    # Fields of `config.json`, with dots in names for those of its parts; None = the family has no
    # counterpart in transformers.
    save_config: Callable[[Config], dict[str, Any]] | None = None


def linear(theirs: str, ours: str) -> Table:
    """A `torch.nn.Linear`."""
    return (
        Row(f"{theirs}.weight", (f"{ours}/kernel",), TRANSPOSE),
        Row(f"{theirs}.bias", (f"{ours}/bias",)),
    )


def linears(theirs: str, ours: str, names: Mapping[str, str]) -> Table:
    """Several of them, by the ends of their names and of our paths."""
    return tuple(row for name, own in names.items() for row in linear(theirs + name, ours + own))


def norm(theirs: str, ours: str) -> Table:
    """A `torch.nn.LayerNorm`, or an older one by the names of its parameters."""
    names = {"weight": "scale", "bias": "bias", "gamma": "scale", "beta": "bias"}
    names |= {"a_2": "scale", "b_2": "bias"}  # of "The Annotated Transformer"
    return tuple(Row(f"{theirs}.{name}", (f"{ours}/{own}",)) for name, own in names.items())


def embedding(theirs: str, ours: str) -> Table:
    """A `torch.nn.Embedding`."""
    return (Row(f"{theirs}.weight", (f"{ours}/embedding",)),)


def multihead(theirs: str, ours: str) -> Table:
    """A `torch.nn.MultiheadAttention`, which has query, key and value in one matrix."""
    parts = [f"{ours}/{name}" for name in ("query", "key", "value")]
    return (
        Row(f"{theirs}.in_proj_weight", tuple(f"{p}/kernel" for p in parts), SPLIT_TRANSPOSE),
        Row(f"{theirs}.in_proj_bias", tuple(f"{p}/bias" for p in parts), SPLIT),
        *linear(f"{theirs}.out_proj", f"{ours}/out"),
    )


def uncalibrated() -> Params:
    """A match probability that the weights do not have: it begins as the sigmoid of the score."""
    return {"calibration": {"scale": np.ones((), np.float32), "bias": np.zeros((), np.float32)}}


def skip(reason: str, *theirs: str) -> Table:
    """Keys that are not used."""
    return tuple(Row(key, skip=reason) for key in theirs)


def skip_layers(reason: str, *theirs: str) -> Table:
    """Weights and biases of layers that are not used."""
    return skip(reason, *(f"{name}.{part}" for name in theirs for part in ("weight", "bias")))


def convert(arrays: Arrays, table: Table, wanted: Params, *, name: str) -> Params:
    """Foreign arrays → parameters in the shapes of `wanted`, float32.

    A UsageError lists every key that is unknown, of no parameter, misshapen, not finite or at odds
    with its copy, and every parameter that is filled twice or never.
    """
    shapes = {path: tuple(leaf.shape) for path, leaf in params_lib.flatten(wanted).items()}
    filled: dict[str, np.ndarray] = {}
    owners: dict[str, list[str]] = {path: [] for path in shapes}
    copies: list[tuple[str, str, np.ndarray]] = []
    problems, faulty = [], set()
    for key, array in arrays.items():
        row, paths = _find(key, table)
        if row is None:
            problems.append(f"{key} {array.shape} is unknown")
            continue
        for path, part in _parts(row, array, paths):
            if fault := _fault(part, path, shapes):
                problems.append(f"{key} {array.shape} {fault}")
                faulty.add(path)
            elif row.copy:
                copies.append((key, path, part))
            else:
                owners[path].append(key)
                filled[path] = part
    for key, path, part in copies:
        if path not in filled:
            owners[path].append(key)
            filled[path] = part
        elif not np.array_equal(filled[path], part):
            problems.append(f"{key} must equal {owners[path][0]}, but differs")
    for path, keys in owners.items():
        if len(keys) > 1:
            problems.append(f"{path} is filled by {' and by '.join(keys)}")
        elif not keys and path not in faulty:
            problems.append(f"{path} {shapes[path]} has no key")
    _report(problems, f"{name} does not fit the model that its config describes")
    return params_lib.unflatten(filled)


def _parts(row: Row, array: np.ndarray, paths: list[str]) -> list[tuple[str, np.ndarray]]:
    """What a key has for each path, empty where it is of no shape for that; nothing if skipped."""
    if row.skip:
        return []
    try:
        parts = row.transform.inward(np.asarray(array, np.float32))
    except ValueError:
        return [(path, np.empty(0, np.float32)) for path in paths]
    return [(path, np.asarray(part, order="C")) for path, part in zip(paths, parts, strict=True)]


def revert(params: Params, table: Table) -> dict[str, np.ndarray]:
    """The inverse of `convert`: parameters → foreign arrays by key.

    Of rows that fill the same parameter the first counts; copies are not written, for the foreign
    library ties them itself. Parameters that no row takes are refused.
    """
    flat = params_lib.flatten(params)
    arrays: dict[str, np.ndarray] = {}
    used = set()
    for row in (row for row in table if row.ours and not row.copy):
        for path in flat:
            match = _pattern(row.ours[0]).fullmatch(path)
            if match is None or path in used:
                continue
            paths = [part.format(**match.groupdict()) for part in row.ours]
            parts = [np.asarray(flat[part], np.float32) for part in paths]
            key = row.theirs.format(**match.groupdict())
            arrays[key] = np.asarray(row.transform.outward(*parts), order="C")
            used |= {*paths}
    left = [f"{path} {tuple(flat[path].shape)} has no key" for path in flat if path not in used]
    _report(left, "the model has parameters that the other library's does not have")
    return arrays


def _find(key: str, table: Table) -> tuple[Row | None, list[str]]:
    """The first row that fits, and its paths."""
    for row in table:
        if match := _pattern(row.theirs).fullmatch(key):
            return row, [path.format(**match.groupdict()) for path in row.ours]
    return None, []


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    names, seen = parts[1::2], set()
    regex = re.escape(parts[0])
    for name, literal in zip(names, parts[2::2], strict=True):
        regex += f"(?P={name})" if name in seen else rf"(?P<{name}>\d+)"
        regex += re.escape(literal)
        seen.add(name)
    return re.compile(regex)


def _fault(part: np.ndarray, path: str, shapes: Mapping[str, tuple]) -> str:
    if path not in shapes:
        return f"is for {path}, which the model does not have"
    if part.shape != shapes[path]:
        return f"gives no {shapes[path]}, the shape of {path}"
    return "" if np.isfinite(part).all() else f"has values for {path} that are not finite"


def _report(problems: list[str], headline: str) -> None:
    if not problems:
        return
    shown = "; ".join(problems[:SHOWN])
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    raise UsageError(f"{headline}, {len(problems)} faults: {shown}{more}")
