"""What is drawn: a picture, its regions and, with a model, an explanation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from mmt_jax import detectors
from mmt_jax.configs.config import Config
from mmt_jax.data import regions, schema
from mmt_jax.detectors import base
from mmt_jax.errors import UsageError
from mmt_jax.infer.inputs import read_record
from mmt_jax.infer.show.explain import Explanation
from mmt_jax.photo import NAMES, PICTURE, SCORES
from mmt_jax.photo import WHOLE as WHOLE_BOX
from mmt_jax.photos import pictures

DRAWN = 36  # regions named on the photo at most; more would hide it


@dataclasses.dataclass(frozen=True)
class View:
    """One photo and one caption."""

    picture: np.ndarray  # [H, W, 3] uint8; grey where the record remembers none
    boxes: np.ndarray  # [R, 4] f32: ymin, xmin, ymax, xmax in 0..1
    names: tuple[str, ...]  # [R], what each region seems to show
    caption: str
    explanation: Explanation | None = None  # of a model, its regions in the order of `boxes`

    @property
    def labels(self) -> list[str]:
        """[R] number and name."""
        return [f"{number} {name}" for number, name in enumerate(self.names, 1)]


def of_photo(
    path: str, detector: str, caption: str, config: Config | None
) -> tuple[View, dict[str, np.ndarray]]:
    """A photo's regions with what the detector calls them, and its record.

    They stand as a model of `config` reads them. UsageError: no picture or detector, or no region.
    """
    finder, (picture, _) = detectors.load(detector), pictures.given(path)
    photo = base.answer(finder, picture, path)
    reading = regions.Reading.of(config) if config else regions.Reading(base.MAX_REGIONS)
    boxes, scores = photo.rows[schema.BOXES], photo.rows.get(SCORES)
    (rows,) = reading.slots(np.array([0, len(boxes)]), scores)
    names = regions.names(photo.rows, rows, finder.labels)
    return View(picture, boxes[rows, :4], names, caption), base.record(photo, reading)


def of_record(record: Mapping[str, np.ndarray] | str, caption: str, config: Config | None) -> View:
    """The real slots of a record, or of its file: regions, or patches where the model reads them.

    UsageError: it cannot be read, has a fault, or holds pixels that no model is given for.
    """
    name = record if isinstance(record, str) else "the record"
    record = read_record(record) if isinstance(record, str) else record
    if config and config.model.pixels:
        model, pixels, kind = config.model, record[schema.PIXELS], "patch"
        picture = np.rint(pixels * 255).astype(np.uint8)
        _, cells = regions.patches(pixels, model.patch_size, global_region=model.global_region)
        boxes = np.asarray(cells)
    elif schema.PIXELS in record:
        raise UsageError(f"{name} holds pixels, no regions; give --model that reads them")
    else:
        schema.validate_record(record, name=name, global_region=False)
        real, kind = schema.mask(record[schema.IMAGE_PADDING]), "region"
        picture, boxes = _picture(record, name), record[schema.BOXES][real]
    whole = (boxes == WHOLE_BOX).all(axis=1)
    names = tuple(regions.WHOLE_NAME if all_of_it else kind for all_of_it in whole)
    if kind == "region" and NAMES in record:
        if record[NAMES].shape != real.shape:
            raise UsageError(f"{name}: {NAMES} must hold one name for each of {len(real)} slots")
        names = tuple(map(str, record[NAMES][real]))
    return View(picture, boxes[:, :4], names, caption)


def _picture(record: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """The photo that a record remembers, or grey."""
    picture = record.get(PICTURE, np.full((300, 400, 3), 235, np.uint8))
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise UsageError(f"{name}: {PICTURE} must be [H, W, 3] uint8; it is {picture.shape}")
    return picture


def apart(labels: np.ndarray, width: float, height: float) -> np.ndarray:
    """Where labels are written so that none hides another: left and top [n, 2] of each.

    Each goes to the free place nearest to where it is wanted, up or down, within the picture of
    `width` and `height`; where all is taken it stays. `labels` [n, 4]: left and top as wanted,
    width and height.
    """
    taken: list[tuple[float, float, float, float]] = []
    for left, top, wide, high in labels.tolist():
        left = max(min(left, width - wide), 0.0)
        top = max(min(top, height - high), 0.0)
        tries = [top + sign * step * high / 4 for step in range(400) for sign in (-1, 1)]
        free = (
            y
            for y in tries
            if 0 <= y <= height - high
            and not any(
                left < x + w and x < left + wide and y < other + h and other < y + high
                for x, other, w, h in taken
            )
        )
        taken.append((left, next(free, top), wide, high))
    return np.array(taken).reshape(-1, 4)[:, :2]
