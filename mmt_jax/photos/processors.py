"""Photos as models that read pixels were trained to see them: resized, cut, values in 0..1.

Colours are normalised inside the models, which take pixels as they are.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mmt_jax.configs.config import Config
from mmt_jax.errors import UsageError
from mmt_jax.photos import pictures

# BridgeTower's: the longer side is at most 1333 / 800 of the shorter, as in Mask R-CNN's recipe.
_LONGEST = 1333 / 800
_LINE = 200  # sides of one photo differ by no more than this factor


@dataclasses.dataclass(frozen=True)
class Processor:
    """How one system prepares a photo: the shorter side resized, then the centre cut out.

    Attributes:
      side: of the square that is cut out, in pixels; the shorter side is resized to it.
      divisor: 0, or both resized sides are rounded down to its multiples, and the longer is at most
        1333 / 800 of the shorter. What is then missing to the square is black: of 294 pixels, 288
        are photo. So BridgeTower's release at Hugging Face does, with 32; its paper's code does
        not.
    """

    side: int
    divisor: int = 0

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """[H, W, 3] uint8 → [side, side, 3] f32 in 0..1."""
        return self.cut(picture).astype(np.float32) / np.float32(255)

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """[H, W, 3] uint8 → [side, side, 3] uint8."""
        return _centre(pictures.resize(picture, self.size(*picture.shape[:2])), self.side)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a photo after resizing.

        Raises:
          UsageError: the photo is a line, whose longer side would become far too long.
        """
        shorter, longer = min(height, width), max(height, width)
        if longer > _LINE * shorter:
            raise UsageError(
                f"a photo of {height} × {width} pixels is too thin to be resized; cut it first"
            )
        if not self.divisor:
            long = int(self.side * longer / shorter)
            return (self.side, long) if height <= width else (long, self.side)
        # Step by step as theirs, or what lies between two pixels would be rounded otherwise.
        sides = [self.side / shorter * n if n > shorter else self.side for n in (height, width)]
        if max(sides) > (most := int(_LONGEST * self.side)):
            sides = [most / max(sides) * n for n in sides]
        rounded = [int(n + 0.5) // self.divisor * self.divisor for n in sides]
        return max(rounded[0], self.divisor), max(rounded[1], self.divisor)


def of(config: Config, *, divisor: int = 32) -> Processor:
    """The processor of a model that reads pixels: CLIP's, or BridgeTower's.

    Others, which were published with none, see photos as CLIP does. The side is
    `config.data.image_size`, or else that of the model; `divisor` is BridgeTower's.

    Raises:
      UsageError: neither says how large photos are.
    """
    model = config.model
    side = config.data.image_size or getattr(model, "image_size", None)
    if side is None:
        raise UsageError(
            f"how large the photos are that models of the family {model.family} read is not known; "
            f"set config.data.image_size, such as 224, or prepare image/pixels yourself and give a "
            f"record"
        )
    return Processor(side, divisor if model.family == "bridgetower" else 0)


def _centre(picture: np.ndarray, side: int) -> np.ndarray:
    """The middle [side, side] of a picture; where it is smaller, black is around it."""
    top, left = ((n - side) // 2 for n in picture.shape[:2])
    middle = (left, top, left + side, top + side)
    return np.asarray(pictures.library().fromarray(picture).crop(middle))
