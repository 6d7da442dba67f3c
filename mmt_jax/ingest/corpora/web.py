"""Captions found beside photos of the web: Conceptual Captions and SBU, published as addresses.

Who fetches the photos names their files; the usual names of public downloaders are looked for.
"""

from __future__ import annotations

import itertools
import pathlib
import urllib.parse
import zlib
from collections.abc import Iterator

from mmt_jax import readers as files
from mmt_jax.errors import UsageError
from mmt_jax.ingest.corpora import base

# Both marks are in use.
_TSV = {
    "train": "Train[_-]GCC-training.tsv",
    "val": "Validation[_-]GCC-1.1.0-Validation.tsv",
}
_CC_FOLDERS = {"train": ("training", "train"), "val": ("validation", "val")}
_JSON = "sbu-captions-all.json"
_URLS = "SBU_captioned_photo_dataset_urls.txt"
_CAPTIONS = "SBU_captioned_photo_dataset_captions.txt"


def _read_cc(raw: base.Raw, split: str) -> base.Entries:
    for number, (where, line) in enumerate(files.lines(raw.need(_TSV[split]))):
        text, tab, url = line.partition("\t")
        if not tab or not url.strip():
            raise UsageError(f"{where}: not a caption, a tab and an address")
        yield base.captioned(where, _cc_picture(split, number, url.strip()), [text])


def _cc_picture(split: str, number: int, url: str) -> base.Picture:
    """A photo by its line, counted from 0.

    Its file has that number as name, with eight digits or as it is, or the CRC-32 of its address,
    or both.
    """
    crc = zlib.crc32(url.encode("utf-8", "replace"))
    stems = (f"{number:08d}", f"{number}", f"{number}_{crc}", f"{crc}")
    names = itertools.product(_CC_FOLDERS[split], stems, ("", ".jpg"))
    return base.Picture(
        f"{split}-{number}",
        tuple(f"{folder}/{stem}{suffix}" for folder, stem, suffix in names),
        base.flickr_ids(url),
    )


def _sbu_splits(raw: base.Raw) -> tuple[str, ...]:
    return ("train",) if raw.find(_JSON) or (raw.find(_URLS) and raw.find(_CAPTIONS)) else ()


def _read_sbu(raw: base.Raw, split: str) -> base.Entries:
    path = raw.find(_JSON)
    rows = _sbu_json(path) if path else _sbu_lines(raw.need(_URLS), raw.need(_CAPTIONS))
    for where, url, text in rows:
        if name := pathlib.PurePosixPath(urllib.parse.unquote(_path(url))).name:
            photo = base.Picture(name, (f"images/{name}", name), base.flickr_ids(url))
            yield base.captioned(where, photo, [text])
        else:
            yield base.Skipped(where, "no photo", f"{url} names none")


def _path(url: str) -> str:
    try:
        return urllib.parse.urlsplit(url.strip()).path
    except ValueError:  # brackets that are no address
        return ""


def _sbu_lines(urls: pathlib.Path, texts: pathlib.Path) -> Iterator[tuple[str, str, str]]:
    for url, text in itertools.zip_longest(files.lines(urls), files.lines(texts)):
        if url is None or text is None:
            short, long = (urls, texts) if url is None else (texts, urls)
            raise UsageError(f"{short} has fewer lines than {long}; they must be of one release")
        yield url[0], url[1], text[1]


def _sbu_json(path: pathlib.Path) -> Iterator[tuple[str, str, str]]:
    columns = (files.json_members(path, (key,)) for key in ("image_urls", "captions"))
    rows = itertools.zip_longest(*columns)
    for number, row in enumerate(rows):
        url, text = (cell and cell[2] for cell in row)
        if not (isinstance(url, str) and isinstance(text, str)):
            raise UsageError(
                f"{path}, entry {number}: it must hold two lists of strings of one length, "
                f"`image_urls` and `captions`"
            )
        yield f"{path}, entry {number}", url, text


CORPORA = (
    base.Corpus(
        name="conceptual_captions",
        title="Conceptual Captions (Sharma et al., 2018)",
        wants=(
            "Train_GCC-training.tsv, Validation_GCC-1.1.0-Validation.tsv; photos in training/ and "
            "validation/, named by line from 0 (00000000.jpg), or by CRC-32 of the address"
        ),
        splits=base.splits(_TSV),
        read=_read_cc,
        large=True,
    ),
    base.Corpus(
        name="sbu",
        title="SBU Captioned Photos (Ordonez et al., 2011)",
        wants=(
            "sbu-captions-all.json, or SBU_captioned_photo_dataset_{urls,captions}.txt; photos in "
            "images/, named as at the end of their address"
        ),
        splits=_sbu_splits,
        read=_read_sbu,
        large=True,
    ),
)
