"""What a command takes, as rows of a table: parsed with absl, without its global state."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import os
import pathlib
import re
import types
import typing
from collections.abc import Sequence

from mmt_jax.configs import config as config_lib
from mmt_jax.configs.config import Config
from mmt_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Flag:
    """One row. The default tells the type: False a switch, 0 a number, () a flag to be repeated.

    `--config` is a file whose `get_config` makes a ConfigDict; its fields are flags too.
    """

    name: str
    value: str  # what help shows after "="
    help: str
    default: bool | int | tuple | None = None  # None: a string
    required: bool = False

    @property
    def usage(self) -> str:
        """How the flag is written."""
        text = f"--{self.name}" + (f"={self.value}" if self.value else "")
        return f"{text} …" if self.default == () else text


JSON = Flag("json", "", "print JSON in place of a table", default=False)


def usage(command: types.ModuleType) -> str:
    """The help of a command: its docstring and its flags."""
    rows = [(flag.usage, flag.help) for flag in command.FLAGS]
    width = max(len(text) for text, _ in rows) + 2
    lines = [f"  {text:<{width}}{help}".rstrip() for text, help in rows]
    return "\n".join([str(command.__doc__).strip(), "", "Flags:", *lines])


def parse(name: str, command: types.ModuleType, argv: Sequence[str]) -> types.SimpleNamespace:
    """The values of a command's flags and arguments by name; `config` is a resolved `Config`.

    Raises:
      UsageError: an unknown, mistyped, missing or misplaced flag, argument or config field.
    """
    from absl import flags

    more = f"see `mmt {name} --help`"
    parser = _parser(command.FLAGS, argv)
    try:
        _check_config(argv)
        positional = parser([name, *argv])[1:]
    except flags.UnrecognizedFlagError as error:
        near = difflib.get_close_matches(error.flagname, [row.name for row in command.FLAGS], n=1)
        hint = f"did you mean --{near[0]}?" if near else more
        raise UsageError(f"--{error.flagname} is not a flag of `mmt {name}`; {hint}") from None
    except AttributeError as error:  # of ml_collections: other families' configs have the field
        field = str(error).strip("\"'")
        raise UsageError(
            f"config.model has no field {field!r} in this file's family of models; `mmt describe` "
            f"prints the fields that there are"
        ) from None
    except (flags.Error, ValueError) as error:
        message = " ".join(str(error).split()).rstrip(".")
        raise UsageError(f"{message}; {more}") from None
    wanted = getattr(command, "ARGUMENTS", ())
    if len(positional) > len(wanted):
        raise UsageError(f"unexpected argument {positional[len(wanted)]!r}; {more}")
    if len(positional) < len(wanted):
        raise UsageError(f"{wanted[len(positional)]} is missing; {more}")
    values = dict(zip((argument.lower() for argument in wanted), positional, strict=True))
    for flag in command.FLAGS:
        values[flag.name] = parser[flag.name].value
        if flag.required and values[flag.name] in (None, "", []):
            raise UsageError(f"--{flag.name}={flag.value} is missing; {more}")
        if flag.name == "config":
            values["config"] = config_lib.resolve(values["config"])
    return types.SimpleNamespace(**values)


def _parser(rows: Sequence[Flag], argv: Sequence[str]) -> typing.Any:
    from absl import flags

    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # arguments and flags in any order
    for row in rows:
        if row.name == "config":
            from ml_collections import config_flags

            config_flags.DEFINE_config_file(
                "config", flag_values=values, sys_argv=["mmt", *argv], lock_config=True
            )
        elif row.default is None:
            flags.DEFINE_string(row.name, None, row.help, flag_values=values)
        elif row.default is False:
            flags.DEFINE_boolean(row.name, False, row.help, flag_values=values)
        elif isinstance(row.default, tuple):
            flags.DEFINE_multi_string(row.name, [], row.help, flag_values=values)
        else:
            flags.DEFINE_integer(row.name, row.default, row.help, flag_values=values)
    return values


def _check_config(argv: Sequence[str]) -> None:
    """Says in our words what ml_collections would say in a traceback."""
    for index, arg in enumerate(argv):
        if match := re.fullmatch(r"--?config(?:=(.*))?", arg):
            value = arg.partition("=")[2] or "".join(argv[index + 1 : index + 2])
            _check_file(value)
        elif match := re.match(r"--?(?:no)?config\.([^=]*)", arg):
            _check_field(match[1])


def _check_file(value: str) -> None:
    path, _, _ = value.partition(":")
    if os.path.isfile(path):
        if not path.endswith(".py"):
            raise UsageError(f"--config={value} is no Python file; give one that has get_config")
        check_defines(path, "get_config")
        return
    from mmt_jax.configs import variants

    tag = path.partition(",")[0]
    if tag in {*variants.VARIANTS, *variants.ALIASES}:
        raise UsageError(
            f"--config={value} is a tag, not a file; write --config=experiments/mmt.py:{value}"
        )
    raise UsageError(
        f"there is no config file {path!r} in {os.getcwd()}; run mmt from the root of a checkout, "
        f"which holds experiments/mmt.py, or give the path of your own file"
    )


def check_defines(path: str, name: str) -> None:
    """Refuses a file that says nothing of `name`, without running it.

    Raises:
      UsageError: it does not, or is not Python.
    """
    try:
        nodes = [*ast.walk(ast.parse(pathlib.Path(path).read_bytes(), path))]
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{path} is not Python ({error}); give a file with {name}") from None
    # Functions, classes and imports; names that are assigned.
    found = {getattr(node, key, None) for node in nodes for key in ("name", "asname", "id")}
    if not found & {name, "*"}:
        raise UsageError(f"{path} does not define {name}; give a file that does")


def _check_field(dotted: str) -> None:
    kind, path = Config, "config"
    for name in dotted.split("."):
        if not dataclasses.is_dataclass(kind):
            raise UsageError(f"{path} is one value and has no field {name!r}")
        kind = config_lib.field_type(kind, name, path=path)
        path = f"{path}.{name}"
    if dataclasses.is_dataclass(kind):
        names = ", ".join(f"{path}.{name}" for name in config_lib.field_names(kind))
        raise UsageError(f"{path} holds fields; set one of {names}")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells in columns as wide as they need to be."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
