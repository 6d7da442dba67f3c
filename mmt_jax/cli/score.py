"""Prints the probability that a photo and a caption match, for each caption.

  mmt record --data=scenes --split=test --out=work/photo.npz
  mmt score --model=work/cc --record=work/photo.npz --caption="a red circle" --caption="two stars"
  mmt score --model=work/cc --image=dog.jpg --detector=frozen_graph:detector.pb --caption="a dog"

The model is a workdir of `mmt train` or `mmt import`, a SavedModel folder of `mmt export`, or a
TensorFlow Hub handle (https://...); the last two need TensorFlow: pip install 'mmt_jax[tf]'. The
record holds the three image/ keys of one photo; `mmt record` writes one. A photo itself is scored
with --image: models that read regions need --detector, the one that they were trained with, as
`mmt features` takes it; CLIP and BridgeTower read the photo as their releases prepare it. Hugging
Face rounds the sides of BridgeTower's photos down to multiples of --size_divisor and frames them in
black; the paper's code does not.
"""

from __future__ import annotations

import types

from mmt_jax.cli import flags, photo

DOING = "reading {model}"
FLAGS = (
    flags.Flag("model", "DIR|HANDLE", "what scores", required=True),
    *photo.FLAGS,
    flags.Flag("caption", "TEXT", "a caption", (), required=True),
    flags.Flag("vocab", "FILE", "of a vocabulary, where the SavedModel carries none"),
    flags.Flag(
        "size_divisor", "N", "of BridgeTower's photos, 0 = none; -1 = as imported, or 32", -1
    ),
    flags.Flag("truncate", "", "cut captions that are too long, as training does", default=False),
    flags.JSON,
)


def run(args: types.SimpleNamespace) -> None:
    """Scores and prints."""
    from mmt_jax.infer import api

    record = photo.given(args)
    scores = api.load(args.model, vocab=args.vocab).score(
        record,
        args.caption,
        truncate=args.truncate,
        detector=args.detector,
        size_divisor=None if args.size_divisor < 0 else args.size_divisor,
    )
    found = list(zip(args.caption, scores.tolist(), strict=True))
    rows = [{"caption": caption, "probability": score} for caption, score in found]
    flags.show(args, rows, "\n".join(f"{score:.3f} {caption}" for caption, score in found))
