"""Photos changed at random for training, as BridgeTower's scripts name it.

Facts are those of microsoft/BridgeTower, `src/transforms`, whose random crop is torchvision's. Its
recipes come from two lists of operations. Both draw two, each uniformly and with replacement:

- "colour", after RandAugment (Cubuk et al., 2020, arXiv 1909.13719): done always, in Pillow.
- "plain", after BLIP: each done half of the time, in OpenCV. Bilinear, and grey comes in. At its
  strength of 5 in 10, brightness and sharpness are as they were. What a shear leaves in place is
  there the centre of the first pixel and here its corner: 0.08 pixels.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable
from typing import Any

import numpy as np

from mmt_jax.photos import pictures

if typing.TYPE_CHECKING:
    from PIL import Image

_TRIES = 10  # of a crop, before the middle is taken
_RATIOS = (3 / 4, 4 / 3)  # width to height of a crop
_GREY = (128, 128, 128)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How photos are changed.

    Attributes:
      area: least share of the photo that a random crop keeps, which is then made a square of any
        shape; None = no crop: the photo is changed before it is resized as it always is.
      flip: whether half of the photos are mirrored, which "left of" does not survive.
      kind: of the operations, "plain" or "colour".
      level: their strength, of 10 and of 30.
    """

    area: float | None
    flip: bool
    kind: str
    level: int

    def __call__(
        self,
        picture: np.ndarray,
        cut: Callable[[np.ndarray], np.ndarray],
        side: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """One photo.

        Args:
          picture: [H, W, 3] uint8, as its file has it.
          cut: makes [side, side, 3] uint8 of it where nothing is cropped at random.
          side: in pixels.
          rng: what is random is a function of it alone.

        Returns:
          [side, side, 3] uint8.
        """
        if self.area is not None:
            picture = _crop(picture, self.area, side, rng)
        if self.flip and rng.random() < 0.5:
            picture = picture[:, ::-1]
        image = pictures.library().fromarray(np.ascontiguousarray(picture))
        for name in drawn(self.kind, rng):
            image = OPERATIONS[self.kind][name](image, self.level, rng)
        changed = np.asarray(image)
        return cut(changed) if self.area is None else changed


RECIPES = {
    "clip_randaug": Recipe(None, False, "colour", 9),
    "blip_randaug": Recipe(0.5, True, "plain", 5),
    "blip_randaug_pretrain": Recipe(0.2, True, "plain", 5),
    "blip_randaug_wc": Recipe(0.5, True, "colour", 7),
    "blip_randaug_wohf": Recipe(0.5, False, "plain", 5),
}


def drawn(kind: str, rng: np.random.Generator) -> list[str]:
    """Names of the operations that one photo goes through, in order; two or, plain, fewer."""
    names = [*OPERATIONS[kind]]
    chosen = [names[i] for i in rng.integers(len(names), size=2)]
    done = rng.random(2) < (0.5 if kind == "plain" else 1)
    return [name for name, does in zip(chosen, done, strict=True) if does]


def _crop(picture: np.ndarray, area: float, side: int, rng: np.random.Generator) -> np.ndarray:
    """[H, W, 3] uint8 → [side, side, 3] uint8: a part of random size, shape and place."""
    tall, wide = picture.shape[:2]
    for _ in range(_TRIES):
        kept = tall * wide * rng.uniform(area, 1)
        ratio = math.exp(rng.uniform(math.log(_RATIOS[0]), math.log(_RATIOS[1])))
        height, width = round(math.sqrt(kept / ratio)), round(math.sqrt(kept * ratio))
        if 0 < height <= tall and 0 < width <= wide:
            top, left = rng.integers(tall - height + 1), rng.integers(wide - width + 1)
            break
    else:  # as much of the middle as has a shape that is admitted
        ratio = min(max(wide / tall, _RATIOS[0]), _RATIOS[1])
        height, width = min(tall, round(wide / ratio)), min(wide, round(tall * ratio))
        height, width = max(height, 1), max(width, 1)
        top, left = (tall - height) // 2, (wide - width) // 2
    part = picture[top : top + height, left : left + width]
    return pictures.resize(np.ascontiguousarray(part), (side, side))


# An operation takes a picture, the level of its recipe, and the generator, for its sign.
_Operation = Callable[["Image.Image", int, np.random.Generator], "Image.Image"]


def _between(low: float, high: float, most: int, level: int) -> float:
    return low + (high - low) * level / most


def _signed(value: float, rng: np.random.Generator) -> float:
    return -value if rng.random() < 0.5 else value


def _ops(name: str) -> _Operation:
    """One of Pillow's `ImageOps` that needs no strength."""

    def apply(image: Image.Image, level: int, rng: np.random.Generator) -> Image.Image:
        del level, rng
        from PIL import ImageOps

        return getattr(ImageOps, name)(image)

    return apply


def _enhance(name: str, most: int) -> _Operation:
    """One of Pillow's `ImageEnhance`, of a strength in 0.1..1.9, where 1 changes nothing."""

    def apply(image: Image.Image, level: int, rng: np.random.Generator) -> Image.Image:
        del rng
        from PIL import ImageEnhance

        return getattr(ImageEnhance, name)(image).enhance(_between(0.1, 1.9, most, level))

    return apply


def _border(most: int) -> dict[str, Any]:
    """How the list whose strongest level is `most` moves pixels, and what comes in."""
    how = pictures.library().Resampling
    if most == 30:
        return {"resample": how.NEAREST, "fillcolor": None}
    return {"resample": how.BILINEAR, "fillcolor": _GREY}


def _affine(entry: int, high: float, most: int) -> _Operation:
    """A shear or a shift: `entry` of the matrix (1, 0, 0, 0, 1, 0) gets the value, of any sign."""

    def apply(image: Image.Image, level: int, rng: np.random.Generator) -> Image.Image:
        matrix = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        matrix[entry] = _signed(_between(0, high, most, level), rng)
        affine = pictures.library().Transform.AFFINE
        return image.transform(image.size, affine, tuple(matrix), **_border(most))

    return apply


def _rotate(most: int) -> _Operation:
    """By 30 degrees at most, about the middle."""

    def apply(image: Image.Image, level: int, rng: np.random.Generator) -> Image.Image:
        return image.rotate(_signed(_between(0, 30, most, level), rng), **_border(most))

    return apply


def _posterize(image: Image.Image, level: int, rng: np.random.Generator) -> Image.Image:
    """Keeps the upper bits, one at least: a greater level keeps more."""
    del rng
    from PIL import ImageOps

    return ImageOps.posterize(image, max(1, int(_between(0, 4, 30, level))))


def _solarize(image: Image.Image, level: int, rng: np.random.Generator) -> Image.Image:
    """Inverts what is as bright as the threshold: a greater level inverts less."""
    del rng
    from PIL import ImageOps

    return ImageOps.solarize(image, math.ceil(_between(0, 256, 30, level)))


def _solarize_add(image: Image.Image, level: int, rng: np.random.Generator) -> Image.Image:
    """Brightens by up to 110, then inverts from 128 on."""
    del rng
    from PIL import ImageOps

    brighter = np.asarray(image) + _between(0, 110, 30, level)
    clipped = np.clip(brighter, 0, 255).astype(np.uint8)
    return ImageOps.solarize(pictures.library().fromarray(clipped), 128)


OPERATIONS: dict[str, dict[str, _Operation]] = {
    "colour": {
        "AutoContrast": _ops("autocontrast"),
        "Equalize": _ops("equalize"),
        "Rotate": _rotate(30),
        "Posterize": _posterize,
        "Solarize": _solarize,
        "SolarizeAdd": _solarize_add,
        **{name: _enhance(name, 30) for name in ("Color", "Contrast", "Brightness", "Sharpness")},
        "ShearX": _affine(1, 0.3, 30),
        "ShearY": _affine(3, 0.3, 30),
        "TranslateX": _affine(2, 100, 30),  # pixels
        "TranslateY": _affine(5, 100, 30),
    },
    "plain": {
        "Identity": lambda image, level, rng: image,
        "AutoContrast": _ops("autocontrast"),
        **{name: _enhance(name, 10) for name in ("Brightness", "Sharpness")},
        "Equalize": _ops("equalize"),
        "ShearX": _affine(1, 0.3, 10),
        "ShearY": _affine(3, 0.3, 10),
        "TranslateX": _affine(2, 10, 10),  # pixels
        "TranslateY": _affine(5, 10, 10),
        "Rotate": _rotate(10),
    },
}
