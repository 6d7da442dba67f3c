"""What is drawn: a picture, its regions and, with a model, an explanation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from mmt_jax.configs.models import ModelConfig
from mmt_jax.data import regions, schema
from mmt_jax.infer.show.explain import Explanation
from mmt_jax.photo import IDS, PROBS, SCORES, Photo
from mmt_jax.photo import WHOLE as WHOLE_BOX

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


def names(photo: Photo, rows: np.ndarray, labels: Mapping[int, str]) -> tuple[str, ...]:
    """What the detector says of rows [R] of a photo: the likeliest class, and the score.

    The last of its rows is the whole photo.
    """
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


def of_record(
    record: Mapping[str, np.ndarray], model: ModelConfig | None = None
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Picture, boxes and names of a record's real slots: regions, or a model's patches."""
    if model and schema.PIXELS in record:
        pixels = record[schema.PIXELS]
        picture = np.rint(pixels * 255).astype(np.uint8)
        _, boxes = regions.patches(pixels, model.patch_size, global_region=model.global_region)
        kind = "patch"
    else:
        picture, kind = np.full((300, 400, 3), 235, np.uint8), "region"
        boxes = record[schema.BOXES][record[schema.IMAGE_PADDING] == 0]
    whole = (boxes == WHOLE_BOX).all(axis=1)
    found = tuple(WHOLE if all_of_it else f"{kind} {i}" for i, all_of_it in enumerate(whole, 1))
    return picture, boxes[:, :4], found
