"""CLIP's image tower as a detector: patches are regions, and the class in front is the photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmt_jax.detectors import base
from mmt_jax.detectors.base import Detections
from mmt_jax.errors import UsageError
from mmt_jax.photos import pictures as pictures_lib

if TYPE_CHECKING:  # a list of detectors needs no jax
    from mmt_jax.models.base import Model
    from mmt_jax.typing import Params

MODEL = "a workdir of `mmt import --model=clip`; patches are regions"


class PatchDetector:
    """States of the last layer, after its LayerNorm.

    A photo is resized to the square that the tower was trained on, so that all of it is seen. Where
    that has more than 100 patches, regions are means of squares of them.
    """

    num_classes = 0
    labels: Mapping[int, str] = {}

    def __init__(self, model: Model, params: Params):
        import jax

        from mmt_jax.data import regions

        config = model.config.model
        self._size = (config.image_size,) * 2
        self._grid = config.image_size // config.patch_size
        self._square = _square(self._grid)
        self._params = params

        @jax.jit
        def encode(params: Params, pixels: np.ndarray) -> jax.Array:
            image = regions.pixel_image(pixels[None], config.patch_size, global_region=False)
            return model.encode_image(params, image).states[0]

        self._encode = encode

    def detect(self, pictures: Sequence[np.ndarray]) -> list[Detections]:
        """One picture at a time, for the batch would be compiled in."""
        return [self._detect(picture) for picture in pictures]

    def _detect(self, picture: np.ndarray) -> Detections:
        pixels = pictures_lib.resize(picture, self._size).astype(np.float32) / np.float32(255)
        states = np.asarray(self._encode(self._params, pixels), np.float32)
        cells, square = self._grid // self._square, self._square
        patches = states[1:].reshape(cells, square, cells, square, -1).mean(axis=(1, 3))
        row, column = np.divmod(np.arange(cells**2), cells)
        boxes = np.stack([row, column, row + 1, column + 1], axis=1) / cells
        return Detections(
            boxes=np.concatenate([boxes, [(0, 0, 1, 1)]]).astype(np.float32),
            features=np.concatenate([patches.reshape(cells**2, -1), states[:1]]),
            whole=True,
        )


def _square(grid: int) -> int:
    """Side of the squares, in patches, that leave at most `base.MAX_REGIONS` regions."""
    sides = [n for n in range(1, grid + 1) if grid % n == 0]
    return next(n for n in sides if (grid // n) ** 2 <= base.MAX_REGIONS)


def load(model: str) -> PatchDetector:
    """Reads a workdir of CLIP, as `mmt import --model=clip` makes it.

    Raises:
      UsageError: no such workdir, or one of another family.
    """
    from mmt_jax.train import checkpoint, published

    trained = checkpoint.load(base.existing(published.workdir(model), "workdir"))
    if trained.config.model.family != "clip":
        raise UsageError(
            f"{model} holds a model of the family {trained.config.model.family}; give a workdir of "
            f"`mmt import --model=clip`"
        )
    return PatchDetector(trained.model, trained.params)
