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
FORMATS = ("savedmodel", "huggingface")


def run(args: types.SimpleNamespace) -> None:
    """Exports."""
    if args.format not in FORMATS:
        raise UsageError(f"--format={args.format} is unknown; there are {', '.join(FORMATS)}")
    import jax

    from mmt_jax import hub
    from mmt_jax.hub import preparation
    from mmt_jax.infer.export import savedmodel
    from mmt_jax.tasks import labels
    from mmt_jax.text import vocabulary
    from mmt_jax.train import checkpoint, published
    from mmt_jax.train import workdir as workdirs

    workdir = published.workdir(args.workdir)
    workdirs.check_free(args.out)
    trained = checkpoint.load(workdir)
    tokenizer = vocabulary.stored_tokenizer(workdir)
    names, photos = labels.known(workdir), preparation.read(workdir)
    about = {"labels": names, "step": trained.step, "metrics": trained.metrics}
    if args.format == "huggingface":
        params = jax.device_get(trained.params)
        hub.save(trained.config, params, tokenizer, args.out, settings=photos, **about)
    else:
        savedmodel.export_model(
            trained.model, trained.params, tokenizer.model, args.out, photos=photos, **about
        )
    print(f"wrote {args.out}")
