"""What every detector answers, and how an answer becomes a photo of a region folder or a record."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmt_jax.corpus import Corpus
from mmt_jax.errors import UsageError, trying
from mmt_jax.photo import FEATURES, Photo, rows

if TYPE_CHECKING:
    from mmt_jax.data.regions import Reading

MAX_REGIONS = 100  # the release's

_ITEM = re.compile(r"item\s*\{(.*?)\}", re.DOTALL)
_ID = re.compile(r"\bid\s*:\s*(\d+)")
_NAME = re.compile(r"\b(?:display_)?name\s*:\s*[\"'](.*?)[\"']")


@dataclasses.dataclass(frozen=True)
class Detections:
    """What a detector says of one picture: rows of regions, best first, and perhaps the whole."""

    boxes: np.ndarray  # [n, 4] f32: ymin, xmin, ymax, xmax in 0..1
    features: np.ndarray  # [n, F] f32
    scores: np.ndarray | None = None  # [n] f32; None where all regions are alike
    class_ids: np.ndarray | None = None  # [n, k], the likeliest classes of each, best first
    class_probs: np.ndarray | None = None  # [n, k] f32, of these
    whole: bool = False  # the last row is the whole picture, by a feature of the detector's own


@dataclasses.dataclass(frozen=True)
class Detector:
    """A loaded detector."""

    detect: Callable[[np.ndarray], Detections]  # [H, W, 3] uint8 of any size → what is on it
    num_classes: int = 0  # of its class distributions, the background included; 0: it has none
    labels: Mapping[int, str] = dataclasses.field(default_factory=dict)  # of the classes by id


def answer(detector: Detector, picture: np.ndarray, name: str) -> Photo:
    """What a detector says of one picture, as `photo`; `name` is for messages."""
    with trying(f"the detector fails on {name}"):
        return photo(detector.detect(picture))


def photo(
    found: Detections, *, image_id: int = 0, captions: Sequence[str] = (), **info: Any
) -> Photo:
    """A detector's answer as a photo of a region folder.

    Where no row is the whole picture, one is put behind: the mean of the regions' features, of no
    known class, as in MMT's release.

    Raises:
      UsageError: nothing was found on the picture, or the answer is no `Detections`.
    """
    if not isinstance(found, Detections):
        raise UsageError(
            f"a detector answers with a {type(found).__name__}; Detector.detect takes one picture "
            f"[H, W, 3], not a list of them, and returns Detections"
        )
    if not len(found.boxes):
        raise UsageError("the detector found no region; nothing can be said of such a photo")
    seen = rows(
        found.features,
        np.clip(found.boxes, 0, 1),
        whole=None if found.whole else found.features.mean(axis=0),
        scores=found.scores,
        class_ids=found.class_ids,
        class_probs=found.class_probs,
    )
    return Photo(image_id, tuple(captions), seen, info)


def record(photo: Photo, reading: Reading) -> dict[str, np.ndarray]:
    """The three image keys of a photo."""
    offsets = np.array([0, len(photo.rows[FEATURES])])
    alone = Corpus(name="", image_ids=np.zeros(1), offsets=offsets, captions=((),), rows=photo.rows)
    from mmt_jax.data import regions  # brings jax along, which `mmt --help` is not to wait for

    return regions.record(alone, 0, reading)


def labels(path: str | os.PathLike) -> dict[int, str]:
    """Names of classes by id: a label map of the TF Object Detection API, or a line a class.

    A line is a name, and its id is its number, counted from 0; or an id, white space and a name.

    Raises:
      UsageError: the file cannot be read, or names nothing.
    """
    if not path:
        return {}
    with trying(f"{path} cannot be read as labels"):
        text = pathlib.Path(path).read_text(encoding="utf-8")
    if items := _ITEM.findall(text):
        pairs = [(_ID.search(item), _NAME.findall(item)) for item in items]
        names = {int(number[1]): found[-1] for number, found in pairs if number and found}
    else:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        parts = [line.split(maxsplit=1) for line in lines]
        if all(len(part) == 2 and part[0].isdecimal() for part in parts):
            names = {int(number): name for number, name in parts}
        else:
            names = dict(enumerate(lines))
    if not names:
        raise UsageError(f"{path} holds no label; give a label map (.pbtxt) or a name a line")
    return names


def existing(path: str | os.PathLike, what: str) -> str | os.PathLike:
    """`path`, if something is there."""
    if not os.path.exists(path):
        raise UsageError(f"there is no {what} {path}")
    return path
