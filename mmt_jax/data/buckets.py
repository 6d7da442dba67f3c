"""Sizes that batches are cut to, so that short captions and few regions cost less.

Nearly every batch drawn at random has one long caption or one photo of many regions: cutting alone
gains nothing. So the pairs of WINDOW batches that follow each other are grouped by size first. They
are the same pairs, and each window sees them all, but a batch holds pairs of like size and stands
elsewhere in its window: where pairs are each other's negatives, it is not the run without buckets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mmt_jax.configs.models import LAYOUTS
from mmt_jax.errors import UsageError
from mmt_jax.typing import Batch

WINDOW = 16  # batches; four times as many would save some 3 % more

Size = tuple[int, int]  # T and R


def sizes(buckets: Sequence[Size], full: Size) -> tuple[Size, ...]:
    """The sizes of a run, the cheapest first: the buckets that are smaller than `full`, and `full`.

    Raises:
      UsageError: a bucket without room for a word or a region.
    """
    for length, regions in buckets:
        if length < 3 or regions < 1:
            raise UsageError(
                f"config.data.buckets has ({length}, {regions}); a bucket is (tokens, regions), "
                f"with 3 tokens or more and 1 region or more, the global one included"
            )
    inside = {(min(t, full[0]), min(r, full[1])) for t, r in buckets}
    return tuple(sorted(inside | {full}, key=lambda size: (sum(size), size)))


def smallest(needed: np.ndarray, sizes: Sequence[Size]) -> np.ndarray:
    """[n, 2] tokens and regions → [n] the first of the sizes that holds them."""
    fits = (needed[:, None] <= np.array(sizes)).all(axis=-1)
    return fits.argmax(axis=1)


def grouped(
    needed: np.ndarray, sizes: Sequence[Size], count: int, rng: np.random.Generator
) -> np.ndarray:
    """Which pairs of a window go together, in which order.

    [count · B, 2] tokens and regions of the pairs → [count, B] their numbers, each once.
    """
    order = np.argsort(smallest(needed, sizes), kind="stable").reshape(count, -1)
    return rng.permutation(order)


def cut(batch: Batch, size: Size, layout: str) -> Batch:
    """Cuts padding off a batch whose pairs fit into `size`; `layout` says where text has it."""
    length, regions = size
    columns = slice(length) if LAYOUTS[layout] == 0 else slice(-length, None)
    text = batch.text
    if text and text.features is not None and text.features.ndim == 2:  # a vector has no padding
        cut = _cut(dataclasses.replace(text, features=None), columns)
        text = dataclasses.replace(cut, features=text.features)
    else:  # states have as much as the tokens
        text = _cut(text, columns)
    return dataclasses.replace(
        batch,
        text=text,
        image=_cut(batch.image, slice(-regions, None)),  # padding stands in front
    )


def _cut(record: Any, columns: slice) -> Any:
    """Columns of every array [B, S, ...] of a record."""
    return jax.tree.map(lambda leaf: leaf[:, columns], record)
