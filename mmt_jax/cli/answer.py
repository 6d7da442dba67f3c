"""Prints the likeliest answers to a question about a photo, or about two.

  mmt answer --model=work/vqa --image=dog.jpg --detector=grid:work/clip --question="what is it?"
  mmt answer --model=work/nlvr2 --record=left.npz --record=right.npz --question="both are red"

The model is a workdir of experiments/tasks.py or of `mmt import`, or the export of one, with a head
for VQAv2, GQA, NLVR2 (whose sentences are about two photos) or SNLI-VE. Photos are taken as `mmt
score` takes them. Answers to VQAv2 are right or wrong each by itself: their probabilities do not
sum to 1.
"""

from __future__ import annotations

import types

from mmt_jax.cli import flags, photo
from mmt_jax.errors import UsageError

DOING = "reading {model}"
FLAGS = (
    flags.Flag("model", "DIR", "what answers", required=True),
    flags.Flag("record", "FILE", "a photo's record", ()),
    flags.Flag("image", "FILE|URL", "a photo, in place of a record", ()),
    photo.DETECTOR,
    flags.Flag("question", "TEXT", "or the sentence to be judged", required=True),
    flags.Flag("top", "N", "answers; 5 by default", 5),
    flags.Flag("truncate", "", "cut a question that is too long, as training does", default=False),
    flags.JSON,
)


def run(args: types.SimpleNamespace) -> None:
    """Answers and prints."""
    if bool(args.record) == bool(args.image):
        raise UsageError("give either --record=FILE or --image=FILE; see --help")

    from mmt_jax.infer import api

    found = api.load(args.model).answer(
        args.record or args.image,
        args.question,
        top=args.top,
        truncate=args.truncate,
        detector=args.detector,
    )
    lines = [f"{answer.probability:.3f} {answer.label}" for answer in found]
    flags.show(args, [answer._asdict() for answer in found], "\n".join(lines))
