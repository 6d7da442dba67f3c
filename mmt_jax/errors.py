"""What a person did wrong, as the command line tells it."""

from __future__ import annotations


class UsageError(Exception):
    """Wrong use or wrong input. The command line prints the message alone and exits with 2."""
