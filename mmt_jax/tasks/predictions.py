"""What all tasks' predictions have in common: they are complete, and are kept in files."""

from __future__ import annotations

import json
import os
import pathlib
import statistics
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from mmt_jax import readers as files
from mmt_jax.errors import UsageError
from mmt_jax.files import whole


def check(wanted: Collection[Any], predictions: Mapping[Any, Any]) -> None:
    """Refuses predictions that are not exactly those that are `wanted`.

    Raises:
      UsageError: some are missing or too many; the first is named.
    """
    known = set(wanted)
    missing = [name for name in wanted if name not in predictions]
    extra = [name for name in predictions if name not in known]
    for names, problem in ((missing, "missing"), (extra, "of no example")):
        if names:
            raise UsageError(
                f"{len(names)} predictions are {problem}, the first is {names[0]!r}; there must be "
                f"one for each of the {len(known)} examples"
            )


def means(values: Iterable[tuple[str, float]]) -> dict[str, float]:
    """`accuracy`, the mean of all values (kind, value), and the mean of each kind but "".

    Raises:
      UsageError: there is no value.
    """
    by_kind: dict[str, list[float]] = {}
    for kind, value in values:
        by_kind.setdefault(kind, []).append(value)
    if not by_kind:
        raise UsageError("there is no example to evaluate")
    everything = [value for part in by_kind.values() for value in part]
    parts = {kind: statistics.fmean(by_kind[kind]) for kind in sorted(by_kind) if kind}
    return {"accuracy": statistics.fmean(everything), **parts}


def check_free(path: str | os.PathLike) -> pathlib.Path:
    """Refuses a file that exists.

    Raises:
      UsageError: it does.
    """
    path = pathlib.Path(path)
    if path.exists():
        raise UsageError(f"{path} exists and is not overwritten; remove it or name another file")
    return path


def write(path: str | os.PathLike, text: str) -> None:
    """Writes a file of predictions, whole or not at all.

    Raises:
      UsageError: it exists already, or cannot be written.
    """
    with whole(check_free(path)) as part:
        part.write_text(text, encoding="utf-8")


def write_rows(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a JSON list of objects.

    Raises:
      UsageError: as `write`.
    """
    write(path, json.dumps(list(rows), indent=1) + "\n")


def read_rows(
    path: str | os.PathLike, key: tuple[str, type], value: tuple[str, type]
) -> dict[Any, Any]:
    """Reads a JSON list of objects as a mapping from one of their fields to another.

    Args:
      path: of the file.
      key: name and type of the field that names the example.
      value: name and type of that which holds the prediction.

    Raises:
      UsageError: the file is no such list, or an example is there twice.
    """
    found: dict[Any, Any] = {}
    for where, _, entry in files.json_entries(path):
        name = files.field(entry, *key, where)
        if name in found:
            raise UsageError(f"{where}: {key[0]} {name!r} is there twice")
        found[name] = files.field(entry, *value, where)
    return found
