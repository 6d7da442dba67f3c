"""Generated photos whose pictures are drawn, and features computed, for who takes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mmt_jax.corpus import Corpus, Photos
from mmt_jax.photo import BOXES, FEATURES, PIXELS, Rows
from mmt_jax.scenes import detector, render
from mmt_jax.scenes.world import CANVAS, Scenes

AT_ONCE = 256  # pictures, at 50 kB each while they are painted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn(Photos):
    """A generated split: captions and boxes are there, features once a photo has been taken.

    What a photo is does not depend on which others are taken, or when. Several threads may take.
    """

    scenes: Scenes  # what is on each photo
    seen: Rows  # of all photos, without features
    features: np.ndarray  # [rows, FEATURE_DIM] f16, those of the photos that are `known`
    known: np.ndarray  # [N] bool
    pixels: bool  # whether they come along

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """As `Photos` says."""
        found = {key: values.shape[1:] for key, values in self._rows.items()}
        return found | {PIXELS: (CANVAS, CANVAS, 3)} if self.pixels else found

    def take(self, photos: np.ndarray) -> Corpus:
        """Captions are those of the photos."""
        self._look_at(np.unique(photos[~self.known[photos]]))
        shared = {field.name: getattr(self, field.name) for field in dataclasses.fields(Photos)}
        taken = Corpus(**shared, rows=self._rows).take(photos)
        if not self.pixels:
            return taken
        drawn = np.empty((len(photos), CANVAS, CANVAS, 3), np.uint8)

        def draw(own: slice) -> None:
            drawn[own] = render.render(self.scenes.take(photos[own]))

        _in_parts(draw, len(photos))
        return dataclasses.replace(taken, pixels=drawn)

    @property
    def _rows(self) -> Rows:
        return {FEATURES: self.features} | dict(self.seen)

    def _look_at(self, photos: np.ndarray) -> None:
        """Computes their features."""

        def look(part: slice) -> None:
            own = photos[part]
            counts = self.offsets[own + 1] - self.offsets[own]
            spans = zip(self.offsets[own], self.offsets[own + 1], strict=True)
            rows = np.concatenate([np.arange(*span) for span in spans])
            pixels = render.render(self.scenes.take(own))
            picture = np.repeat(np.arange(len(own)), counts)
            boxes = self.seen[BOXES][rows, :4]
            self.features[rows] = detector.box_features(pixels, picture, boxes)
            self.known[own] = True

        _in_parts(look, len(photos))


def _in_parts(do: Callable[[slice], None], count: int) -> None:
    """Calls `do` for each `AT_ONCE` of `count`, two at a time: numpy leaves Python to the other."""
    parts = [slice(start, start + AT_ONCE) for start in range(0, count, AT_ONCE)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(do, parts))
