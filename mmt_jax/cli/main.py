"""Trains, evaluates, compares and exports image–text transformers.

usage: mmt COMMAND [flags]

{commands}

`mmt COMMAND --help` says all of a command, with an example. A first model in two minutes, from the
root of a checkout:

  mmt train --config=experiments/mmt.py:data_cc,scale=tiny --workdir=work/cc --config.steps=200
  mmt eval --workdir=work/cc --data=scenes --split=test --limit=100

Exit status: 0 done, 2 wrong use or input, 1 failure, 128 + the signal where one ended it.
"""

from __future__ import annotations

import difflib
import importlib
import keyword
import os
import sys
import types
from collections.abc import Sequence

from mmt_jax.cli import flags
from mmt_jax.config import UsageError

COMMANDS = (
    "list",
    "describe",
    "train",
    "eval",
    "export",
    "score",
    "record",
    "import",
    "index",
    "search",
    "ablate",
)


def run() -> None:
    """The `mmt` script."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Runs one command; returns the exit status."""
    try:
        status = _dispatch(list(argv))
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
        if not type(error).__module__.startswith("mmt_jax."):
            raise  # nobody foresaw it: the traceback is for us
        print(f"mmt: {error}", file=sys.stderr)
        return int(error.code or 0) if isinstance(error, SystemExit) else 1


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    name, *argv = argv
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean `mmt {near[0]}`?" if near else f"there are {', '.join(COMMANDS)}"
        raise UsageError(f"{name!r} is not a command; {hint}")
    command = _load(name)
    if "-h" in argv or "--help" in argv:
        print(flags.usage(command))
        return 0
    _quiet()
    return command.run(flags.parse(name, command, argv)) or 0


def _load(name: str) -> types.ModuleType:
    """A command's module: its docstring is its help, `FLAGS` what it takes, `run` what it does."""
    module = f"{name}_" if keyword.iskeyword(name) else name
    return importlib.import_module(f"mmt_jax.cli.{module}")


def _help() -> str:
    lines = [f"  {name:<10}{str(_load(name).__doc__).splitlines()[0]}" for name in COMMANDS]
    return str(__doc__).format(commands="\n".join(lines)).strip()


def _quiet() -> None:
    """Keeps the libraries' notes and warnings, which tell users nothing, off the screen."""
    from absl import flags as absl_flags
    from absl import logging

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # it announces itself on stderr
    absl_flags.FLAGS(["mmt"])  # libraries that read absl's global flags find their defaults
    logging.set_verbosity(logging.ERROR)
