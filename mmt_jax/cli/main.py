"""Trains, evaluates, compares and exports image–text transformers.

usage: mmt COMMAND [flags]

{commands}

`mmt help COMMAND` says all of a command, with an example; `mmt --version` which release this is. A
first model in a few minutes:

  mmt train --config=data_cc,scale=pilot,level=1 --workdir=work/cc --config.optim.lr=2e-3
  mmt eval --workdir=work/cc --data=scenes@1 --split=test --limit=100

Exit status: 0 done, 2 wrong use or input, 1 failure, 128 + the signal where one ended it.
"""

from __future__ import annotations

import difflib
import gc
import importlib
import io
import keyword
import os
import sys
import types
from collections.abc import Sequence

from mmt_jax import errors, files, progress
from mmt_jax.cli import flags
from mmt_jax.errors import UsageError
from mmt_jax.version import version

COMMANDS = (
    "list",
    "describe",
    "train",
    "eval",
    "export",
    "score",
    "fill",
    "answer",
    "record",
    "features",
    "show",
    "import",
    "index",
    "search",
    "ablate",
    "attention",
    "data",
    "completion",
)


def run() -> None:
    """The `mmt` script."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # it may be closed
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
    progress.stages = True
    _keep_compiled()
    gc.set_threshold(100_000)  # imports and traces stay: looking through them took a tenth of both
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Runs one command; returns the exit status."""
    try:
        status = _dispatch(list(argv))
        if sys.stdout:  # it may be closed
            sys.stdout.flush()
        return status
    except UsageError as error:
        print(f"mmt: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # as in `mmt list | head`; nothing more can be said to that reader
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("mmt: interrupted", file=sys.stderr)
        return 130
    except (Exception, SystemExit) as error:
        if type(error).__module__.startswith("mmt_jax."):
            print(f"mmt: {error}", file=sys.stderr)
            return int(error.code or 0) if isinstance(error, SystemExit) else 1
        told = errors.of_system(error)
        if told is None:
            raise  # nobody foresaw it: the traceback is for us
        print(f"mmt: {told}", file=sys.stderr)
        return 2


def commands() -> dict[str, types.ModuleType]:
    """Every command's module by its name, such as "train"; those of groups by "data NAME"."""
    found: dict[str, types.ModuleType] = {}
    groups = [("", sys.modules[__name__])]
    for prefix, group in groups:
        for name in group.COMMANDS:
            module = _load(group, name)
            if hasattr(module, "COMMANDS"):
                groups.append((f"{prefix}{name} ", module))
            else:
                found[f"{prefix}{name}"] = module
    return found


def _dispatch(argv: list[str]) -> int:
    module, name = sys.modules[__name__], "mmt"
    if argv[:1] == ["--version"]:
        print(f"mmt_jax {version()}")
        return 0
    if argv[:1] == ["help"]:  # as `mmt COMMAND --help`
        argv = [*argv[1:], "--help"]
    while hasattr(module, "COMMANDS"):  # `mmt`, or a group of commands such as `mmt data`
        if not argv or argv[0] in ("-h", "--help", "help"):
            print(_help(module))
            return 0
        module, name, argv = _find(module, name, argv)
    if "-h" in argv or "--help" in argv:
        print(flags.usage(name, module))
        return 0
    _quiet()
    args = flags.parse(name.removeprefix("mmt "), module, argv)
    if hasattr(module, "DOING"):
        progress.stage(module.DOING.format_map(vars(args)))
    return module.run(args) or 0


def _find(
    group: types.ModuleType, name: str, argv: list[str]
) -> tuple[types.ModuleType, str, list[str]]:
    """The command that the first argument names, what it is called, and the other arguments."""
    command, *rest = argv
    if command not in group.COMMANDS:
        near = difflib.get_close_matches(command, group.COMMANDS, n=1)
        known = ", ".join(group.COMMANDS)
        hint = f"did you mean `{name} {near[0]}`?" if near else f"there are {known}"
        raise UsageError(f"{command!r} is not a command of `{name}`; {hint}")
    return _load(group, command), f"{name} {command}", rest


def _load(group: types.ModuleType, name: str) -> types.ModuleType:
    """A command's module: its docstring is its help, `FLAGS` what it takes, `run` what it does.

    `DOING`, filled in with the flags, is the first line of one that takes seconds.

    A group's has `COMMANDS` in their place, and is the package that holds their modules.
    """
    module = f"{name}_" if keyword.iskeyword(name) else name
    package = group.__name__.removesuffix(".main")
    return importlib.import_module(f"{package}.{module}")


def _help(group: types.ModuleType) -> str:
    rows = [(name, str(_load(group, name).__doc__).splitlines()[0]) for name in group.COMMANDS]
    lines = [f"  {name:<11}{what}" for name, what in rows]
    return str(group.__doc__).format(commands="\n".join(lines)).strip()


def _keep_compiled() -> None:
    """Has jax, which is not imported yet, find again what earlier commands compiled.

    jax's own variables go first: JAX_COMPILATION_CACHE_DIR moves it, JAX_ENABLE_COMPILATION_CACHE=0
    switches it off.
    """
    folder = files.cache("compiled")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))


def _quiet() -> None:
    """Keeps the libraries' notes, which tell users nothing, off the screen."""
    import logging

    from absl import flags as absl_flags
    from absl import logging as absl_logging

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # it announces itself on stderr
    absl_flags.FLAGS(["mmt"])  # libraries that read absl's global flags find their defaults
    absl_logging.set_verbosity(absl_logging.FATAL)  # an error comes as an exception too
    logging.getLogger("asyncio").setLevel("CRITICAL")
