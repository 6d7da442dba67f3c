"""Writes the best model of a workdir as a SavedModel for TensorFlow Hub.

  mmt export --workdir=work/cc --out=work/cc_saved
  python -c "import tensorflow_hub as hub; print(hub.load('work/cc_saved').signatures)"

signatures['default'] takes the release's seven keys (image/pixels in place of the three image keys
where the model reads pixels), with any number of pairs, tokens and regions; the softmax of its
`output` begins with the probability of a match. Models with embeddings also have
signatures['embed'], and those of experiments/tasks.py signatures['answer'], whose labels are an
asset. What was written is loaded and compared with the model before the command
reports success. Needs TensorFlow: pip install 'mmt_jax[tf]'.

--format=huggingface writes a folder that `from_pretrained` of transformers loads, for families that
have a counterpart there: pip install 'mmt_jax[hf]'. Either has a model card, README.md.
"""

from __future__ import annotations

import pathlib
import types

from mmt_jax.cli import flags
from mmt_jax.errors import UsageError

DOING = "reading {workdir}"
FLAGS = (
    flags.Flag("workdir", "DIR", "of `mmt train`", required=True),
    flags.Flag("out", "DIR", "the new folder; nothing is overwritten", required=True),
    flags.Flag(
        "format",
        "savedmodel|huggingface",
        "of what is written; savedmodel by default",
        "savedmodel",
    ),
)


def run(args: types.SimpleNamespace) -> None:
    """Exports."""
    if args.format not in FORMATS:
        raise UsageError(f"--format={args.format} is unknown; there are {', '.join(FORMATS)}")
    from mmt_jax.train import published

    FORMATS[args.format](published.workdir(args.workdir), args.out)
    print(f"wrote {args.out}")


def _saved_model(workdir: pathlib.Path, out: str) -> None:
    from mmt_jax.infer.export import savedmodel

    savedmodel.export(workdir, out)


def _hugging_face(workdir: pathlib.Path, out: str) -> None:
    import jax

    from mmt_jax import hub as importers
    from mmt_jax.hub import preparation
    from mmt_jax.tasks import labels
    from mmt_jax.text import vocabulary
    from mmt_jax.train import checkpoint
    from mmt_jax.train import workdir as workdirs

    workdirs.check_free(out)
    trained = checkpoint.load(workdir)
    tokenizer = vocabulary.stored_tokenizer(workdir)
    params = jax.device_get(trained.params)
    importers.save(
        trained.config,
        params,
        tokenizer,
        out,
        settings=preparation.read(workdir),
        labels=labels.known(workdir),
        step=trained.step,
        metrics=trained.metrics,
    )


FORMATS = {"savedmodel": _saved_model, "huggingface": _hugging_face}
