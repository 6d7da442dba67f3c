"""Prints the likeliest words at the blanks of a sentence, about a photo or alone.

  mmt fill --model=work/bert --sentence="a <mask> on a mat"
  mmt fill --model=work/bridgetower --image=cat.jpg --sentence="a <mask> on a mat"
  mmt fill --model=work/cc --record=work/photo.npz --sentence="a <mask> circle"

The model is a workdir of `mmt train` or `mmt import` that has a head over words. BERT and RoBERTa
read the sentence alone; all others a photo too, as `mmt score` takes it. A blank is written <mask>
or [MASK].
"""

from __future__ import annotations

import types

from mmt_jax.cli import flags, photo

DOING = "reading {model}"
FLAGS = (
    flags.Flag("model", "DIR", "what fills in", required=True),
    *photo.FLAGS,
    flags.Flag("sentence", "TEXT", "with a <mask> or more", required=True),
    flags.Flag("top", "N", "words for each blank; 5 by default", 5),
    flags.JSON,
)


def run(args: types.SimpleNamespace) -> None:
    """Fills in and prints."""
    from mmt_jax.infer import api

    record = photo.given(args, needed=False)
    scorer = api.load(args.model)
    found = scorer.fill(record or None, args.sentence, top=args.top, detector=args.detector)
    blanks = ["\n".join(f"{word.probability:.3f} {word.word}" for word in words) for words in found]
    flags.show(args, [[word._asdict() for word in words] for words in found], "\n\n".join(blanks))
