"""Finds the photos of an index that fit a caption best, or the photos or captions that fit a photo.

  mmt search --index=work/index --caption="a red circle" --caption="two stars"
  mmt search --index=work/index --caption="a red circle" --top=50 --html=work/found.html
  mmt search --index=work/captions --image=dog.jpg

`mmt index` writes an index, of photos or of captions (--side). Queries are embedded by the model
that wrote it, which is looked for where it was then, or in --workdir; captions that are too long
are cut, as in training. A photo is taken as `mmt score` takes it. --html writes a page that needs
nothing beside it, with pictures where the source's photos have pixels.

A score ranks: it is the cosine or the inner product of two embeddings. The probability of a match
stands beside it where the model has learned one: of two towers, or of a model that embeds and also
scores pairs jointly. It is that of a pair drawn as in training, where half of them match.

Needs FAISS: pip install 'mmt_jax[retrieval]'.
"""

from __future__ import annotations

import itertools
import types
import typing

from mmt_jax.cli import flags, photo
from mmt_jax.errors import UsageError

if typing.TYPE_CHECKING:
    import numpy as np

    from mmt_jax.infer.scorer import Scorer
    from mmt_jax.infer.search.index import Found, Index

_SIDE = 320  # pixels, at most, of a picture on the page

DOING = "reading {index}"
FLAGS = (
    flags.Flag("index", "INDEX", "of `mmt index`", required=True),
    flags.Flag("caption", "TEXT", "what is looked for", ()),
    flags.Flag("image", "FILE|URL", "a photo that is looked for, in place of a caption", ()),
    flags.Flag("record", "FILE", "a photo's record, .npz or .pkl, likewise", ()),
    photo.DETECTOR,
    flags.Flag("top", "N", "how many for each of these; 10 by default", default=10),
    flags.JSON,
    flags.Flag("html", "FILE", "a page of what was found; nothing is overwritten"),
    flags.Flag("workdir", "DIR", "the model's, where it has been moved since"),
)


def run(args: types.SimpleNamespace) -> None:
    """Searches, prints and writes."""
    if sum(map(bool, (args.caption, args.image, args.record))) != 1:
        raise UsageError("give one of --caption, --image and --record, once or more; see --help")
    for image, record in itertools.zip_longest(args.image, args.record):
        photo.given(types.SimpleNamespace(image=image, record=record, detector=args.detector))

    from mmt_jax.files import check_new, whole
    from mmt_jax.infer import api
    from mmt_jax.infer.search import index as indices
    from mmt_jax.infer.search import sheet
    from mmt_jax.photos import pictures
    from mmt_jax.train import published

    index = indices.read(args.index)
    if args.html:
        check_new(args.html)
    scorer = api.of_workdir(published.workdir(args.workdir or index.about.workdir))
    queries = args.caption or args.image or args.record
    photos = [pictures.given(image)[0] for image in args.image] or args.record  # fetched once
    found, meaning = _found(args, index, scorer, photos)
    if args.html:
        shown = list(zip(queries, map(_shown, photos) if photos else itertools.repeat(None)))
        wanted = {index.image_ids[hit.place] for hits in found.hits for hit in hits}
        pixels, missing = _pictures(index, sorted(wanted))
        note = " ".join(filter(None, (meaning, missing)))
        page = sheet.render(index, shown, found.hits, pixels=pixels, note=note)
        with whole(args.html) as part:
            part.write_text(page, encoding="utf-8")
    captions = index.about.side == "captions"
    asked, key = "caption" if args.caption else "photo", "captions" if captions else "photos"
    answers, blocks = [], []
    for query, hits in zip(queries, found.hits, strict=True):
        rows, cells = [], []
        for rank, hit in enumerate(hits, 1):
            said, name = index.captions[hit.place], index.names[hit.place]
            chance = {} if hit.probability is None else {"probability": hit.probability}
            row: dict[str, typing.Any] = {"rank": rank, "score": hit.score, **chance}
            row |= {"image_id": index.image_ids[hit.place], "name": name}
            rows.append(row | ({"caption": said[0]} if captions else {"captions": said}))
            numbers = [f"{number:.3f}" for number in (hit.score, *chance.values())]
            cells.append([f"{rank}", *numbers, name, next(iter(said), "")])
        answers.append({asked: query, "score_is": found.score, key: rows})
        known = ["probability"] * any("probability" in row for row in rows)
        table = flags.table(["rank", "score", *known, "photo", "its caption"], cells)
        blocks.append(f"{query}\n{table}\n" + f"{sheet.NOTHING}\n" * sheet.nothing_fits(hits))
    flags.show(args, answers, "\n".join([*blocks, meaning]))


def _found(
    args: types.SimpleNamespace, index: Index, scorer: Scorer, photos: list[typing.Any]
) -> tuple[Found, str]:
    """What was found, and a sentence on what its scores are."""
    from mmt_jax.data import schema
    from mmt_jax.infer.export import signature
    from mmt_jax.infer.search import source

    predictor = scorer.own
    if args.caption:
        items = schema.to_text(scorer.texts(args.caption, truncate=True))
    else:
        read = scorer.images(photos, args.detector)
        items = signature.image(scorer.config, read)
    found = index.search(predictor.model, predictor.params, items, top=args.top)
    told = f"score: {found.score} of the embeddings"
    if not args.caption and index.about.side == "images":
        return found, f"{told}; it ranks photos by likeness, and is no probability."
    if not predictor.model.separable and predictor.fitted:
        try:
            found = found._replace(hits=source.judged(index, scorer, items, found.hits))
        except UsageError as error:
            return found, f"{told}; it ranks. There are no probabilities: {error}."
    if all(hit.probability is None for hits in found.hits for hit in hits):
        return found, f"{told}; it ranks, and is no probability, for the model has learned none."
    return found, f"{told}. probability: of a match, were half of all pairs matches."


def _shown(asked: typing.Any) -> np.ndarray | None:
    """The picture of a photo [H, W, 3], or of the record of a path; None = it has none."""
    from mmt_jax.infer import inputs
    from mmt_jax.photo import PICTURE, PIXELS
    from mmt_jax.photos import pictures

    pixels = asked
    if isinstance(asked, str):
        record = inputs.read_record(asked)
        pixels = record.get(PICTURE, record.get(PIXELS))
    return None if pixels is None else pictures.at_most(pictures.given(pixels)[0], _SIDE)


def _pictures(index: Index, image_ids: list[int]) -> tuple[dict[int, np.ndarray], str]:
    """Pixels of some photos of the index's source, by id; or why there are none."""
    from mmt_jax.infer.search import source
    from mmt_jax.photos import pictures

    try:
        photos = source.Source(index)
        return {i: pictures.at_most(photos.picture(i), _SIDE) for i in image_ids}, ""
    except UsageError as error:
        return {}, f"There are no pictures: {error}."
