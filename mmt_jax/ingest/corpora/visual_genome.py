"""Visual Genome (Krishna et al., 2016, arXiv 1602.07332): phrases, objects and attributes by box.

Annotators drew across the edges of many photos: such boxes are cut there. Objects and attributes
are held in memory while the descriptions of the regions are read one photo at a time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from mmt_jax import readers as files
from mmt_jax.errors import UsageError
from mmt_jax.ingest.corpora import base

_REGIONS = "region_descriptions.json"
_IMAGES = "image_data.json"
_OBJECTS = "objects.json"
_ATTRIBUTES = "attributes.json"
_MAX_SIDE = 100_000  # pixels
_FOLDERS = ("VG_100K", "VG_100K_2", "images")


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
    objects: dict[int, dict] = {}
    for reader in (_objects, _attributes):
        for entry in reader(raw, photos):
            if isinstance(entry, base.Skipped):
                yield entry
            else:
                objects.setdefault(entry[0], {}).update(entry[1])
    described = set()
    for where, _, entry in files.json_entries(raw.need(_REGIONS)):
        number = _image_id(entry, where)
        described.add(number)
        if (photo := photos.get(number)) is None:
            yield base.Skipped(where, "no photo", f"photo {number} is not in {_IMAGES}")
            continue
        texts, boxes = [], []
        for place, row in _rows(files.field(entry, "regions", list, where), where):
            box = _box(row, ("x", "y", "width", "height"), photo.size, place)
            phrase = base.captions([files.field(row, "phrase", str, place)])
            if isinstance(box, base.Skipped) or not phrase:
                yield box if isinstance(box, base.Skipped) else _empty(place)
                continue
            texts += phrase
            boxes.append(box)
        if not texts:
            yield base.Skipped(where, "no caption", f"photo {number} has no region with a phrase")
            continue
        fields = {"text/captions": texts, "text/bboxes": boxes, **_NONE, **objects.get(number, {})}
        yield base.Item(str(number), where, (picture(str(number), photo.ids),), fields)
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
        photos.setdefault(_image_id(entry, where), _Photo(where, (width, height), ids))
    return photos


_NONE = {"object/names": [], "object/bboxes": [], "attribute/names": [], "attribute/bboxes": []}


def _objects(raw: base.Raw, photos: dict[int, _Photo]) -> Iterator[tuple[int, dict] | base.Skipped]:
    """Names and boxes of each photo's objects; an object has its first name."""
    for number, photo, where, row in _things(raw, _OBJECTS, "objects", photos):
        names, boxes = [], []
        for place, thing in _rows(row, where):
            box = _box(thing, ("x", "y", "w", "h"), photo.size, place)
            name = base.captions(_strings(thing, "names", place)[:1])
            if isinstance(box, base.Skipped) or not name:
                yield box if isinstance(box, base.Skipped) else _empty(place)
                continue
            names += name
            boxes.append(box)
        yield number, {"object/names": names, "object/bboxes": np.asarray(boxes, np.float32)}


def _attributes(
    raw: base.Raw, photos: dict[int, _Photo]
) -> Iterator[tuple[int, dict] | base.Skipped]:
    """Each attribute with the box of what has it; most things have none."""
    for number, photo, where, row in _things(raw, _ATTRIBUTES, "attributes", photos):
        names, boxes = [], []
        for place, thing in _rows(row, where):
            if not (found := base.captions(_strings(thing, "attributes", place))):
                continue
            box = _box(thing, ("x", "y", "w", "h"), photo.size, place)
            if isinstance(box, base.Skipped):
                yield box
                continue
            names += found
            boxes += [box] * len(found)
        yield number, {"attribute/names": names, "attribute/bboxes": np.asarray(boxes, np.float32)}


def _things(
    raw: base.Raw, name: str, key: str, photos: dict[int, _Photo]
) -> Iterator[tuple[int, _Photo, str, list]]:
    """Id, photo, place and rows of each entry of a file that may be absent."""
    if (path := raw.find(name)) is None:
        return
    for where, _, entry in files.json_entries(path):
        number = _image_id(entry, where)
        if number in photos:
            yield number, photos[number], where, files.field(entry, key, list, where)


def _rows(rows: list, where: str) -> Iterator[tuple[str, dict]]:
    for number, row in enumerate(rows):
        yield f"{where}, row {number}", row if isinstance(row, dict) else {}


def _strings(row: dict, key: str, where: str) -> list[str]:
    values = row.get(key)
    return [text for text in values if isinstance(text, str)] if isinstance(values, list) else []


def _image_id(entry: dict, where: str) -> int:
    """Older releases say `id` in place of `image_id`."""
    return files.field(entry, "image_id" if "image_id" in entry else "id", int, where)


def _box(
    row: dict, names: tuple[str, ...], size: tuple[int, int], where: str
) -> list[float] | base.Skipped:
    values: list = [row.get(name) for name in names]
    box = base.to_box(values, size) if all(map(base.number, values)) else None
    if box is None:
        text = f"{', '.join(names)} are {values} in a photo of {size}: no box within it"
        return base.Skipped(where, "box", text)
    return box


def _empty(where: str) -> base.Skipped:
    return base.Skipped(where, "no caption", "a box without words")


CORPUS = base.Corpus(
    name="visual_genome",
    title="Visual Genome (Krishna et al., 2016, arXiv 1602.07332)",
    wants=(
        "region_descriptions.json, image_data.json, and, where wanted, objects.json and "
        "attributes.json; photos in VG_100K/ and VG_100K_2/"
    ),
    fields={
        "text/captions": "texts",
        "text/bboxes": "boxes",
        "object/names": "texts",
        "object/bboxes": "boxes",
        "attribute/names": "texts",
        "attribute/bboxes": "boxes",
    },
    splits=base.splits({"train": (_REGIONS, _IMAGES)}),
    read=_read,
    counts="text/captions",
    large=True,
)
