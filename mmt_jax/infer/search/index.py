"""Photos or captions as embeddings in a FAISS index: the best are found without scoring them all.

An index is a folder: `index.faiss` (N vectors), `photos.jsonl` (image_id, name and captions of the
photo of each, in the same order; in an index of captions the one caption) and `index.json` (an
`About`: how it was built, and by which model). Photos that were normalised (`querybank`) have one
entry more than their embeddings: what is added to their scores with captions.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from mmt_jax import readers as files
from mmt_jax.data.pipeline import Examples
from mmt_jax.errors import UsageError, optional, reason, writing
from mmt_jax.files import check_new, whole_folder
from mmt_jax.infer.pairs import Items
from mmt_jax.infer.predict import Predictor
from mmt_jax.infer.querybank import Bank, offsets
from mmt_jax.models.base import Model
from mmt_jax.params import flatten
from mmt_jax.typing import Image, Params, Text

KINDS = ("flat", "ivf", "hnsw")
METRICS = ("ip", "cosine")
SIDES = ("images", "captions")

_ABOUT, _VECTORS, _PHOTOS = "index.json", "index.faiss", "photos.jsonl"
_POINTS = 39  # vectors that FAISS wants for each list of an inverted file
_NEIGHBOURS = 32  # of a node of the HNSW graph
_VISITED = 128  # of its nodes, at least, in a search
_EQUAL = 1e-3  # lengths of vectors that differ by no more of themselves count as one


@dataclasses.dataclass(frozen=True)
class About:
    """How an index was built.

    The kind "flat" compares with every vector; "ivf" with those of the nearest lists, "hnsw" along
    a graph of neighbours: both faster, and both may miss one. The metric "ip", the inner product,
    ranks as the score of a model of two towers does; "cosine" leaves embeddings' lengths aside.
    """

    kind: str
    metric: str
    fingerprint: str  # of the model's parameters
    workdir: str = ""  # where the model was
    source: str = ""  # where the photos came from
    split: str = ""
    side: str = "images"  # whose vectors these are
    length: float = 0.0  # of the model's embeddings of that side; 0 = they differ, or not known
    querybank: str = ""  # the split by whose captions photos are normalised; "" = they are not


class Hit(NamedTuple):
    """A photo or caption that was found."""

    place: int  # in the index, or in the list that was searched
    score: float
    probability: float | None = None  # of a match, where the model has learned one


def best_matches(predictor: Predictor, text: Text, image: Image, *, top: int) -> list[Hit]:
    """The `top` of N photos that fit one caption best, or of N captions that fit one photo."""
    scores = predictor.score(text, image).ravel()
    best = np.argsort(-scores, kind="stable")[:top]
    return _hits(best, scores[best], predictor.probabilities(scores[best]))


def _hits(places: np.ndarray, scores: np.ndarray, chances: np.ndarray | None) -> list[Hit]:
    """[K] each; places below 0 are none."""
    told = [None] * len(places) if chances is None else chances.tolist()
    found = zip(places.tolist(), scores.tolist(), told, strict=True)
    return [Hit(*row) for row in found if row[0] >= 0]


@dataclasses.dataclass(frozen=True)
class Index:
    """An index of N photos or captions in memory."""

    about: About
    image_ids: tuple[int, ...]  # [N]
    captions: tuple[tuple[str, ...], ...]  # [N], of each photo; or each caption alone
    vectors: Any  # the FAISS index
    names: tuple[str, ...]  # [N], what people call each photo

    def __len__(self) -> int:
        return len(self.image_ids)

    def search(self, model: Model, params: Params, items: Text | Image, *, top: int) -> Found:
        """The `top` that fit each of Q captions or photos best; some kinds may find fewer.

        Captions are for an index of photos, photos for either. UsageError: the index is another
        model's or of the other side, or `top` is below 1.
        """
        if top < 1:
            raise UsageError(f"top is {top}; it must be at least 1")
        across = isinstance(items, Text) != (self.about.side == "captions")
        if isinstance(items, Text) and not across:
            raise UsageError(
                "the index is one of captions, which are compared with photos: look for them with "
                "--image or --record, or write an index with --side=images"
            )
        if fingerprint(params) != self.about.fingerprint:
            raise UsageError(
                f"the index was written by another model (by what was in {self.about.workdir} "
                f"then); search with that one, or write a new index"
            )
        predictor = Predictor(model, params)
        rows = predictor.embed(items)
        if self.about.kind == "hnsw":
            self.vectors.hnsw.efSearch = max(_VISITED, top)
        asked = _prepared(rows, self.about.metric)
        if self.about.querybank:  # the entry counts in scores of captions alone
            asked = _extended(asked, float(across))
        scores, places = self.vectors.search(asked, min(top, len(self)))
        scores = np.where(places < 0, 0, scores)  # where too few were found
        cosine = self.about.metric == "cosine"
        factor = self.about.length * _length(rows)  # products are so many times the cosines
        chances = None
        if across and predictor.model.separable and (factor or not cosine):
            products = scores + self._offsets(places)
            chances = predictor.probabilities(products * factor if cosine else products)
        rows_of = zip(places, scores, [None] * len(places) if chances is None else chances)
        hits = [_hits(*row) for row in rows_of]
        name = _name(1.0 if cosine else factor)
        normalised = self.about.querybank and across
        return Found(hits, f"querybank-normalised {name}" if normalised else name)

    def _offsets(self, places: np.ndarray) -> np.ndarray:
        """What was taken from the scores of the photos at [Q, K] places."""
        if not self.about.querybank:
            return np.zeros(places.shape, np.float32)
        rows = self.vectors.reconstruct_batch(places.ravel())
        return -rows[:, -1].reshape(places.shape)


class Found(NamedTuple):
    """What a search found, best first, for each query; and what its scores are."""

    hits: list[list[Hit]]
    score: str


def _name(factor: float) -> str:
    """What scores are that are `factor` times a cosine; 0 = no one factor is known."""
    if not factor:
        return "inner product"
    return "cosine" if abs(factor - 1) < _EQUAL else f"{factor:.4g} × cosine"


def _length(rows: np.ndarray) -> float:
    """The length that all vectors [n, E] have; 0 = they differ."""
    lengths = np.linalg.norm(rows, axis=1)
    return float(lengths.mean()) if np.ptp(lengths) <= _EQUAL * lengths.mean() else 0.0


def build(
    model: Model,
    params: Params,
    examples: Examples,
    *,
    side: str = "images",
    kind: str = "flat",
    metric: str = "ip",
    workdir: str | os.PathLike = "",
    source: str = "",
    split: str = "",
    bank: Bank | None = None,
) -> Index:
    """Embeds all photos, or all captions, of `examples`; other arguments are those of `About`.

    Photos are normalised by the captions of a `bank`, if there is one.

    UsageError: no embeddings, captions or FAISS, an unknown side, kind or metric, or a bank for
    captions or where not every photo is compared.
    """
    if not model.embeds:
        raise UsageError(
            f"{model.config.tag or 'this model'} has no embeddings to be indexed; take a model of "
            f"two towers, such as baseline_baseline, or rank with `mmt eval` if it scores pairs"
        )
    asked = (("side", side, SIDES), ("kind", kind, KINDS), ("metric", metric, METRICS))
    for name, value, known in asked:
        if value not in known:
            raise UsageError(f"{name}={value} is unknown; it is one of {', '.join(known)}")
    if bank and (side, kind) != ("images", "flat"):  # entries of unlike size mislead the others
        raise UsageError(
            "--querybank normalises photos that are all compared: leave it out, or index with "
            "--side=images and --kind=flat"
        )
    faiss = _faiss()
    if side == "images":
        starts = np.searchsorted(examples.caption_to_image, np.arange(len(examples) + 1))
        photos = np.arange(len(examples))
        captions = tuple(tuple(examples.captions[a:b]) for a, b in itertools.pairwise(starts))
        items = Items(examples.masks, examples.images)
    else:
        photos = examples.caption_to_image
        captions = tuple((caption,) for caption in examples.captions)
        if not captions:
            raise UsageError(f"{source or 'the source'} has no captions to be indexed")
        items = Items.of(examples.texts(np.arange(len(captions))))
    rows = Predictor(model, params).embed(items)
    length, rows = _length(rows), _prepared(rows, metric)
    if bank:
        rows = _extended(rows, -offsets(_prepared(bank.embed(), metric), rows))
    mark, names = fingerprint(params), examples.photo_names
    by = bank.split if bank else ""
    return Index(
        About(kind, metric, mark, os.fspath(workdir), source, split, side, length, by),
        tuple(examples.image_ids[photos].tolist()),
        captions,
        _vectors(faiss, rows, kind),
        tuple(names[photo] for photo in photos),
    )


def _vectors(faiss: Any, rows: np.ndarray, kind: str) -> Any:
    """The FAISS index of rows [N, E]; its metric is the inner product."""
    count, width = rows.shape
    if kind == "flat":
        vectors = faiss.IndexFlatIP(width)
    elif kind == "hnsw":
        vectors = faiss.IndexHNSWFlat(width, _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
    else:
        # FAISS's guidelines: some 4 √N lists, of which a search reads the nearest sixteenth here.
        lists = max(1, min(round(4 * count**0.5), count // _POINTS))
        vectors = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT
        )
        vectors.nprobe = min(lists, max(8, lists // 16))
        vectors.train(rows)
    vectors.add(rows)
    return vectors


def _prepared(rows: np.ndarray, metric: str) -> np.ndarray:
    """Embeddings [n, E], of length 1 where their cosines are asked for."""
    if metric == "cosine":
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return np.ascontiguousarray(rows, np.float32)


def _extended(rows: np.ndarray, entry: np.ndarray | float) -> np.ndarray:
    """Embeddings [n, E] with an entry more: what is added to a photo's scores; how many times, in
    what is looked for.
    """
    entries = np.broadcast_to(np.float32(entry), len(rows))
    return np.ascontiguousarray(np.column_stack([rows, entries]), np.float32)


def fingerprint(params: Params) -> str:
    """The same for the same parameters, whatever their path on disk: 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for path, leaf in flatten(params).items():
        array = np.ascontiguousarray(leaf)
        digest.update(f"{path} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:32]


def write(index: Index, folder: str | os.PathLike) -> None:
    """Writes an index to a new folder, whole or not at all."""
    with whole_folder(check_new(folder)) as part:
        part.mkdir()
        with writing(folder, of=RuntimeError):  # FAISS has no other
            _faiss().write_index(index.vectors, str(part / _VECTORS))
        about = json.dumps(dataclasses.asdict(index.about), indent=2)
        (part / _ABOUT).write_text(about + "\n", encoding="utf-8")
        with open(part / _PHOTOS, "w", encoding="utf-8") as file:
            for row in zip(index.image_ids, index.names, index.captions, strict=True):
                line = dict(zip(("image_id", "name", "captions"), row))
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def read(folder: str | os.PathLike) -> Index:
    """Reads what `write` wrote; UsageError where it is not there, or damaged."""
    folder = pathlib.Path(folder)
    if not (folder / _ABOUT).is_file():
        problem = "is no index" if folder.exists() else "does not exist"
        raise UsageError(f"{folder} {problem}; write one with `mmt index --out={folder}`")
    faiss = _faiss()
    try:
        about = About(**json.loads((folder / _ABOUT).read_text(encoding="utf-8")))
        vectors = faiss.read_index(str(folder / _VECTORS))
        photos = [entry for _, entry in files.json_lines(folder / _PHOTOS)]
        image_ids = tuple(photo["image_id"] for photo in photos)
        captions = tuple(tuple(photo["captions"]) for photo in photos)
        names = tuple(photo.get("name", str(photo["image_id"])) for photo in photos)
        if vectors.ntotal != len(photos):
            raise ValueError(f"{vectors.ntotal} vectors for {len(photos)} photos")
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise UsageError(
            f"{folder} is damaged ({reason(error)}); remove it and write it again with `mmt index`"
        ) from None
    return Index(about, image_ids, captions, vectors, names)


def _faiss() -> Any:
    with optional("an index needs FAISS", "retrieval"):
        import faiss
    return faiss
