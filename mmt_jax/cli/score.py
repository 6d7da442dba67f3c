"""Prints the probability that a photo and a caption match, for each caption.

usage: mmt score --model=DIR|HANDLE --record=FILE.npz --caption=TEXT ... [--truncate] [--json]

  mmt record --data=scenes --split=test --out=work/photo.npz
  mmt score --model=work/cc --record=work/photo.npz --caption="a red circle" --caption="two stars"

The model is a workdir of `mmt train`, a SavedModel folder of `mmt export`, or a TensorFlow Hub
handle (https://...); the last two need TensorFlow: pip install 'mmt_jax[tf]'. The record holds the
three image/ keys of one photo; `mmt record` writes one.
"""

from __future__ import annotations

import json
import types

from mmt_jax.cli import flags

FLAGS = (
    flags.Flag("model", "DIR|HANDLE", "what scores", required=True),
    flags.Flag("record", "FILE.npz", "one photo", required=True),
    flags.Flag("caption", "TEXT", "a caption", (), required=True),
    flags.Flag("vocab", "FILE", "of a vocabulary, where the SavedModel carries none"),
    flags.Flag("truncate", "", "cut captions that are too long, as training does", default=False),
    flags.JSON,
)


def run(args: types.SimpleNamespace) -> None:
    """Scores and prints."""
    from mmt_jax import api

    scorer = api.load(args.model, vocab=args.vocab)
    scores = scorer.score(args.record, args.caption, truncate=args.truncate)
    if args.json:
        rows = [
            {"caption": caption, "probability": float(score)}
            for caption, score in zip(args.caption, scores, strict=True)
        ]
        print(json.dumps(rows, indent=1))
        return
    for caption, score in zip(args.caption, scores, strict=True):
        print(f"{score:.3f} {caption}")
