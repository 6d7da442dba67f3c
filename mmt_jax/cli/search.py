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
import types
import typing

from mmt_jax.cli import flags
from mmt_jax.errors import UsageError

if typing.TYPE_CHECKING:
    import numpy as np

    from mmt_jax.infer.search.index import Index

_SIDE = 320  # pixels, at most, of a picture on the page

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
    from mmt_jax.files import check_new, whole
    from mmt_jax.infer.search import index as indices
    from mmt_jax.infer.search import sheet
    from mmt_jax.text import store
    from mmt_jax.train import checkpoint, published

    index = indices.read(args.index)
    if args.html:
        check_new(args.html)
    workdir = published.workdir(args.workdir or index.about.workdir)
    trained = checkpoint.load(workdir)
    config = trained.config
    texts = store.stored_tokenizer(workdir).texts(
        args.caption, length=config.data.text_length, layout=config.model.layout
    )
    found = index.search(trained.model, trained.params, texts, top=args.top)
    if args.html:
        pixels, note = _pictures(index, sorted({hit.photo for hits in found for hit in hits}))
        page = sheet.render(index, args.caption, found, pixels=pixels, note=note)
        with whole(args.html) as part:
            part.write_text(page, encoding="utf-8")
    rows = [
        [
            {
                "rank": rank,
                "score": hit.score,
                "image_id": index.image_ids[hit.photo],
                "name": index.names[hit.photo],
                "captions": index.captions[hit.photo],
            }
            for rank, hit in enumerate(hits, 1)
        ]
        for hits in found
    ]
    answers = list(zip(args.caption, rows, strict=True))
    if args.json:
        print(json.dumps([{"caption": c, "photos": photos} for c, photos in answers], indent=1))
        return
    for caption, photos in answers:
        cells = [
            [f"{p['rank']}", f"{p['score']:.3f}", p["name"], next(iter(p["captions"]), "")]
            for p in photos
        ]
        print(f"{caption}\n{flags.table(['rank', 'score', 'photo', 'its caption'], cells)}\n")


def _pictures(index: Index, photos: list[int]) -> tuple[dict[int, np.ndarray], str]:
    """Pixels of some photos of the index's source, by place in the index; or why there are none."""
    import numpy as np

    from mmt_jax.corpus import starts
    from mmt_jax.data import sources
    from mmt_jax.photos import pictures

    try:
        corpora = sources.load(index.about.source, index.about.split, pixels=True, bare=True)
        if tuple(i for corpus in corpora for i in corpus.image_ids.tolist()) != index.image_ids:
            raise UsageError(f"{index.about.source} has other photos than when it was indexed")
        ends, found = starts([len(corpus) for corpus in corpora]), {}
        for photo in photos:
            part = int(np.searchsorted(ends, photo, side="right")) - 1
            found[photo] = pictures.at_most(corpora[part].picture(photo - int(ends[part])), _SIDE)
    except UsageError as error:
        return {}, f"There are no pictures: {error}."
    return found, ""
