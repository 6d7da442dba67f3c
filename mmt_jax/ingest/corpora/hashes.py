"""A photo's hash that outlives re-encoding and resizing, and photos that are to be kept out.

Visual Genome and Localized Narratives contain photos of COCO and Flickr, on which models are
evaluated: those must not be trained on. A photo is known again by an id that both corpora give, or
by its hash.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np

from mmt_jax import readers as files
from mmt_jax.data import prepared
from mmt_jax.errors import UsageError
from mmt_jax.ingest.corpora import base

# Two hashes no further apart are the same photo's. Of 65 photos of COCO, copies with JPEG quality
# 30 to 95 and a quarter to one and a half of the size are at most 6 bits off, two different photos
# at least 15. Copies that are cut are another matter: 10 % less of each side moves 9 bits.
THRESHOLD = 6

# What corpora call their photos: elsewhere an id would keep out nothing.
_ID = re.compile(r"(?:coco|flickr|vg):(?:0|[1-9]\d*)|(?:nlvr2|openimages|svo|gqa):[^\s.]+")
_HASH = "dhash:"


def dhash(picture: np.ndarray) -> int:
    """The difference hash of [H, W, 3] uint8: 64 bits, whether brightness grows to the right.

    N. Krawetz, "Kind of Like That", 2013 (hackerfactor.com/blog): the picture is shrunk to 9 × 8
    grey values, and each is compared with its right neighbour.
    """
    from PIL import Image

    grey = Image.fromarray(picture).convert("L").resize((9, 8), Image.Resampling.LANCZOS)
    values = np.asarray(grey)
    return int(np.packbits(values[:, 1:] > values[:, :-1]).view(">u8")[0])


@dataclasses.dataclass(frozen=True)
class Exclusion:
    """Photos to be kept out."""

    ids: dict[str, str]  # where each comes from by its ids, such as "coco:391895"
    hashes: np.ndarray  # [n] u64
    names: tuple[str, ...]  # [n], whose hashes they are
    sources: tuple[tuple[str, str], ...]  # what they were read from, and a digest of it

    def by_id(self, ids: Sequence[str]) -> str | None:
        """What the photo with these ids is, if it is among them."""
        return next((f"{name} is in {self.ids[name]}" for name in ids if name in self.ids), None)

    def by_hash(self, value: int) -> str | None:
        """What the photo with this hash is, if it is among them."""
        if not len(self.hashes):
            return None
        distances = np.bitwise_count(self.hashes ^ np.uint64(value))
        best = int(distances.argmin())
        if distances[best] > THRESHOLD:
            return None
        return f"{distances[best]} bits from {self.names[best]}"


def load(paths: Sequence[str | os.PathLike]) -> Exclusion:
    """Reads what is to be kept out: the evaluation splits of prepared corpora, or files of ids.

    A file has an id a line, such as `coco:391895`, `flickr:3715786136`, `vg:2407890`, or a hash,
    `dhash:` and 16 hexadecimal digits. Of a prepared corpus its splits other than for training
    count.

    Raises:
      UsageError: a path is neither, or holds nothing to keep out.
    """
    ids: dict[str, str] = {}
    hashes: dict[int, str] = {}
    sources = []
    for path in map(pathlib.Path, paths):
        found = list(_prepared(path) if path.is_dir() else _listed(path))
        if not found:
            raise UsageError(f"{path} names no photo; it would keep out nothing")
        own = {int(name[len(_HASH) :], 16): at for name, at in found if name.startswith(_HASH)}
        others = {name: at for name, at in found if not name.startswith(_HASH)}
        digest = hashlib.sha256(repr([sorted(others), sorted(own)]).encode()).hexdigest()
        sources.append((str(path), digest[:16]))
        ids, hashes = others | ids, own | hashes
    values = np.fromiter(hashes, np.uint64, len(hashes))
    return Exclusion(ids, values, tuple(hashes.values()), tuple(sources))


def _prepared(folder: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Names of photos, among them their hashes, and where each is from."""
    evaluation = [split for split in prepared.splits(folder) if not base.training(split)]
    if not evaluation:
        raise UsageError(
            f"{folder} has splits for training alone, of which none is kept out; to keep some of "
            f"its photos out, give a file of their ids"
        )
    for split in evaluation:
        for example in prepared.read(folder, split):
            for name in (key.removesuffix("/hash") for key in example if key.endswith("/hash")):
                yield _HASH + example[f"{name}/hash"], f"{folder} {split} {example[f'{name}/id']}"
                yield from ((other, f"{folder} {split}") for other in example[f"{name}/ids"])


def _listed(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    for where, line in files.lines(path):
        name = line.strip()
        if name.startswith(_HASH):
            if not re.fullmatch("[0-9a-f]{16}", name.removeprefix(_HASH)):
                raise UsageError(f"{where}: a hash has 16 hexadecimal digits, not {name!r}")
            yield name, where
        elif name:
            if not _ID.fullmatch(name):
                raise UsageError(
                    f"{where}: {line!r} is no id of a photo; it must be like coco:391895, of coco, "
                    f"flickr, vg (and digits without zeros in front), nlvr2, openimages or svo"
                )
            yield name, str(path)
