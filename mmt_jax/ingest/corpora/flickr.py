"""Flickr8k (Hodosh et al., 2013) and Flickr30k (Young et al., 2014): five captions a photo.

Flickr30k Entities (Plummer et al., 2015, arXiv 1505.04870) says which boxes its phrases mean; where
its folders `Annotations` and `Sentences` are there, their phrases and boxes are read too.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import pathlib
import re
from xml.etree import ElementTree

from mmt_jax import readers as files
from mmt_jax.data import captions
from mmt_jax.errors import UsageError, reading, trying
from mmt_jax.ingest.corpora import base, coco_captions

_CAPTION = re.compile(r"(?P<name>[^#\t]+)#\d+\s*\t(?P<text>.*)")
_PHRASE = re.compile(r"\[/EN#(?P<chain>\d+)(?:/[^\s\]]*)? (?P<text>[^\]]*)\]")
_MAX_XML = 1 << 20  # bytes; the largest file published has some 20,000

_FOLDERS = {
    "flickr8k": ("Flicker8k_Dataset", "Flickr8k_Dataset", "images", "Images"),
    "flickr30k": ("flickr30k-images", "flickr30k_images", "images"),
}
_TOKENS = {
    "flickr8k": ("Flickr8k.token.txt",),
    "flickr30k": ("results_20130124.token", "flickr30k.token.txt"),
}
# Lists of a split's photos, by names of files with ".jpg" or without.
_LISTS = {
    "flickr8k": {
        "train": "Flickr_8k.trainImages.txt",
        "val": "Flickr_8k.devImages.txt",
        "test": "Flickr_8k.testImages.txt",
    },
    "flickr30k": {"train": "train.txt", "val": "val.txt", "test": "test.txt"},
}


def picture(corpus: str, name: str) -> base.Picture:
    """A photo by the name of its file, which begins with its id on Flickr."""
    stem = name.removesuffix(".jpg")
    paths = tuple(f"{folder}/{stem}.jpg" for folder in _FOLDERS[corpus])
    return base.Picture(stem, paths, (f"flickr:{stem.partition('_')[0]}",))


def _splits(corpus: str, raw: base.Raw) -> tuple[str, ...]:
    if raw.find(f"dataset_{corpus}.json"):
        return coco_captions.KARPATHY
    if raw.find(*_TOKENS[corpus]) is None:
        return ()
    lists = tuple(split for split, name in _LISTS[corpus].items() if raw.find(name))
    return lists or (base.UNDIVIDED,)


def _read(corpus: str, raw: base.Raw, split: str) -> base.Entries:
    if path := raw.find(f"dataset_{corpus}.json"):
        for where, entry in coco_captions.karpathy(path, split):
            photo = picture(corpus, files.field(entry, "filename", str, where))
            yield base.captioned(where, photo, captions.karpathys(entry, where))
        return
    path = raw.find(*_TOKENS[corpus])
    assert path is not None  # there is no split without it
    texts: dict[str, list[str]] = {}
    first: dict[str, str] = {}
    for where, line in files.lines(path):
        if line.strip():
            if not (match := _CAPTION.fullmatch(line)):
                raise UsageError(f"{where}: not a caption, like 1000092795.jpg#0<tab>text")
            stem = match["name"].removesuffix(".jpg")
            texts.setdefault(stem, []).append(match["text"])
            first.setdefault(stem, where)
    wanted = first
    if split != base.UNDIVIDED:
        rows = files.lines(raw.need(_LISTS[corpus][split]))
        wanted = {line.strip().removesuffix(".jpg"): where for where, line in rows if line.strip()}
    for stem, listed in wanted.items():
        yield base.captioned(first.get(stem, listed), picture(corpus, stem), texts.get(stem, ()))


# ---- Entities ------------------------------------------------------------------------------------


def _read_entities(raw: base.Raw, split: str) -> base.Entries:
    folders = raw.folder / "Annotations", raw.folder / "Sentences"
    grounded = all(folder.is_dir() for folder in folders)
    for entry in _read("flickr30k", raw, split):
        if isinstance(entry, base.Skipped):
            yield entry
            continue
        rows, size = [], None
        stem = pathlib.PurePosixPath(entry.key).name  # never a path out of the two folders
        if grounded and base.is_file(path := folders[0] / f"{stem}.xml"):
            size, chains = _boxes(path)
            phrases = _phrases(folders[1] / f"{stem}.txt")
            rows = [(p, text, box) for chain, text in phrases for p, box in chains.get(chain, ())]
        found = base.ground(rows, size or (1, 1))
        yield from found.skipped
        fields = {**entry.fields, **found.fields("phrase/texts")}
        yield dataclasses.replace(entry, fields=fields, frame=size, cut=found.cut)


def _phrases(path: pathlib.Path) -> list[tuple[str, str]]:
    """Chain and text of each phrase, equal ones of several captions once."""
    found: dict[tuple[str, str], None] = {}
    for _, line in files.lines(path):
        for match in _PHRASE.finditer(line):
            if text := " ".join(match["text"].split()):
                found[match["chain"], text] = None
    return list(found)


def _boxes(path: pathlib.Path) -> tuple[tuple[int, int], dict[str, list[tuple[str, list[float]]]]]:
    """The photo's width and height; place and x, y, width, height of each box, by chain."""
    root = _xml(path)
    width, height = map(int, _numbers(root.find("size"), ("width", "height"), path))
    chains: dict[str, list[tuple[str, list[float]]]] = collections.defaultdict(list)
    for number, thing in enumerate(root.iter("object")):
        if (corners := thing.find("bndbox")) is None:  # a whole scene, or nothing to be seen
            continue
        xmin, ymin, xmax, ymax = _numbers(corners, ("xmin", "ymin", "xmax", "ymax"), path)
        box = [xmin, ymin, xmax - xmin, ymax - ymin]
        for name in thing.iter("name"):
            chains[(name.text or "").strip()].append((f"{path}, object {number}", box))
    return (width, height), chains


