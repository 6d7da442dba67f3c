"""Trains one model, or goes on where its workdir stopped.

  mmt train --config=data_cc,scale=pilot,level=1 --workdir=work/cc --config.optim.lr=2e-3
  mmt train --config=lxmert:base,scale=tiny --workdir=work/lxmert
  mmt train --config=data_cc,scale=tiny --workdir=work/mine \\
    --config.data.source=regions:my_photos --config.steps=2000 --config.batch_size=64 \\
    --config.model.layers="('text','merged','merged')" --config.optim.lr=5e-4

TAG and NAME:ARG are names of `mmt list`, at scale=full (the default), tiny or pilot; a TAG is
trained on generated scenes of level=1, the easiest, to level=5 (the default). FILE.py is a file of
your own, such as a copy of one in experiments/ of a checkout, whose get_config(ARG) makes the
config. `mmt describe NAME` prints every field that a flag can set, such as config.seed,
config.checkpoint_every, config.eval.every and config.eval.limit (photos).

A source is `scenes` or `scenes/NAME` (generated; NAME is cc, sbu, vg, mscoco, mscoco-narratives or
oi-narratives; `scenes@1/NAME` at level 1; with `?wrong=0.2` behind it a fifth of the captions are
of other pictures, with `?far=0.5` half of the words far-fetched), `regions:FOLDER`, a folder of
<split>.jsonl and <split>.npz as described in mmt_jax.data.formats, or `records:FOLDER`, which
`mmt data pack` makes. Several, separated by commas, are a mixture. Of a folder's photos
some can be held out: --config.data.split='train[:90%]' --config.eval.split='train[90%:]'.

The workdir gets the config, the vocabulary, checkpoints (the last ones and the best), metrics.jsonl
and TensorBoard events. The same command again goes on with the steps that are left. Ctrl-C and
SIGTERM end training after the step in progress, with a checkpoint. A loss that is not finite stops
the run (exit status 1), with the step and the last good checkpoint named.
"""

from __future__ import annotations

import types

from mmt_jax.cli import flags

FLAGS = (
    flags.Flag(
        "config",
        "NAME",
        "what to train; --config.FIELD=VALUE after it sets a field",
        required=True,
    ),
    flags.Flag("workdir", "DIR", "where the run lives; made where absent", required=True),
)


def run(args: types.SimpleNamespace) -> None:
    """Trains; what is learned of the run on the way goes to stderr, the last metrics to stdout."""
    from mmt_jax import progress

    progress.stage(f"{args.config.tag or 'a model'}, {args.config.steps:,} steps: reading the data")
    import jax

    from mmt_jax.infer import tasks
    from mmt_jax.train import loop

    metrics = loop.train(args.config, args.workdir, evaluator=tasks.evaluator)
    if jax.process_index() == 0:
        rows = [[name, f"{value:.4g}"] for name, value in metrics.items()]
        print(flags.table(["metric", "value"], rows))
