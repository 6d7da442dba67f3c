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

import numpy as np

from mmt_jax.photos import pictures

if typing.TYPE_CHECKING:
    from PIL import Image

_TRIES = 10  # of a crop, before the middle is taken
_RATIOS = (3 / 4, 4 / 3)  # width to height of a crop
OPERATIONS = {  # by kind; of each, one is drawn by its place
    "colour": (
        *("AutoContrast", "Equalize", "Rotate", "Posterize", "Solarize", "SolarizeAdd", "Color"),
        *("Contrast", "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY"),
    ),
    "plain": (
        *("Identity", "AutoContrast", "Brightness", "Sharpness", "Equalize", "ShearX", "ShearY"),
        *("TranslateX", "TranslateY", "Rotate"),
    ),
}


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
            image = changed(image, self.kind, name, self.level, rng)
        result = np.asarray(image)
        return cut(result) if self.area is None else result


RECIPES = {
    "clip_randaug": Recipe(None, False, "colour", 9),
    "blip_randaug": Recipe(0.5, True, "plain", 5),
    "blip_randaug_pretrain": Recipe(0.2, True, "plain", 5),
    "blip_randaug_wc": Recipe(0.5, True, "colour", 7),
    "blip_randaug_wohf": Recipe(0.5, False, "plain", 5),
}


def drawn(kind: str, rng: np.random.Generator) -> list[str]:
    """Names of the operations that one photo goes through, in order; two or, plain, fewer."""
    names = OPERATIONS[kind]
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


def changed(
    image: Image.Image, kind: str, name: str, level: int, rng: np.random.Generator
) -> Image.Image:
    """A photo after one operation of a kind; `rng` chooses the sign of what has one."""
    from PIL import Image, ImageEnhance, ImageOps

    most = 30 if kind == "colour" else 10

    def between(low: float, high: float) -> float:
        return low + (high - low) * level / most

    if name == "Identity":
        return image
    if name in ("AutoContrast", "Equalize"):
        return getattr(ImageOps, name.lower())(image)
    if name in ("Color", "Contrast", "Brightness", "Sharpness"):
        return getattr(ImageEnhance, name)(image).enhance(between(0.1, 1.9))  # 1 changes nothing
    if name == "Posterize":  # keeps the upper bits, one at least: a greater level keeps more
        return ImageOps.posterize(image, max(1, int(between(0, 4))))
    if name == "Solarize":  # inverts what is as bright as the threshold: a greater level less
        return ImageOps.solarize(image, math.ceil(between(0, 256)))
    if name == "SolarizeAdd":  # brightens, then inverts
        brighter = np.clip(np.asarray(image) + between(0, 110), 0, 255)
        return ImageOps.solarize(Image.fromarray(brighter.astype(np.uint8)), 128)
    how = Image.Resampling.NEAREST if kind == "colour" else Image.Resampling.BILINEAR
    grey = None if kind == "colour" else (128, 128, 128)  # what comes in
    if name == "Rotate":  # about the middle
        return image.rotate(_signed(between(0, 30), rng), how, fillcolor=grey)
    pixels = 100 if kind == "colour" else 10
    entries = {"ShearX": (1, 0.3), "TranslateX": (2, pixels)}
    entries |= {"ShearY": (3, 0.3), "TranslateY": (5, pixels)}
    entry, high = entries[name]
    matrix = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    matrix[entry] = _signed(between(0, high), rng)
    affine = Image.Transform.AFFINE
    return image.transform(image.size, affine, tuple(matrix), how, fillcolor=grey)


def _signed(value: float, rng: np.random.Generator) -> float:
    return -value if rng.random() < 0.5 else value
