"""Whose pre-training: how words and regions are hidden, and on which pairs that is learned from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from mmt_jax.objectives import corruption


@dataclasses.dataclass(frozen=True)
class Reading:
    """A row."""

    hide_words: Callable = corruption.mask_tokens
    hide_regions: Callable = corruption.mask_regions
    mismatched: bool = False  # masked losses count on mismatched pairs too
    detector: bool = False  # masked regions are learned by LXMERT's sum of three losses (`losses`)
    # Pairs are told apart in a pass of their own, in which nothing is hidden; in the other all
    # pairs are matched.
    apart: bool = False


READINGS: dict[str, Reading] = {
    "study": Reading(hide_words=corruption.mask_words),
    "lxmert": Reading(hide_regions=corruption.mask_features, mismatched=True, detector=True),
    "bridgetower": Reading(apart=True),
}
