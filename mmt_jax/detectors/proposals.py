"""A classifier as a detector: the whole photo and a grid of boxes at several scales are cropped.

Options that such detectors share: `features` is the tensor that becomes a region's feature, of any
layer: a vector, or a map, of which the mean is taken; `scores` that of the class scores, "" = the
first output; `colours` what the input's values mean (`COLOURS`), which inputs of 8 bits need not
say; `scales` are those of the boxes (`boxes`); `labels` is the file of the classes' names.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mmt_jax import photo as photos
from mmt_jax.detectors import base
from mmt_jax.detectors.base import Detections, Detector
from mmt_jax.errors import UsageError
from mmt_jax.photos import pictures

SCALES = "2x3"  # 13 boxes

# How 8-bit colours become what a network reads: mean and deviation of values in 0..1.
COLOURS = {
    "unit": (0.0, 1.0),  # 0..1
    "signed": (0.5, 0.5),  # -1..1
    "raw": (0.0, 1 / 255),  # 0..255
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}

# Crops [n, S, S, 3] uint8 → features [n, F] or maps [n, h, w, F], and class scores [n, C], f32.
Classify = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def detector(
    classify: Classify, size: tuple[int, int], scales: str, labels: str, num_classes: int
) -> Detector:
    """Classifies crops of a picture: regions, that with the surest class first, then the whole.

    `size` is the height and width of the crops.
    """
    grid = boxes(scales)

    def detect(picture: np.ndarray) -> Detections:
        features, scores = classify(np.stack([pictures.crop(picture, box, size) for box in grid]))
        features = features.reshape(len(grid), -1, features.shape[-1]).mean(axis=1)
        probs = distribution(scores)
        best = probs.max(axis=1)
        order = np.append(np.argsort(-best[:-1], kind="stable"), len(best) - 1)
        ids, probs = photos.top(probs[order])
        return Detections(grid[order], features[order], best[order], ids, probs, whole=True)

    return Detector(detect, num_classes, base.labels(labels))


def boxes(scales: str) -> np.ndarray:
    """Boxes [n, 4] f32, the whole photo last: ymin, xmin, ymax, xmax in 0..1.

    Args:
      scales: numbers separated by "x", as in "2x3": scale s has s² boxes, each 2 / (s + 1) of the
        photo's sides, so that neighbours share half.

    Raises:
      UsageError: they are no such numbers, or ask for more than 100 boxes.
    """
    try:
        numbers = [int(part) for part in scales.split("x")]
    except ValueError:
        numbers = []
    total = sum(number**2 for number in numbers)
    if not numbers or min(numbers) < 1 or total > base.MAX_REGIONS:
        raise UsageError(
            f"scales={scales} must be numbers such as 2x3, whose squares, the boxes, sum to at "
            f"most {base.MAX_REGIONS}"
        )
    found = []
    for number in numbers:
        step = 1 / (number + 1)
        found += [
            (row * step, column * step, (row + 2) * step, (column + 2) * step)
            for row in range(number)
            for column in range(number)
        ]
    return np.minimum(np.array([*found, (0, 0, 1, 1)], np.float32), 1)


def distribution(scores: np.ndarray) -> np.ndarray:
    """[n, C] class scores → probabilities: as they are where they can be, else their softmax.

    Quantised probabilities need not sum to 1: what they lack is spread over classes by those who
    read them.
    """
    total = scores.sum(axis=1, keepdims=True)
    if (scores >= 0).all() and (total <= 1.05).all():
        return scores / np.maximum(total, 1)
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def encoder(dtype: type, colours: str) -> Callable[[np.ndarray], np.ndarray]:
    """How crops [n, S, S, 3] uint8 become what an input of this dtype holds.

    Integers are the colours themselves, signed ones minus 128; floats are as `COLOURS` names them.

    Raises:
      UsageError: it names no such colours.
    """
    if dtype == np.uint8:
        return lambda crops: crops
    if dtype == np.int8:
        return lambda crops: (crops.astype(np.int16) - 128).astype(np.int8)
    if colours not in COLOURS:
        raise UsageError(
            f"this classifier reads floating-point colours, and colours={colours or '…'} does not "
            f"tell how; it is one of {', '.join(COLOURS)}"
        )
    mean, deviation = (np.asarray(values, np.float32) for values in COLOURS[colours])
    return lambda crops: ((crops / np.float32(255) - mean) / deviation).astype(dtype)


def side(value: str) -> int:
    """The option `size`: S in pixels."""
    if not value.isdecimal() or not 1 <= int(value) <= 4096:
        raise UsageError(
            f"size={value or '…'} must be the side of the classifier's input in pixels"
        )
    return int(value)
