"""Turns the files that researchers have into data to train on.

usage: mmt data COMMAND [flags]

{commands}

`mmt data COMMAND --help` says all of a command, with an example.
"""

COMMANDS = ("convert", "prepare", "vocab", "stats", "pack")
