"""Visual Genome (Krishna et al., 2016, arXiv 1602.07332): phrases, objects and attributes by box.

Annotators drew across the edges of many photos: such boxes are cut there, and counted. They saw the
files as they lie, unturned. Objects and attributes are held in memory while the descriptions of the
regions are read one photo at a time.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator
from typing import Any

from mmt_jax import readers as files
from mmt_jax.errors import UsageError
from mmt_jax.ingest.corpora import base

_IMAGES = "image_data.json"
_MAX_SIDE = 100_000  # pixels
_FOLDERS = ("VG_100K", "VG_100K_2", "images")

# Things with boxes: file, its list in each entry, names of a box's numbers, and of the words.
_REGIONS, _OBJECTS, _ATTRIBUTES = "text/captions", "object/names", "attribute/names"
_THINGS = {
    _REGIONS: ("region_descriptions.json", "regions", ("x", "y", "width", "height"), "phrase"),
    _OBJECTS: ("objects.json", "objects", ("x", "y", "w", "h"), "names"),
    _ATTRIBUTES: ("attributes.json", "attributes", ("x", "y", "w", "h"), "attributes"),
}
_FIELDS = {name: "texts" for name in _THINGS}
_FIELDS |= {f"{name.partition('/')[0]}/bboxes": "boxes" for name in _THINGS}


@dataclasses.dataclass(frozen=True)
class _Photo:
    where: str
    size: tuple[int, int]  # width, height
    ids: tuple[str, ...]


def picture(name: str, ids: tuple[str, ...] = ()) -> base.Picture:
    """A photo of Visual Genome by its id, which GQA shares."""
    paths = tuple(f"{folder}/{name}.jpg" for folder in _FOLDERS)
    return base.Picture(name, paths, (f"vg:{name}", *ids))


def _read(raw: base.Raw, split: str) -> base.Entries:
    photos = _photos(raw)
    fields: dict[int, dict[str, Any]] = collections.defaultdict(dict)
    cut = collections.Counter()
    for kind in (_OBJECTS, _ATTRIBUTES):
        for number, _, found in _things(raw, kind, photos) if raw.find(_THINGS[kind][0]) else ():
            yield from found.skipped
            fields[number] |= found.fields(kind)
            cut[number] += found.cut
    described = set()
    for number, where, found in _things(raw, _REGIONS, photos):
        described.add(number)
        if (photo := photos.get(number)) is None:
            yield base.Skipped(where, "no photo", f"photo {number} is not in {_IMAGES}")
            continue
        yield from found.skipped
        if not found.texts:
            yield base.Skipped(where, "no caption", f"photo {number} has no region with a phrase")
            continue
        own = dict.fromkeys(_FIELDS, ()) | found.fields(_REGIONS) | fields[number]
        yield base.Item(
            str(number),
            where,
            (picture(str(number), photo.ids),),
            own,
            frame=photo.size,
            cut=found.cut + cut[number],
        )
    for number, photo in photos.items():
        if number not in described:
            yield base.Skipped(photo.where, "no caption", f"photo {number} has no regions")


def _photos(raw: base.Raw) -> dict[int, _Photo]:
    photos = {}
    for where, _, entry in files.json_entries(raw.need(_IMAGES)):
        width, height = (files.field(entry, name, int, where) for name in ("width", "height"))
        if not (0 < width < _MAX_SIDE and 0 < height < _MAX_SIDE):
            raise UsageError(f"{where}: {width} × {height} pixels are no size of a photo")
        ids = tuple(
            f"{corpus}:{entry[key]}"
            for corpus, key in (("coco", "coco_id"), ("flickr", "flickr_id"))
            if isinstance(entry.get(key), int) and not isinstance(entry[key], bool)
        )
        photos.setdefault(_number(entry, where), _Photo(where, (width, height), ids))
    return photos


def _things(
    raw: base.Raw, kind: str, photos: dict[int, _Photo]
) -> Iterator[tuple[int, str, base.Grounded]]:
    """Id, place and things of each entry of a file; nothing of photos that are not there."""
    name, key, sides, words = _THINGS[kind]
    for where, _, entry in files.json_entries(raw.need(name)):
        number, rows = _number(entry, where), []
        for index, row in enumerate(files.field(entry, key, list, where)):
            row, place = row if isinstance(row, dict) else {}, f"{where}, row {index}"
            texts = base.captions(_words(kind, row, words, place))
            if texts or kind != _ATTRIBUTES:  # most things have no attribute
                rows += [(place, text, [row.get(side) for side in sides]) for text in texts or [""]]
        photo = photos.get(number)
        yield number, where, base.ground(rows, photo.size) if photo else base.ground([], (1, 1))


def _words(kind: str, row: dict, name: str, where: str) -> list[str]:
    if kind == _REGIONS:
        return [files.field(row, name, str, where)]
    values = row.get(name) if isinstance(row.get(name), list) else []
    words = [text for text in values or () if isinstance(text, str)]
    return words[:1] if kind == _OBJECTS else words  # of an object's names the first


def _number(entry: dict, where: str) -> int:
    """The photo's id; older releases say `id` in place of `image_id`."""
    return files.field(entry, "image_id" if "image_id" in entry else "id", int, where)


CORPORA = (
    base.Corpus(
        name="visual_genome",
        title="Visual Genome (Krishna et al., 2016, arXiv 1602.07332)",
        wants=(
            "region_descriptions.json, image_data.json, and, where wanted, objects.json and "
            "attributes.json; photos in VG_100K/ and VG_100K_2/"
        ),
        fields=_FIELDS,
        splits=base.splits({"train": (_THINGS[_REGIONS][0], _IMAGES)}),
        read=_read,
        large=True,
    ),
)
