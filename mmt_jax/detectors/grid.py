"""CLIP's image tower as a detector: patches are regions, and the class in front is the photo."""

from __future__ import annotations

import numpy as np

from mmt_jax.detectors import base
from mmt_jax.detectors.base import Detections, Detector
from mmt_jax.errors import UsageError
from mmt_jax.photos import pictures

MODEL = "a workdir of `mmt import --model=clip`; patches are regions"


def load(model: str) -> Detector:
    """Reads a workdir of CLIP, as `mmt import --model=clip` makes it.

    Features are states of the last layer, after its LayerNorm. A photo is resized to the square
    that the tower was trained on, so that all of it is seen. Where that has more than 100 patches,
    regions are means of squares of them.

    Raises:
      UsageError: no such workdir, or one of another family.
    """
    import jax  # a list of detectors needs none

    from mmt_jax.data import regions
    from mmt_jax.train import checkpoint, published

    trained = checkpoint.load(base.existing(published.workdir(model), "workdir"))
    config = trained.config.model
    if config.family != "clip":
        raise UsageError(
            f"{model} holds a model of the family {config.family}; give a workdir of `mmt import "
            f"--model=clip`"
        )
    side = config.image_size // config.patch_size
    sides = [n for n in range(1, side + 1) if side % n == 0]
    square = next(n for n in sides if (side // n) ** 2 <= base.MAX_REGIONS)  # of patches
    cells = side // square

    @jax.jit
    def encode(params, pixels):
        image = regions.pixel_image(pixels[None], config.patch_size, global_region=False)
        return trained.model.encode_image(params, image).states[0]

    def detect(picture: np.ndarray) -> Detections:
        pixels = pictures.resize(picture, (config.image_size,) * 2).astype(np.float32) / 255
        states = np.asarray(encode(trained.params, pixels), np.float32)
        patches = states[1:].reshape(cells, square, cells, square, -1).mean(axis=(1, 3))
        row, column = np.divmod(np.arange(cells**2), cells)
        boxes = np.stack([row, column, row + 1, column + 1], axis=1) / cells
        return Detections(
            boxes=np.concatenate([boxes, [(0, 0, 1, 1)]]).astype(np.float32),
            features=np.concatenate([patches.reshape(cells**2, -1), states[:1]]),
            whole=True,
        )

    return Detector(detect)
