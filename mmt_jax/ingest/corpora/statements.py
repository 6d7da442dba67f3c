"""Corpora of statements that are true of some photos: NLVR2, SNLI-VE and SVO-Probes."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Iterator

from mmt_jax import readers as files
from mmt_jax.errors import UsageError
from mmt_jax.ingest.corpora import base, flickr
from mmt_jax.tasks import nlvr2, snli_ve

_NLVR2 = {name: f"{name}.json" for name in ("train", "dev", "test1", "test2")}
_SNLI_VE = {name: f"snli_ve_{name}.jsonl" for name in ("train", "dev", "test")}
_CSV = "svo_probes.csv"
_NEGATIVES = {"subj_neg": "subject", "verb_neg": "verb", "obj_neg": "object"}
_COLUMNS = ("sentence", "pos_triplet", "neg_triplet", "pos_image_id", "neg_image_id", *_NEGATIVES)


def _read_nlvr2(raw: base.Raw, split: str) -> base.Entries:
    for pair in nlvr2.read(raw.need(_NLVR2[split])):
        # Photos of train lie in a hundred folders.
        group = f"{pair.directory}/" if pair.directory else ""
        photos = tuple(
            base.Picture(
                name,
                (f"images/{split}/{group}{name}.png", f"{split}/{name}.png", f"images/{name}.png"),
                (f"nlvr2:{name}",),
            )
            for name in map(str, pair.photos)
        )
        fields = {
            "text/captions": [*pair.sentences],
            "sentence/id": pair.sentence_id,
            "label": int(pair.best == "True"),
        }
        yield base.Item(str(pair.key), pair.where, photos, fields)


def _read_snli_ve(raw: base.Raw, split: str) -> base.Entries:
    for name, hypotheses in base.by_photo(snli_ve.read(raw.need(_SNLI_VE[split]))).items():
        photo = flickr.picture("flickr30k", name)
        fields = {
            "hypothesis/ids": [hypothesis.key for hypothesis in hypotheses],
            "hypothesis/texts": [hypothesis.sentences[0] for hypothesis in hypotheses],
            "hypothesis/labels": [snli_ve.LABELS.index(each.kind) for each in hypotheses],
        }
        yield base.Item(photo.id, hypotheses[0].where, (photo,), fields)


def _read_svo(raw: base.Raw, split: str) -> base.Entries:
    for number, (where, row) in enumerate(_rows(raw.need(_CSV))):
        kinds = [kind for name, kind in _NEGATIVES.items() if row[name].strip().lower() == "true"]
        if len(kinds) != 1:
            raise UsageError(f"{where}: one of {', '.join(_NEGATIVES)} must be True")
        captions = base.captions([row["sentence"]])
        if not captions:
            yield base.Skipped(where, "no caption", "the sentence is empty")
            continue
        fields = {
            "text/captions": captions,
            "positive/triplet": row["pos_triplet"],
            "negative/triplet": row["neg_triplet"],
            "negative/kind": kinds[0],
        }
        photos = tuple(_svo_picture(row[f"{side}_image_id"].strip()) for side in ("pos", "neg"))
        yield base.Item(str(number), where, photos, fields)


def _svo_picture(name: str) -> base.Picture:
    return base.Picture(name, (f"images/{name}.jpg", f"images/{name}"), (f"svo:{name}",))


def _rows(path: pathlib.Path) -> Iterator[tuple[str, dict[str, str]]]:
    place, header = str(path), None

    def text() -> Iterator[str]:
        nonlocal place
        for place, line in files.lines(path):  # noqa: B007, read below
            yield line + "\n"

    try:
        for cells in csv.reader(text(), strict=True):
            if header is None:
                header = cells
                if missing := [name for name in _COLUMNS if name not in header]:
                    raise UsageError(f"{place}: the column {missing[0]} is missing")
            elif len(cells) != len(header):
                raise UsageError(f"{place}: {len(cells)} cells in place of {len(header)}")
            else:
                yield place, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise UsageError(f"{place}: not CSV ({error})") from None


CORPORA = (
    base.Corpus(
        name="nlvr2",
        title="NLVR2 (Suhr et al., 2019, arXiv 1811.00491)",
        wants=(
            "{train,dev,test1,test2}.json; photos in images/train/<0 to 99>/, dev/, test1/, test2/ "
            "or images/"
        ),
        fields={"text/captions": "texts", "sentence/id": "text", "label": "int"},
        splits=base.splits(_NLVR2),
        read=_read_nlvr2,
        pictures=("left", "right"),
    ),
    base.Corpus(
        name="snli_ve",
        title="SNLI-VE (Xie et al., 2019, arXiv 1901.06706)",
        wants="snli_ve_{train,dev,test}.jsonl; photos in flickr30k-images/",
        fields={
            "hypothesis/ids": "texts",
            "hypothesis/texts": "texts",
            "hypothesis/labels": "ints",
        },
        splits=base.splits(_SNLI_VE),
        read=_read_snli_ve,
        counts="hypothesis/ids",
    ),
    base.Corpus(
        name="svo_probes",
        title="SVO-Probes (Hendricks and Nematzadeh, 2021, arXiv 2106.09141)",
        wants="svo_probes.csv; photos in images/, named by their ids",
        fields={
            "text/captions": "texts",
            "positive/triplet": "text",
            "negative/triplet": "text",
            "negative/kind": "text",
        },
        splits=base.splits({"test": _CSV}),
        read=_read_svo,
        pictures=("positive", "negative"),
    ),
)
