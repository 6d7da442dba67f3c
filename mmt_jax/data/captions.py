"""Captions that lie in a file of their own, joined to photos by `photo.image_id` and nothing less.

By suffix: `.jsonl` has `{"image_id": …, "captions": […]}` a line; `.json` is COCO's captions file
(`annotations`) or Karpathy's splits (`images` with `sentences`); any other is a token file as of
Flickr8k and Flickr30k, `NAME.jpg#0<tab>caption` a line.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

from mmt_jax import readers as files
from mmt_jax.errors import UsageError, trying
from mmt_jax.photo import image_id
from mmt_jax.text.base import prepare

# Karpathy and Li (2015, arXiv 1412.2306) cut three corpora. COCO's file calls those photos of its
# val2014 "restval" that are for training too.
KARPATHY = {"train": ("train", "restval"), "val": ("val",), "test": ("test",)}


@dataclasses.dataclass(frozen=True)
class Captions:
    """What a file of captions holds.

    Attributes:
      of: the captions of each photo by its id; all of them are in memory.
      names: what the file calls each photo, its number or its name, by its id.
      faults: place and reason of each caption that could not be taken.
    """

    source: str
    of: dict[int, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    names: dict[int, int | str] = dataclasses.field(default_factory=dict)
    faults: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def read(path: pathlib.Path, split: str) -> Captions:
    """Reads a file of captions; `split` is that of Karpathy's file: "train", "val" or "test".

    Raises:
      UsageError: the file cannot be read, or has no caption.
    """
    rows, parse = ((where, line) for where, line in files.byte_lines(path) if line.strip()), _token
    if path.suffix == ".jsonl":
        parse = _line
    elif path.suffix == ".json":
        rows, parse = _elements(path, split), _element
    found, shared = Captions(str(path)), set()
    for where, row in rows:
        try:
            name, captions = parse(row, where)
            if isinstance(name, bool) or not isinstance(name, int | str):
                raise UsageError(f"{where}: a caption needs the number or the name of its photo")
            number = name if isinstance(name, int) else image_id(name)
            if (first := found.names.setdefault(number, name)) != name:
                shared.add(number)
                raise UsageError(
                    f"{where}: the photos {first} and {name} have one id; neither gets captions"
                )
        except UsageError as error:
            found.faults.append((where, str(error)))
            continue
        kept = tuple(text for text in captions if prepare(text))
        if len(kept) < len(captions):
            found.faults.append((where, f"{where}: a caption of the photo {name} is empty"))
        if kept:
            found.of[number] = found.of.get(number, ()) + kept
    for number in shared:
        found.of.pop(number, None)
    if not found.of:
        first = f"; the first fault: {found.faults[0][1]}" if found.faults else ""
        raise UsageError(f"{path} has no caption{first}")
    return found


def splits(path: pathlib.Path) -> tuple[str, ...] | None:
    """Splits into which a file of captions cuts its photos, () = none; None = it has no captions.

    Only the beginning of the file is read.
    """
    kinds = {"images": ("sentences", tuple(KARPATHY)), "annotations": ("caption", ())}
    try:
        for key, (member, names) in kinds.items() if path.suffix == ".json" else ():
            for _, _, row in itertools.islice(files.json_members(path, (key,)), 1):
                if isinstance(row, dict) and member in row:
                    return names
        for where, line in files.byte_lines(path) if path.suffix != ".json" else ():
            if line.strip():
                (_line if path.suffix == ".jsonl" else _token)(line, where)
                return ()
    except UsageError:
        pass
    return None


# Each reads an entry of a file: what it calls its photo, and its captions.


def _line(line: bytes, where: str) -> tuple[Any, list[str]]:
    row = files.parsed(line, where)
    captions = files.field(row, "captions", list, where)
    if not all(isinstance(text, str) for text in captions):
        raise UsageError(f"{where}: captions must be strings")
    return row.get("image_id"), captions


def _element(row: Any, where: str) -> tuple[Any, list[str]]:
    if isinstance(row, dict) and "sentences" in row:
        return row.get("cocoid", row.get("filename")), karpathys(row, where)
    caption = files.field(row, "caption", str, where)
    return row.get("image_id"), [caption]


def _token(line: bytes, where: str) -> tuple[Any, list[str]]:
    with trying(f"{where}: the caption is not UTF-8"):
        name, tab, caption = line.decode().partition("\t")
    name, mark, _ = name.rpartition("#")
    if not tab or not mark or not name.strip():
        raise UsageError(f"{where}: a line must be NAME.jpg#0, a tab and the caption")
    return name.strip(), [caption]


def _elements(path: pathlib.Path, split: str) -> Iterator[tuple[str, Any]]:
    for where, key, row in files.json_members(path, ("annotations", "images")):
        if not isinstance(row, dict) or key == "annotations":
            yield where, row
        elif "sentences" in row:  # COCO's own images have none
            if split not in KARPATHY:
                raise UsageError(f"{path} has Karpathy's splits; --split is one of {[*KARPATHY]}")
            if row.get("split", split) in KARPATHY[split]:
                yield where, row


def karpathys(entry: dict[str, Any], where: str) -> list[str]:
    """The captions of a photo in a file of Karpathy's."""
    rows = files.field(entry, "sentences", list, where)
    return [
        files.field(row, "raw", str, f"{where}, sentence {number}")
        for number, row in enumerate(rows)
    ]
