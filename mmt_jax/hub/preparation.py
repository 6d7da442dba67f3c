"""How published weights were shown photos: their `preprocessor_config.json`, read and written.

Hugging Face's newer releases hold the same as the part `image_processor` of
`processor_config.json`.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmt_jax.configs.config import Config
from mmt_jax.errors import UsageError
from mmt_jax.hub.folders import read_json
from mmt_jax.nn.vision import PIXEL_MEAN, PIXEL_STD
from mmt_jax.photos import processors
from mmt_jax.photos.processors import Processor

FILE = "preprocessor_config.json"
_WHOLE, _PART = "processor_config.json", "image_processor"
# What must be so where it is said: the models normalise by these themselves.
_FIXED: dict[str, Any] = {
    "do_resize": True,
    "do_center_crop": True,
    "do_rescale": True,
    "do_normalize": True,
    "rescale_factor": 1 / 255,
    "resample": 3,  # bicubic
    "image_mean": PIXEL_MEAN,
    "image_std": PIXEL_STD,
}
_CLASSES = {"clip": "CLIPImageProcessor", "bridgetower": "BridgeTowerImageProcessor"}


def read(folder: str | os.PathLike) -> dict[str, Any] | None:
    """What a folder says of photos; None = nothing."""
    for name in (FILE, _WHOLE):
        file = pathlib.Path(folder) / name
        if not file.is_file():
            continue
        values = read_json(file)
        values = values if name == FILE else values.get(_PART)
        if values is not None:
            return values
    return None


def processor(settings: Mapping[str, Any], config: Config, *, name: str) -> Processor:
    """The processor that a `preprocessor_config.json` describes, for CLIP or BridgeTower.

    Raises:
      UsageError: photos of the folder `name` are prepared in a way that is not known here.
    """
    usual = processors.of(config)
    for field, value in _FIXED.items():
        found = settings.get(field, value)
        if not _equal(found, value):
            raise UsageError(
                f"{name}: {FILE} has {field}={found!r}; {config.model.family} reads "
                f"{np.asarray(value).tolist()!r}: take the file that the weights came with, or "
                f"none, for the family's own"
            )
    side = _side(settings.get("size", usual.side), "shortest_edge")
    crop = _side(settings.get("crop_size", side), "shortest_edge", "height", "width")
    if side is None or crop != side:
        raise UsageError(
            f"{name}: {FILE} resizes to {settings.get('size')!r} and cuts out "
            f"{settings.get('crop_size')!r}; {config.model.family} reads a square of the shorter "
            f"side's length"
        )
    divisor = settings.get("size_divisor", usual.divisor) if usual.divisor else 0
    if not isinstance(divisor, int) or divisor < 0:
        raise UsageError(f"{name}: {FILE} has size_divisor={divisor!r}, and not a whole number")
    return Processor(side, divisor)


def settings(config: Config) -> dict[str, Any]:
    """The `preprocessor_config.json` of a model that came with none."""
    usual, family = processors.of(config), config.model.family
    edge = {"shortest_edge": usual.side}
    square = {"height": usual.side, "width": usual.side}
    divided = {"size_divisor": usual.divisor, "do_pad": True} if usual.divisor else {}
    return {
        "image_processor_type": _CLASSES[family],
        "size": edge,
        "crop_size": edge if divided else square,
        **{field: np.asarray(value).tolist() for field, value in _FIXED.items()},
        **divided,
    }


def _side(size: Any, *names: str) -> int | None:
    """The one length n of a size that is written n or `{name: n, …}`; None = it is another."""
    if isinstance(size, Mapping):
        given = {name: value for name, value in size.items() if value is not None}
        sides = {*given.values()}
        size = sides.pop() if len(sides) == 1 and given.keys() <= {*names} else None
    return size if isinstance(size, int) and size > 0 else None


def _equal(found: Any, value: Any) -> bool:
    try:
        return bool(np.allclose(found, value, rtol=0, atol=1e-6))
    except (TypeError, ValueError):
        return False
