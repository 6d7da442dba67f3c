"""Finds the photos of an index that fit a caption best.

usage: mmt search --index=INDEX --caption=TEXT ... [--top=N] [--json] [--html=FILE] [--workdir=DIR]

  mmt search --index=work/index --caption="a red circle" --caption="two stars"
  mmt search --index=work/index --caption="a red circle" --top=50 --html=work/found.html

`mmt index` writes an index. The captions are embedded by the model that wrote it, which is looked
for where it was then, or in --workdir; captions that are too long are cut, as in training. --html
writes a page that needs nothing beside it, with pictures where the source's photos have pixels.

Needs FAISS: pip install 'mmt_jax[retrieval]'.
"""

from __future__ import annotations

import json
import pathlib
import types
import typing

from mmt_jax.cli import flags
from mmt_jax.errors import UsageError

if typing.TYPE_CHECKING:
    import numpy as np

    from mmt_jax.infer.search.index import Hit, Index

FLAGS = (
    flags.Flag("index", "INDEX", "of `mmt index`", required=True),
    flags.Flag("caption", "TEXT", "what is looked for", (), required=True),
    flags.Flag("top", "N", "photos for each caption; 10 by default", default=10),
    flags.JSON,
    flags.Flag("html", "FILE", "a page of the photos found; nothing is overwritten"),
    flags.Flag("workdir", "DIR", "the model's, where it has been moved since"),
)


def run(args: types.SimpleNamespace) -> None:
    """Searches, prints and writes."""
    from mmt_jax.infer.search import index as indices
    from mmt_jax.text import store
    from mmt_jax.train import checkpoint

    index = indices.read(args.index)
    if args.html:
        indices.check_new(args.html)
    workdir = args.workdir or index.about.workdir
    trained = checkpoint.load(workdir)
    config = trained.config
    texts = store.stored_tokenizer(workdir).texts(
        args.caption, length=config.data.text_length, layout=config.model.layout
    )
    found = index.search(trained.model, trained.params, texts, top=args.top)
    if args.html:
        _write_page(args, index, found)
    if args.json:
        print(json.dumps(_rows(args.caption, index, found), indent=1))
        return
    for caption, hits in zip(args.caption, found, strict=True):
        rows = [
            [f"{rank}", f"{hit.score:.3f}", f"{index.image_ids[hit.photo]}", _first(index, hit)]
            for rank, hit in enumerate(hits, 1)
        ]
        print(f"{caption}\n{flags.table(['rank', 'score', 'photo', 'its caption'], rows)}\n")


def _first(index: Index, hit: Hit) -> str:
    return next(iter(index.captions[hit.photo]), "")


def _rows(captions: list[str], index: Index, found: list[list[Hit]]) -> list[dict]:
    return [
        {
            "caption": caption,
            "photos": [
                {
                    "rank": rank,
                    "score": hit.score,
                    "image_id": index.image_ids[hit.photo],
                    "captions": index.captions[hit.photo],
                }
                for rank, hit in enumerate(hits, 1)
            ],
        }
        for caption, hits in zip(captions, found, strict=True)
    ]


def _write_page(args: types.SimpleNamespace, index: Index, found: list[list[Hit]]) -> None:
    from mmt_jax.infer.search import sheet

    try:
        pixels, note = _pixels(index, {hit.photo for hits in found for hit in hits}), ""
    except UsageError as error:
        pixels, note = {}, f"There are no pictures: {error}."
    page = sheet.render(index, args.caption, found, pixels=pixels, note=note)
    path = pathlib.Path(args.html)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _pixels(index: Index, photos: set[int]) -> dict[int, np.ndarray]:
    """Pixels of some photos of the index's source, by place in the index.

    Raises:
      UsageError: the source has none, or has changed.
    """
    import numpy as np

    from mmt_jax.data import sources

    corpora = sources.load(index.about.source, index.about.split, pixels=True, bare=True)
    if tuple(i for corpus in corpora for i in corpus.image_ids.tolist()) != index.image_ids:
        raise UsageError(f"{index.about.source} has other photos than when it was indexed")
    pictures, first = {}, 0
    for corpus in corpora:
        own = [photo for photo in photos if first <= photo < first + len(corpus)]
        if own:
            pixels = corpus.take(np.array(own) - first).pixels
            if pixels is None:
                raise UsageError(f"the photos of {corpus.name} have no pixels")
            pictures |= zip(own, pixels)
        first += len(corpus)
    return pictures
