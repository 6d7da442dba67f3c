"""Writes the embeddings of a source's photos, or of its captions, as an index for `mmt search`.

  mmt index --workdir=work/towers --data=scenes --split=test --out=work/index
  mmt index --workdir=work/towers --data=scenes --split=test --side=captions --out=work/captions

The model must have embeddings, as those of two towers do; the workdir's best checkpoint is taken.
An index of images is searched with captions or photos, one of captions with photos.
The kind says how they are found: `flat` compares with each of them, `ivf` with those of the
nearest lists, `hnsw` along a graph of neighbours; the last two are faster and may miss one. The
metric `ip` ranks by the inner product, which is the score of a model of two towers; `cosine` leaves
the lengths of the embeddings aside. --querybank=SPLIT, of --data, normalises photos as `mmt eval`
does, so that those which fit every caption are found by fewer; for the kind `flat`.

Needs FAISS: pip install 'mmt_jax[retrieval]'.
"""

from __future__ import annotations

import types

from mmt_jax import progress
from mmt_jax.cli import flags

FLAGS = (
    flags.Flag("workdir", "DIR", "of `mmt train` or `mmt import`", required=True),
    flags.Flag("data", "SOURCE", "such as scenes, scenes/cc or regions:FOLDER", required=True),
    flags.Flag("split", "SPLIT", "such as test", required=True),
    flags.Flag("out", "INDEX", "the new folder; nothing is overwritten", required=True),
    flags.Flag("side", "images|captions", "what is indexed; images by default", "images"),
    flags.Flag("kind", "flat|ivf|hnsw", "how they are found; flat by default", "flat"),
    flags.Flag("metric", "ip|cosine", "what a score is; ip by default", "ip"),
    flags.Flag("querybank", "SPLIT", "normalise photos by the captions of this split"),
)


def run(args: types.SimpleNamespace) -> None:
    """Embeds and writes."""
    what = "captions" if args.side == "captions" else "photos"
    progress.stage(f"embedding the {what} of {args.data}, split {args.split}")

    from mmt_jax.data import sources
    from mmt_jax.files import check_new
    from mmt_jax.infer import api, querybank
    from mmt_jax.infer.search import index
    from mmt_jax.train import published

    check_new(args.out)
    workdir = published.workdir(args.workdir).resolve()
    scorer = api.of_workdir(workdir)
    predictor = scorer.own
    corpora = sources.load(args.data, args.split, pixels=scorer.config.model.pixels, bare=True)
    built = index.build(
        predictor.model,
        predictor.params,
        scorer.examples(corpora, bare=True),
        side=args.side,
        kind=args.kind,
        metric=args.metric,
        workdir=workdir,
        source=args.data,
        split=args.split,
        bank=querybank.of(scorer, args.data, args.querybank, asked=args.split),
    )
    index.write(built, args.out)
    print(
        f"{len(built)} {what} of {args.data}, split {args.split}, {built.vectors.d} numbers each, "
        f"in {args.out}"
    )
