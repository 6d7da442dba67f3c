"""Data sets of TFDS, read example by example from where they lie; needs no TensorFlow."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmt_jax.errors import UsageError, optional, trying

INFO = "dataset_info.json"  # of TFDS, beside the shards; it names the splits that are finished
_PLACES = (INFO, f"*/{INFO}", f"*/*/{INFO}", f"*/*/*/{INFO}")  # in a folder that is given


class Examples(Sequence[dict[str, Any]]):
    """The examples of a prepared split, read one by one from where they lie.

    Values by name: `image/encoded` (NLVR2: `left/…`, `right/…`; SVO-Probes: `positive/…`,
    `negative/…`) are the bytes of a JPEG or PNG, `image/hash` 16 hexadecimal digits; texts are str,
    lists of them list, numbers numpy, boxes [n, 4] f32: ymin, xmin, ymax, xmax in 0..1.

    Attributes:
      names: of the values.
      photos: those of them that are photos' bytes.
    """

    def __init__(self, version: pathlib.Path, split: str):
        tfds = datasets_library()
        builder = tfds.builder_from_directory(version)
        features = builder.info.features
        self.names: tuple[str, ...] = tuple(features)
        self.photos = tuple(n for n in self.names if isinstance(features[n], tfds.features.Image))
        as_it_is = {name: tfds.decode.SkipDecoding() for name in self.photos}
        self._source = builder.as_data_source(split, decoders=as_it_is)
        self._where = f"{version}, split {split}"

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)  # ends an iteration; TFDS raises something else
        with trying(f"{self._where}: example {index} cannot be read", "; copy the folder again"):
            values = self._source[index]
        return {
            name: value if name in self.photos else _decoded(value)
            for name, value in values.items()
        }


def caption_feature(names: Sequence[str]) -> str | None:
    """The feature of captions among those of an example: `text/captions`, `caption`, `text`, …."""
    for wanted in ("text/captions", "captions", "caption", "texts", "text"):
        if wanted in names:
            return wanted
    return None


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):  # of a sequence of features, as of TFDS's own COCO
        return _decoded(next((value[key] for key in ("text", "raw") if key in value), list(value)))
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = value.tolist()
    if isinstance(value, list):
        return [_decoded(text) for text in value]
    return value.decode() if isinstance(value, bytes) else value


def read(folder: str | os.PathLike, split: str) -> Examples:
    """The examples of a prepared split, in the order of their keys' hashes.

    Args:
      folder: as `mmt data prepare --out` made it, or a folder of one corpus in it.
      split: one of `splits(folder)`.

    Raises:
      UsageError: no prepared corpus, several of them, no such split, or TFDS is missing; later, a
        shard is damaged.
    """
    version = find(folder)
    if split not in (known := splits(version)):
        raise UsageError(f"{version} has no split {split!r}; it has {', '.join(known)}")
    return Examples(version, split)


def splits(folder: str | os.PathLike) -> tuple[str, ...]:
    """The finished splits of the one prepared corpus in a folder."""
    return tuple(split["name"] for split in document(find(folder) / INFO)["splits"])


def document(path: pathlib.Path) -> dict[str, Any]:
    """What a JSON file beside the shards holds, which must be there and whole."""
    with trying(f"{path} cannot be read", "; remove its folder and prepare the corpus again"):
        return json.loads(path.read_text(encoding="utf-8"))


def find(folder: str | os.PathLike) -> pathlib.Path:
    """Where the one prepared corpus in a folder lies: the folder that holds its shards."""
    places = map(pathlib.Path(folder).glob, _PLACES)
    found = next(
        (sorted(path.parent for path in there) for there in map(list, places) if there), []
    )
    if not found:
        raise UsageError(f"{folder} holds no prepared corpus; write one with `mmt data prepare`")
    if len(found) > 1:
        raise UsageError(f"{folder} holds several corpora; name one, such as {found[0]}")
    return found[0]


def is_prepared(folder: str | os.PathLike) -> bool:
    """Whether a folder holds prepared corpora, one or several."""
    return any(any(pathlib.Path(folder).glob(place)) for place in _PLACES)


def datasets_library() -> Any:
    """The library `tensorflow_datasets`, which needs no TensorFlow."""
    with optional("prepared corpora need tensorflow-datasets and array-record", "data"):
        import array_record.python.array_record_module  # noqa: F401
        import tensorflow_datasets as tfds
    return tfds