def _xml(path: pathlib.Path) -> ElementTree.Element:
    with reading(path):
        content = path.read_bytes()
    if len(content) > _MAX_XML or b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise UsageError(f"{path} is no annotation: too long, or with entities, which may be bombs")
    with trying(f"{path}: not XML", "; unpack it again"):
        return ElementTree.fromstring(content)


def _numbers(
    parent: ElementTree.Element | None, names: tuple[str, ...], path: pathlib.Path
) -> list[float]:
    values = []
    for name in names:
        text = "" if parent is None else parent.findtext(name, "")
        with contextlib.suppress(ValueError):
            if abs(value := float(text)) < 1e6:
                values.append(value)
                continue
        raise UsageError(f"{path}: <{name}> is {text!r}; it must be a number of pixels")
    return values


CORPORA = (
    base.Corpus(
        name="flickr30k",
        title=(
            "Flickr30k (Young et al., 2014), with Entities (Plummer et al., 2015, arXiv 1505.04870)"
        ),
        wants=(
            "dataset_flickr30k.json, or results_20130124.token (and {train,val,test}.txt); photos "
            "in flickr30k-images/; of Entities Annotations/ and Sentences/, which may be absent"
        ),
        fields={**base.CAPTIONS, "phrase/texts": "texts", "phrase/bboxes": "boxes"},
        splits=functools.partial(_splits, "flickr30k"),
        read=_read_entities,
    ),
    base.Corpus(
        name="flickr8k",
        title="Flickr8k (Hodosh et al., 2013)",
        wants=(
            "dataset_flickr8k.json, or Flickr8k.token.txt and "
            "Flickr_8k.{train,dev,test}Images.txt; photos in Flicker8k_Dataset/"
        ),
        splits=functools.partial(_splits, "flickr8k"),
        read=functools.partial(_read, "flickr8k"),
    ),
)
