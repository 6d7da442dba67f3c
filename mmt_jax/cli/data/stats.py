"""Counts a corpus, and measures how close its language is to a target's.

  mmt data stats --data=scenes/sbu --target=scenes --target_split=val

perplexity is that of the corpus's captions, word by word and with the end of each, under a trigram
model of the target's captions (Witten and Bell's smoothing, interpolated); less is closer. A word
that the target lacks counts as one that is unknown: unknown_words is their share. covered_types and
covered_words are the shares of the target's different and running words that the corpus has;
jaccard is the different words of both divided by those of either. Words are runs of letters and
digits, lowered and without accents. Features are not read.
"""

from __future__ import annotations

import dataclasses
import types

from mmt_jax.cli import flags
from mmt_jax.errors import UsageError

DOING = "reading {data}, split {split}"
FLAGS = (
    flags.Flag("data", "SOURCE", "such as scenes/cc or regions:FOLDER", required=True),
    flags.Flag("split", "NAME", "of SOURCE; train by default", "train"),
    flags.Flag("target", "SOURCE", "whose language the corpus's is compared with"),
    flags.Flag("target_split", "NAME", "of the target; train by default"),
    flags.JSON,
)


def run(args: types.SimpleNamespace) -> None:
    """Counts and prints."""
    from mmt_jax.data import sources
    from mmt_jax.text import statistics

    if args.target_split and not args.target:
        raise UsageError("--target_split is of --target=SOURCE, which is missing")
    corpora = sources.outlines(args.data, args.split)
    rows = dataclasses.asdict(statistics.summary(corpora))
    if args.target:
        wanted = sources.outlines(args.target, args.target_split or "train")
        target = statistics.Target([c for part in wanted for c in part.all_captions()])
        found = target.similarity([c for corpus in corpora for c in corpus.all_captions()])
        rows |= dataclasses.asdict(found)
    cells = [(k, f"{v:,}" if isinstance(v, int) else f"{v:.4g}") for k, v in rows.items()]
    flags.show(args, rows, flags.table(["of the corpus", ""], cells))
