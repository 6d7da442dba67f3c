"""Ranks photos for captions and captions for photos, exhaustively.

usage: mmt eval --workdir=DIR|SAVEDMODEL --data=SOURCE --split=SPLIT [--limit=N] [--out=FILE.json]

  mmt eval --workdir=work/cc --data=scenes --split=test --limit=200 --out=work/cc_test.json

Image retrieval finds the photo of a caption, text retrieval any caption of a photo. r@k is the
share of queries whose match is among the first k; a tie counts against the model. A workdir's best
checkpoint is taken. --limit keeps the first N photos and their captions: joint models score every
caption with every photo, so time grows with the square.
"""

from __future__ import annotations

import types

from mmt_jax.cli import flags

FLAGS = (
    flags.Flag("workdir", "DIR|SAVEDMODEL", "of `mmt train`, or of `mmt export`", required=True),
    flags.Flag("data", "SOURCE", "such as scenes, scenes/cc or regions:FOLDER", required=True),
    flags.Flag("split", "SPLIT", "such as test", required=True),
    flags.Flag("limit", "N", "photos; all by default", default=0),
    flags.Flag("out", "FILE.json", "where the numbers go; nothing is overwritten"),
)
