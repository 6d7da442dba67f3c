"""Nested dicts of arrays: their paths, parts of them, and tables of rules over their paths.

A path is the keys from the root to a leaf, joined with "/": `text/tokens/embedding`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Tree = dict[str, Any]


def flatten(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """Leaves by path, in the order of the keys."""
    flat = {}
    for key in sorted(tree):
        value, path = tree[key], f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= flatten(value, f"{path}/")
        else:
            flat[path] = value
    return flat


def unflatten(flat: dict[str, Any]) -> Tree:
    """The tree whose leaves `flatten` lists."""
    tree: Tree = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[name] = leaf
    return tree


def select(tree: Tree, keep: Callable[[str], bool]) -> Tree:
    """The part of `tree` whose paths `keep` accepts."""
    return unflatten({path: leaf for path, leaf in flatten(tree).items() if keep(path)})


def merge(tree: Tree, other: Tree) -> Tree:
    """`tree` with the leaves of `other` added or put in place of its own."""
    return unflatten(flatten(tree) | flatten(other))


def lookup(table: Sequence[tuple[str, Any]], paths: Iterable[str], default: Any) -> dict[str, Any]:
    """For each path the value of the first row whose regex matches the whole of it."""
    rows = [(re.compile(pattern), value) for pattern, value in table]
    return {
        path: next((value for regex, value in rows if regex.fullmatch(path)), default)
        for path in paths
    }


def unmatched(patterns: Iterable[str], paths: Iterable[str]) -> list[str]:
    """The regexes that match the whole of no path."""
    paths = list(paths)
    return [p for p in patterns if not any(re.fullmatch(p, path) for path in paths)]


def differences(found: Tree, wanted: Tree) -> list[str]:
    """What keeps `found` from standing in for `wanted`: a line each.

    Leaves are missing, extra or misshapen; both trees' leaves need a `shape`.
    """
    have, want = flatten(found), flatten(wanted)
    lines = [f"{path} {tuple(want[path].shape)} is missing" for path in want if path not in have]
    lines += [f"{path} {tuple(have[path].shape)} is extra" for path in have if path not in want]
    lines += [
        f"{path} is {tuple(have[path].shape)} and must be {tuple(want[path].shape)}"
        for path in want
        if path in have and tuple(have[path].shape) != tuple(want[path].shape)
    ]
    return lines
