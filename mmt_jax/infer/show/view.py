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
from mmt_jax.infer.show.explain import Explanation
from mmt_jax.photo import IDS, PROBS, SCORES, Photo
from mmt_jax.photo import WHOLE as WHOLE_BOX
from mmt_jax.photos import pictures

WHOLE = "the whole photo"


@dataclasses.dataclass(frozen=True)
class View:
    """One photo and one caption.

    Attributes:
      picture: [H, W, 3] uint8; grey where only regions are known.
      boxes: [R, 4] f32: ymin, xmin, ymax, xmax in 0..1.
      names: [R] what each region seems to show.
      caption: the sentence.
      explanation: of a model, its regions in the order of `boxes`, or None.
    """

    picture: np.ndarray
    boxes: np.ndarray
    names: tuple[str, ...]
    caption: str
    explanation: Explanation | None = None


def of_photo(
    path: str, detector: str, caption: str, config: Config | None
) -> tuple[View, dict[str, np.ndarray]]:
    """A photo's regions with what the detector calls them, and its record.

    They stand as a model of `config` reads them.

    Raises:
      UsageError: no picture or detector, or nothing is found on it.
    """
    finder, picture = detectors.load(detector), pictures.read(path)
    photo = base.answer(finder, picture, path)
    reading = regions.Reading.of(config) if config else regions.Reading(base.MAX_REGIONS)
    boxes, scores = photo.rows[schema.BOXES], photo.rows.get(SCORES)
    (rows,) = reading.slots(np.array([0, len(boxes)]), scores)
    names = _names(photo, rows, finder.labels)
    return View(picture, boxes[rows, :4], names, caption), base.record(photo, reading)


def of_record(record: Mapping[str, np.ndarray] | str, caption: str, config: Config | None) -> View:
    """The real slots of a record, or of its file: regions, or patches where the model reads them.

    Raises:
      UsageError: it cannot be read, has a fault, or holds pixels that no model is given for.
    """
    name = record if isinstance(record, str) else "the record"
    record = schema.read_record(record) if isinstance(record, str) else record
    if config and config.model.pixels:
        model, pixels, kind = config.model, record[schema.PIXELS], "patch"
        picture = np.rint(pixels * 255).astype(np.uint8)
        _, cells = regions.patches(pixels, model.patch_size, global_region=model.global_region)
        boxes = np.asarray(cells)
    elif schema.PIXELS in record:
        raise UsageError(f"{name} holds pixels, no regions; give --model that reads them")
    else:
        schema.validate_record(record, name=name, global_region=False)
        picture, kind = np.full((300, 400, 3), 235, np.uint8), "region"
        boxes = record[schema.BOXES][schema.mask(record[schema.IMAGE_PADDING])]
    whole = (boxes == WHOLE_BOX).all(axis=1)
    names = tuple(WHOLE if all_of_it else f"{kind} {i}" for i, all_of_it in enumerate(whole, 1))
    return View(picture, boxes[:, :4], names, caption)


def _names(photo: Photo, rows: np.ndarray, labels: Mapping[int, str]) -> tuple[str, ...]:
    """What the detector says of rows [R]: the likeliest class, and the score; last, the photo."""
    scores, ids, probs = (photo.rows.get(key) for key in (SCORES, IDS["class"], PROBS["class"]))
    found = []
    for row in rows:
        if row == len(photo.rows[schema.BOXES]) - 1:
            found.append(WHOLE)
            continue
        name = f"region {row + 1}"
        if ids is not None and probs is not None:
            best = int(ids[row, probs[row].argmax()])
            name = labels.get(best, f"class {best}")
        found.append(name if scores is None else f"{name} {scores[row]:.2f}")
    return tuple(found)
