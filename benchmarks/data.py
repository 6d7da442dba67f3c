"""Records a second of the input pipeline, beside what training consumes.

  python benchmarks/data.py --tag=data_cc --scale=tiny
  python benchmarks/data.py --tag=data_cc --scale=tiny --data=regions:FOLDER

Both are measured in one run, one after the other, on the same batches: first the pipeline alone,
then the compiled step on a batch that is already on the device.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import jax
from timing import machine, median_seconds

from mmt_jax import variants
from mmt_jax.config import with_spec
from mmt_jax.data import sources
from mmt_jax.data.feed import batches
from mmt_jax.data.pipeline import Examples
from mmt_jax.models import registry
from mmt_jax.train import optim, step
from mmt_jax.train.state import State


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tag", default="data_cc")
    parser.add_argument("--scale", default="tiny", choices=variants.SCALES)
    parser.add_argument("--data", help="a source; the tag's own by default")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()

    config = variants.get_config(args.tag, scale=args.scale)
    config = dataclasses.replace(
        config,
        batch_size=args.batch_size,
        data=dataclasses.replace(config.data, source=args.data or config.data.source),
        objective=dataclasses.replace(
            config.objective, candidates=min(config.objective.candidates, args.batch_size)
        ),
    )
    tokenizer = sources.tokenizer(config)
    config = with_spec(config, sources.spec(config, tokenizer))
    corpora = sources.load(config.data.source, "train", pixels=config.model.pixels)
    examples = Examples.of(config, corpora, tokenizer)
    feed = batches(examples, seed=0, batch_size=args.batch_size, sampling=config.data.sampling)

    batch = next(feed)
    start = time.perf_counter()
    for _ in range(args.batches):
        next(feed)
    supply = args.batches * args.batch_size / (time.perf_counter() - start)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(batch)) / args.batch_size
    feed.close()

    model = registry.build(config)
    tx = optim.build(config.optim, model.abstract(), config.steps)
    state = jax.jit(lambda key: State.fresh(model.init(key), tx))(jax.random.key(0))
    batch = jax.device_put(batch)
    key = jax.random.key(1)
    train = jax.jit(step.build(model, tx, config)).lower(state, batch, key).compile()
    seconds = median_seconds(lambda: train(state, batch, key), repeats=args.repeats)
    demand = args.batch_size / seconds

    print(f"machine   {machine()}")
    print(f"data      {config.data.source}: {len(examples):,} photos, batch {args.batch_size}")
    print(f"supply    {supply:,.0f} records/s, {supply * size / 2**20:,.0f} MiB/s")
    print(f"demand    {demand:,.0f} records/s by {config.tag} {args.scale}")
    print(f"ratio     {supply / demand:,.1f}")


if __name__ == "__main__":
    main()
