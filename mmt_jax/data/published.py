"""The arrays of a published region folder, and the one place where they become rows and back.

In the folder a photo's first row is the whole photo and a box is four numbers; everywhere else, as
in the exported signature, the whole photo is the last row and its box has the area too.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mmt_jax.data import schema
from mmt_jax.errors import UsageError
from mmt_jax.photo import BOXES, FEATURES, IDS, LABELS, PROBS, SCORES, WHOLE, Rows, with_area

# What an array is called in a folder → its key. The first two are always there.
NAMES = {"features": FEATURES, "boxes": BOXES, "scores": SCORES}
NAMES |= {f"{kind}_ids": key for kind, key in IDS.items()}
NAMES |= {f"{kind}_probs": key for kind, key in PROBS.items()}

# How each must be shaped, and of which kinds (of numpy's dtypes); else it is as class_probs are.
_KINDS = {"scores": ("[rows]", "iuf"), "boxes": ("[rows, 4]", "iuf")}
_KINDS |= {f"{kind}_ids": ("[rows, k]", "iu") for kind in LABELS}
_FEATURES = (np.uint8, np.float16, np.float32)
_PHOTOS = 1024  # whose rows are turned at once, so that no large array is copied whole


def rows(arrays: Mapping[str, np.ndarray], offsets: np.ndarray) -> dict[str, np.ndarray]:
    """Checked arrays [rows, …] by their names in a folder → rows by key; `offsets` are [N + 1] i64.

    Those of the right dtype are reused.
    """
    found = {}
    for name, key in NAMES.items():
        if (values := arrays.get(name)) is None:
            continue
        if key != FEATURES:
            values = values.astype(np.int32 if key in IDS.values() else np.float32, copy=False)
        for start in range(0, len(offsets) - 1, _PHOTOS):
            bounds = offsets[start : start + _PHOTOS + 1]
            order = np.arange(bounds[0], bounds[-1]) + 1
            order[bounds[1:] - bounds[0] - 1] = bounds[:-1]
            values[bounds[0] : bounds[-1]] = values[order]
        found[key] = values
    found[BOXES] = with_area(found[BOXES])
    found[BOXES][offsets[1:] - 1] = WHOLE
    return found


def arrays(rows: Rows) -> dict[str, np.ndarray]:
    """The rows of one photo by their names in a folder, in its order."""
    found = {name: np.roll(rows[key], 1, axis=0) for name, key in NAMES.items() if key in rows}
    return found | {"boxes": found["boxes"][:, :4]}


def check(arrays: Mapping[str, np.ndarray], numbers: Mapping[str, int | None], where: str) -> None:
    """Refuses what cannot be the rows of photos.

    Args:
      arrays: by their names in the folder; of one photo, or of several.
      numbers: of classes and attributes, as `LABELS` calls them; None = not known yet.

    Raises:
      UsageError: naming the array and, where one is at fault, the row.
    """
    for name, values in arrays.items():
        shape, kinds = _KINDS.get(name, ("[rows, k]", "iuf"))
        right = values.ndim == shape.count(",") + 1 and values.dtype.kind in kinds
        if name == "features":
            shape = "[rows, F] of float32, float16 or uint8"
            right &= values.dtype in _FEATURES
        right &= values.shape[:1] == arrays["features"].shape[:1]
        if not right or (name == "boxes" and values.shape[1] != 4):
            raise UsageError(
                f"{where}: {name} has shape {values.shape} and dtype {values.dtype}, it must be "
                f"{shape}, {'whole ' * (kinds == 'iu')}numbers"
            )
        if name != "boxes" and values.dtype.kind == "f" and not np.isfinite(values).all():
            row = np.argwhere(~np.isfinite(values))[0][0]
            raise UsageError(f"{where}: {name} holds NaN or infinity in row {row}")
    schema.check_coordinates(arrays["boxes"], f"{where}: boxes")
    for kind, number in LABELS.items():
        _check_labels(arrays, kind, numbers[number], where)


def _check_labels(
    arrays: Mapping[str, np.ndarray], kind: str, number: int | None, where: str
) -> None:
    ids, probs = arrays.get(f"{kind}_ids"), arrays.get(f"{kind}_probs")
    if ids is None and probs is None:
        return
    if ids is None or probs is None or ids.shape != probs.shape:
        raise UsageError(f"{where}: {kind}_ids and {kind}_probs need each other, of one shape")
    low, high, most = ids.min(initial=0), ids.max(initial=0), number or 2**31
    if low < 0 or high >= most:
        raise UsageError(
            f"{where}: {kind}_ids run from {low} to {high}, but there are {most} "
            f"{LABELS[kind].removeprefix('num_')}; store their number as `{LABELS[kind]}`"
        )
    if (probs < 0).any() or (probs.sum(axis=1, dtype=np.float32) > 1.01).any():
        raise UsageError(f"{where}: {kind}_probs must be at least 0 and sum to at most 1 a row")
