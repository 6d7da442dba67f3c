"""What a command takes, as rows of a table: parsed with absl, without its global state."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import types
from collections.abc import Sequence
from typing import Any

from mmt_jax.configs import fields, overrides
from mmt_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Flag:
    """One row. The default tells the type: False a switch, 0 or 0.0 a number, () a repeated flag.

    `--config` names a config as `overrides.load` takes it; its fields are flags too.
    """

    name: str
    value: str  # what help shows after "="
    help: str
    default: bool | int | float | tuple | str | None = None  # None: a text that has none
    required: bool = False

    @property
    def usage(self) -> str:
        """How the flag is written."""
        text = f"--{self.name}" + (f"={self.value}" if self.value else "")
        return f"{text} …" if self.default == () else text


JSON = Flag("json", "", "print JSON in place of a table", default=False)
# Of commands that make a region folder.
REGION_FOLDER = (
    Flag("out", "DIR", "the region folder; no split of it is overwritten", required=True),
    Flag("captions", "FILE", "captions of the photos; else those that the photos come with"),
    Flag("split", "NAME", "of the region folder; train by default", "train"),
    Flag("dtype", "float16|float32", "of the stored features; float16 by default", "float16"),
)


def usage(name: str, command: types.ModuleType) -> str:
    """The help of a command, "mmt train": its docstring, what it must be given, and its flags."""
    what, _, more = str(command.__doc__).strip().partition("\n\n")
    wanted = [flag.usage for flag in command.FLAGS if flag.required]
    others = ["[flags]"] * (len(wanted) < len(command.FLAGS))
    line = " ".join(["usage:", name, *getattr(command, "ARGUMENTS", ()), *wanted, *others])
    rows = [(flag.usage, flag.help) for flag in command.FLAGS]
    width = max((len(text) for text, _ in rows), default=0) + 2
    lines = [f"  {text:<{width}}{help}".rstrip() for text, help in rows]
    return "\n".join([what, "", line, "", more, *(["", "Flags:"] if rows else []), *lines])


def parse(name: str, command: types.ModuleType, argv: Sequence[str]) -> types.SimpleNamespace:
    """The values of a command's flags and arguments by name; `config` is a resolved `Config`.

    UsageError: an unknown, mistyped, missing or misplaced flag, argument or config field.
    """
    from absl import flags

    more = f"see `mmt {name} --help`"
    parser = _parser(command.FLAGS)
    if "config" in parser:
        argv = [_field(arg, parser) for arg in argv]
    try:
        positional = parser([name, *argv])[1:]
    except flags.UnrecognizedFlagError as error:
        near = difflib.get_close_matches(error.flagname, [row.name for row in command.FLAGS], n=1)
        hint = f"did you mean --{near[0]}?" if near else more
        raise UsageError(f"--{error.flagname} is not a flag of `mmt {name}`; {hint}") from None
    except (flags.Error, ValueError) as error:
        message = " ".join(str(error).split()).rstrip(".")
        message = re.sub("^flag (.*): invalid literal for int.*", r"\1 is no whole number", message)
        message = re.sub("^flag (.*): could not convert.*", r"\1 is no number", message)
        raise UsageError(f"{message}; {more}") from None
    wanted = getattr(command, "ARGUMENTS", ())
    if len(positional) > len(wanted):
        raise UsageError(f"unexpected argument {positional[len(wanted)]!r}; {more}")
    if len(positional) < len(wanted):
        raise UsageError(f"{wanted[len(positional)]} is missing; {more}")
    values = {}
    for row in command.FLAGS:
        value = parser[row.name].value
        values[row.name] = row.default if value == "" else value  # as an unset variable leaves it
        if row.required and values[row.name] in (None, []):
            raise UsageError(f"--{row.name}={row.value} is missing; {more}")
    if "config" in values:
        changes = {
            path.removeprefix("config."): overrides.read(path, parser[path].value)
            for path in parser
            if path.startswith("config.")
        }
        values["config"] = overrides.load(values["config"], changes)
    values |= zip((argument.lower() for argument in wanted), positional, strict=True)
    return types.SimpleNamespace(**values)


def _parser(rows: Sequence[Flag]) -> Any:
    from absl import flags

    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # arguments and flags in any order
    for row in rows:
        if row.default is None or isinstance(row.default, str):
            flags.DEFINE_string(row.name, row.default, row.help, flag_values=values)
        elif row.default is False:
            flags.DEFINE_boolean(row.name, False, row.help, flag_values=values)
        elif isinstance(row.default, tuple):
            flags.DEFINE_multi_string(row.name, [], row.help, flag_values=values)
        elif isinstance(row.default, float):
            flags.DEFINE_float(row.name, row.default, row.help, flag_values=values)
        else:
            flags.DEFINE_integer(row.name, row.default, row.help, flag_values=values)
    return values


def _field(arg: str, parser: Any) -> str:
    """Makes a flag of the config field that an argument sets; the argument with "=" and a value."""
    from absl import flags

    match = re.match(r"--?(no)?(config\.[^=]+)(=?)", arg)
    if not match:
        return arg
    no, path, equals = match.groups()
    kind, _, _ = fields.parts(overrides.hint(path))
    if path not in parser:
        flags.DEFINE_multi_string(path, None, "", flag_values=parser)
    if kind is bool and not equals:
        return f"--{path}={'false' if no else 'true'}"
    return arg


def show(args: types.SimpleNamespace, values: Any, text: str) -> None:
    """Prints what a command has found: as JSON where `JSON` asks for it, else the text."""
    print(json.dumps(values, indent=1) if args.json else text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells in columns as wide as they need to be."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
