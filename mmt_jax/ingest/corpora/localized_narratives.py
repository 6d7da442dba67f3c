"""Localized Narratives (Pont-Tuset et al., 2020, arXiv 1912.03098) of COCO and Open Images."""

from __future__ import annotations

import pathlib
import re

from mmt_jax import readers as files
from mmt_jax.errors import UsageError
from mmt_jax.ingest.corpora import base, coco_captions

# The full files are published in shards, those without traces ("captions") are not.
_FILES = {
    "coco_train": "coco_train_*.jsonl",
    "coco_val": "coco_val_*.jsonl",
    "open_images_train": "open_images_train_v6_*.jsonl",
    "open_images_validation": "open_images_validation_*.jsonl",
    "open_images_test": "open_images_test_*.jsonl",
}
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.jsonl(?:\.gz)?$")
# Ids of photos, of Open Images and of COCO: how they look, and one of them.
_IDS = (("[0-9a-f]{16}", "000a1249af2bc5f0"), ("[0-9]{1,12}", "391895"))


def _paths(raw: base.Raw, split: str) -> list[pathlib.Path]:
    """The shards of a split's full files, else the file without traces."""
    paths = raw.glob(_FILES[split].replace("*", "localized_narratives*"))
    shards = [match for path in paths if (match := _SHARD.search(path.name))]
    if shards and len(shards) != int(shards[0][2]):
        raise UsageError(
            f"{raw.folder} has {len(shards)} of {int(shards[0][2])} shards of {split}; fetch the "
            f"others"
        )
    return paths or raw.glob(_FILES[split].replace("*", "captions"))


def _read(raw: base.Raw, split: str) -> base.Entries:
    """One example a photo, with all its narratives, which need not stand side by side."""
    texts: dict[str, list[str]] = {}
    first: dict[str, str] = {}
    for path in _paths(raw, split):
        for where, entry in files.json_lines(path):
            name = files.field(entry, "image_id", str, where)
            pattern, like = _IDS[split.startswith("coco")]
            if not re.fullmatch(pattern, name):
                raise UsageError(f"{where}: `image_id` is {name!r}; it must be like {like}")
            texts.setdefault(name, []).append(files.field(entry, "caption", str, where))
            first.setdefault(name, where)
    for name, narratives in texts.items():
        yield base.captioned(first[name], _picture(split, name), narratives)


def _picture(split: str, name: str) -> base.Picture:
    if split.startswith("coco"):
        folder = split.removeprefix("coco_")
        return coco_captions.picture(int(name), (f"{folder}2017", "train2014", "val2014"))
    folder = split.removeprefix("open_images_")
    return base.Picture(
        name, (f"{folder}/{name}.jpg", f"images/{name}.jpg"), (f"openimages:{name}",)
    )


CORPORA = (
    base.Corpus(
        name="localized_narratives",
        title="Localized Narratives (Pont-Tuset et al., 2020, arXiv 1912.03098)",
        wants=(
            "{coco_{train,val},open_images_{train_v6,validation,test}}_localized_narratives*.jsonl "
            "or …_captions.jsonl; photos in {train,val}2017/ and {train,validation,test}/"
        ),
        splits=base.splits(_FILES),
        read=_read,
        large=True,
    ),
)
