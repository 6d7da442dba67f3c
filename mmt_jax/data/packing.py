"""Writes packed records; `records` says what they are."""

from __future__ import annotations

import array
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from mmt_jax.corpus import Corpus
from mmt_jax.data.records import FORMAT, INDEX
from mmt_jax.errors import UsageError, optional, writing
from mmt_jax.files import check_new, staged
from mmt_jax.photo import FEATURES, LABELS, PIXELS, PROBS

SHARD_MB = 256  # large enough for object stores, small enough to move and to check


def pack(
    blocks: Iterable[Corpus], folder: str | os.PathLike, split: str, *, shard_mb: int = SHARD_MB
) -> dict[str, Any]:
    """Writes a split; one block at a time is in memory, and 32 bytes of each photo.

    Args:
      blocks: the split's photos, in order; blocks of one corpus.
      folder: made where it does not exist.
      shard_mb: a shard is closed once it holds so many MiB.

    Returns:
      What `SPLIT.json` says.

    Raises:
      UsageError: the split is there already, there is no photo, features that float16 cannot hold,
        or `shard_mb` below 1.
      NoRoomError: there is no room to write, or no permission. Nothing of the split is kept.
    """
    folder = pathlib.Path(folder)
    if shard_mb < 1:
        raise UsageError(f"shards of {shard_mb} MiB hold nothing; give 1 or more")
    own = [folder / f"{split}{end}" for end in (".json", ".jsonl", ".index.npz", ".npz")]
    shards = folder.glob(f"{split}-{'[0-9]' * 5}-of-*.array_record")  # not those of SPLIT-2
    for path in (*own, *shards):  # a region folder too has a SPLIT.jsonl
        check_new(path)
    # RuntimeError is all that array_record knows.
    with staged(folder, split, last=".json") as parts, writing(folder, of=RuntimeError):
        writer = _Writer(parts, split, shard_mb << 20)
        try:
            for block in blocks:
                writer.add(block)
            return writer.finish()
        finally:
            writer.close()


class _Writer:
    """The files of a split, in a folder of their own."""

    def __init__(self, folder: pathlib.Path, split: str, shard_bytes: int):
        self._folder, self._split, self._shard_bytes = folder, split, shard_bytes
        with optional("packing records needs array-record", "data"):
            from array_record.python.array_record_module import ArrayRecordWriter
        self._open = ArrayRecordWriter
        self._shard: Any = None
        self._shards: list[pathlib.Path] = []
        self._written = 0  # bytes of records in the open shard
        self._lines = open(folder / f"{split}.jsonl", "wb")  # noqa: SIM115
        self._index = {name: array.array("q") for name in INDEX}
        self._index["offsets"].append(0)
        self._index["lines"].append(0)
        self._said: dict[str, Any] = {"format": FORMAT, "unlabelled": False}

    def close(self) -> None:
        self._lines.close()
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def add(self, block: Corpus) -> None:
        arrays = {**block.rows, FEATURES: _halved(block)}
        if block.pixels is not None:
            arrays[PIXELS] = block.pixels
        columns = [(k, v.dtype.newbyteorder("<").str, v.shape[1:]) for k, v in arrays.items()]
        real = np.ones(len(arrays[FEATURES]), bool)
        real[block.offsets[1:] - 1] = False  # the whole photo is never hidden
        probs = arrays.get(PROBS["class"])
        self._said["unlabelled"] |= probs is None or not probs[real].any(axis=-1).all()
        self._said |= {name: getattr(block, name) for name in LABELS.values()}
        self._said["columns"] = columns
        for photo, captions in enumerate(block.captions):
            rows = slice(*block.offsets[photo : photo + 2])
            parts = [
                np.ascontiguousarray(arrays[key][photo if key == PIXELS else rows], dtype)
                for key, dtype, _ in columns
            ]
            self._write(b"".join(part.tobytes() for part in parts))
            line = {"image_id": int(block.image_ids[photo]), "captions": list(captions)}
            size = self._lines.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            index = self._index
            index["image_ids"].append(line["image_id"])
            index["offsets"].append(index["offsets"][-1] + rows.stop - rows.start)
            index["caption_counts"].append(len(captions))
            index["lines"].append(index["lines"][-1] + size)

    def _write(self, record: bytes) -> None:
        if self._shard is None or self._written >= self._shard_bytes:
            if self._shard is not None:
                self._shard.close()
            path = self._folder / f"{self._split}-{len(self._shards):05d}"
            self._shard = self._open(str(path), "group_size:1,uncompressed")
            self._shards.append(path)
            self._written = 0
        self._shard.write(record)
        self._written += len(record)

    def finish(self) -> dict[str, Any]:
        if not self._shards:
            raise UsageError(f"the split {self._split!r} has no photo; nothing written")
        self.close()
        end = f"-of-{len(self._shards):05d}.array_record"
        files = [path.rename(path.with_name(path.name + end)) for path in self._shards]
        files += [self._folder / f"{self._split}{end}" for end in (".index.npz", ".jsonl")]
        index: Any = {name: np.array(values, np.int64) for name, values in self._index.items()}
        np.savez(files[-2], **index)
        self._said |= {
            "photos": len(index["image_ids"]),
            "rows": int(index["offsets"][-1]),
            "captions": int(index["caption_counts"].sum()),
            "files": [
                {"file": path.name, "bytes": path.stat().st_size, "sha256": _digest(path)}
                for path in files
            ],
        }
        text = json.dumps(self._said, indent=1) + "\n"
        (self._folder / f"{self._split}.json").write_text(text, encoding="utf-8")
        return self._said


def _halved(block: Corpus) -> np.ndarray:
    features = block.rows[FEATURES]
    if features.dtype != np.float32:
        return features
    with np.errstate(over="ignore"):
        half = features.astype(np.float16)
    if not np.isfinite(half).all():
        row = np.argwhere(~np.isfinite(half))[0][0]
        photo = block.image_ids[np.searchsorted(block.offsets, row, side="right") - 1]
        raise UsageError(
            f"{block.name}: photo {photo} has features up to {np.abs(features[row]).max():.4g}, "
            f"which float16 cannot hold; scale the features of all photos down"
        )
    return half


def _digest(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
