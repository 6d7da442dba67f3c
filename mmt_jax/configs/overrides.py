"""What is to be run as a command line says it: a config by name, and changes of its fields.

`--config=data_cc,scale=tiny` names a model of the study, `--config=lxmert:base` what
`get_config("base")` of experiments/lxmert.py makes, `--config=FILE.py:ARG` the same of any file.
`--config.optim.lr=1e-3` and `--set=optim.lr=1e-3` are read alike.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import pathlib
import runpy
from collections.abc import Mapping, Sequence
from typing import Any

from mmt_jax.configs import fields, variants
from mmt_jax.configs.config import (
    Config,
    EvalConfig,
    as_dict,
    field_type,
    field_types,
    resolve,
)
from mmt_jax.errors import UsageError

# A link to the folder at the top of a checkout; a wheel holds its files here.
EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"
STUDIES = EXPERIMENTS / "studies.py"


def load(name: str, changes: Mapping[str, Any] | None = None) -> Config:
    """The config that `name` stands for, with changes by dotted path, such as "optim.lr".

    It is `TAG[,scale=tiny]` of `variants`, `FILE.py[:ARG]`, or such a file of `EXPERIMENTS` without
    its ending. UsageError: no such tag, scale or file, a file that makes no config, or a field or
    value that does not exist.
    """
    path, colon, arg = name.partition(":")
    if colon and path in {ours.stem for ours in EXPERIMENTS.glob("*.py")}:
        path = str(EXPERIMENTS / f"{path}.py")
    elif not (colon or path.endswith(".py") or os.path.isfile(path)):
        tag = name.partition(",")[0]
        if tag not in (*variants.VARIANTS, *variants.ALIASES, variants.BERT.tag):
            raise UsageError(f"there is no model {tag!r}; {_near(tag)}")
        return changed(variants.parse(name), changes or {})
    elif not os.path.isfile(path):
        raise UsageError(f"there is no config file {path!r} in {os.getcwd()}; {_near(name)}")
    get_config = defined(path, "get_config")
    return changed(get_config(arg) if colon else get_config(), changes or {})


def configs() -> dict[str, str]:
    """What `load` takes beside tags, by name: `lxmert:base` and the first line of its file."""
    found = {}
    for path in sorted(EXPERIMENTS.glob("*.py")):
        file = runpy.run_path(os.fspath(path))
        about = file["__doc__"].partition("\n")[0]
        found |= {f"{path.stem}:{name}": about for name in file.get("CONFIGS", ())}
    return found


def _near(name: str) -> str:
    """The end of a sentence about a name that there is not."""
    meant = {tag: tag for tag in (*variants.VARIANTS, *variants.ALIASES)}
    for config in configs():
        file, _, arg = config.partition(":")
        meant |= {config: config, arg.partition(",")[0]: config}
        meant.setdefault(file, config)
    stem = name.rpartition("/")[2].replace(".py", "")  # of a checkout's path
    near = difflib.get_close_matches(stem, meant, n=3)
    if near:
        return f"did you mean {' or '.join(dict.fromkeys(meant[each] for each in near))}?"
    hint = "`mmt list` lists what there is, and FILE.py:ARG is a file of your own"
    return _shipped(name.partition(":")[0]) or hint


def _shipped(path: str | os.PathLike) -> str:
    """Where a file of `experiments/` lies that is asked for where there is no checkout, or ""."""
    ours = EXPERIMENTS / pathlib.PurePath(path).name
    return f"the one that comes with mmt_jax is {ours}" if ours.is_file() else ""


def defined(path: str | os.PathLike, name: str) -> Any:
    """What a Python file, which is run, says that `name` is.

    UsageError: there is no such file, it is not Python, or it does not say.
    """
    if not os.path.isfile(path):
        hint = _shipped(path) or f"give one with {name}"
        raise UsageError(f"there is no file {str(path)!r} in {os.getcwd()}; {hint}")
    try:
        found = runpy.run_path(os.fspath(path))
    except SyntaxError as error:
        raise UsageError(f"{path} is not Python ({error}); give a file with {name}") from None
    if name not in found:
        raise UsageError(f"{path} does not define {name}; give a file that does")
    return found[name]


def changed(made: Any, changes: Mapping[str, Any]) -> Config:
    """A config with other values of some fields, by dotted path.

    `made` is a Config, or fields by name as `get_config` makes them; what a ConfigDict derives from
    a changed field follows it. UsageError: an unknown field, or a wrong type or senseless value.
    """
    values: Any = as_dict(made) if isinstance(made, Config) else made
    if not hasattr(values, "items"):
        raise UsageError(f"get_config must return a config or its fields by name, not {made!r}")
    if changes and hasattr(values, "unlock"):  # a ConfigDict; unknown names are told by `resolve`
        values.unlock()
    for path, value in changes.items():
        value = fields.typed(value, hint(f"config.{path}"), f"config.{path}")
        *parents, name = path.split(".")
        node = values
        for parent in parents:
            if parent not in node:
                node[parent] = {}
            node = node[parent]
        try:
            node[name] = value
        except TypeError as error:  # a ConfigDict's field keeps the type that the file gave it
            raise UsageError(f"config.{path}: {error}") from None
    return resolve(values)


def read(path: str, texts: Sequence[str]) -> Any:
    """The value of the field at a dotted path, of all that a command line says of it."""
    return fields.read(texts, hint(path), path)


def hint(path: str) -> Any:
    """The type of a field, such as "config.optim.lr", or "test.limit" of a study.

    UsageError: there is none, or it holds fields.
    """
    root, *names = path.split(".")
    kind: Any = {"config": Config, "test": EvalConfig}[root]
    for name in names:
        if not dataclasses.is_dataclass(kind):
            raise UsageError(f"{path} is not a field; {root} is one value")
        kind = field_type(kind, name, path=root)
        root = f"{root}.{name}"
    if dataclasses.is_dataclass(kind):
        known = ", ".join(f"{root}.{name}" for name in field_types(kind))
        raise UsageError(f"{root} holds fields; set one of {known}")
    return kind
