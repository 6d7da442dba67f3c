"""Writes the best model of a workdir as a SavedModel for TensorFlow Hub.

usage: mmt export --workdir=DIR --out=DIR

  mmt export --workdir=work/cc --out=work/cc_saved
  python -c "import tensorflow_hub as hub; print(hub.load('work/cc_saved').signatures)"

signatures['default'] takes the release's seven keys (image/pixels in place of the three image keys
where the model reads pixels), with any number of pairs, tokens and regions; the softmax of its
`output` begins with the probability of a match. Models with embeddings also have
signatures['embed']. What was written is loaded and compared with the model before the command
reports success. Needs TensorFlow: pip install 'mmt_jax[tf]'.
"""

from __future__ import annotations

import types

from mmt_jax.cli import flags

FLAGS = (
    flags.Flag("workdir", "DIR", "of `mmt train`", required=True),
    flags.Flag("out", "DIR", "the new folder; nothing is overwritten", required=True),
)


def run(args: types.SimpleNamespace) -> None:
    """Exports."""
    from mmt_jax.export import savedmodel

    savedmodel.export(args.workdir, args.out)
    print(f"wrote {args.out}")
