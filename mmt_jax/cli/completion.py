"""Prints a script by which a shell completes commands and flags.

  mmt completion bash >> ~/.bashrc
  mmt completion zsh >> ~/.zshrc

SHELL is bash or zsh; a new shell then completes `mmt tr` and `mmt train --w` on Tab.
"""

from __future__ import annotations

import types

from mmt_jax.errors import UsageError

ARGUMENTS = ("SHELL",)
FLAGS = ()
# zsh reads bash's completions.
HEADS = {"bash": "", "zsh": "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n"}
SCRIPT = """\
_mmt() {{
  local words
  case "${{COMP_LINE#mmt }}" in
{cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$2"))
  [[ "${{COMPREPLY[*]}}" != *= ]] || compopt -o nospace 2>/dev/null
}}
complete -o default -F _mmt mmt
"""


def run(args: types.SimpleNamespace) -> None:
    """Prints it."""
    from mmt_jax.cli import main

    if args.shell not in HEADS:
        raise UsageError(f"{args.shell!r} is no shell of this command; write bash or zsh")
    words = {
        name: [f"--{flag.name}" + "=" * bool(flag.value) for flag in module.FLAGS]
        for name, module in main.commands().items()
    }
    for name in list(words):
        if " " in name:
            words.setdefault(name.partition(" ")[0], []).append(name.partition(" ")[2])
    cases = [f'    "{name} "*) words="{" ".join(known)}" ;;' for name, known in words.items()]
    cases.append(f'    *) words="{" ".join(main.COMMANDS)}" ;;')
    print(HEADS[args.shell] + SCRIPT.format(cases="\n".join(cases)), end="")
