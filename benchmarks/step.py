"""Time and memory of one training step: forward, backward and the optimiser's update.

  python benchmarks/step.py --tag=data_cc --scale=tiny
  python benchmarks/step.py --tag=data_cc --scale=full --repeats=3

The batch is 32 pairs of 36 regions and 24 tokens unless flags say otherwise. `full` takes a
detector's 2,048 features, 1,601 classes and 32,000 pieces, as the release does. Peak memory is the
whole process's: run one scale at a time. Model FLOP/s are XLA's count of the compiled step over its
time.
"""

from __future__ import annotations

import argparse
import dataclasses

import jax
import numpy as np
from timing import flops, machine, median_seconds, peak_memory_mib

from mmt_jax.configs import variants
from mmt_jax.configs.config import RELEASE_SPEC, DataSpec, with_spec
from mmt_jax.models import registry
from mmt_jax.train import optim, step
from mmt_jax.train.state import State
from mmt_jax.typing import Batch, Image, Text

TINY_SPEC = DataSpec(feature_dim=176, num_classes=65, vocab_size=2000)
KNOWN_CLASSES = 8


def random_batch(spec: DataSpec, *, pairs: int, regions: int, tokens: int) -> Batch:
    """A batch without padding; what is in it does not matter to the time."""
    rng = np.random.default_rng(0)
    low = rng.random((pairs, regions, 2), np.float32) / 2
    area = np.full((pairs, regions, 1), 0.25, np.float32)
    words = np.tile(np.arange(-1, tokens - 1, dtype=np.int32), (pairs, 1))
    words[:, -1] = -1
    segments = np.zeros((pairs, tokens), np.int32)
    segments[:, -1] = 2
    known = (pairs, regions, KNOWN_CLASSES)
    return Batch(
        Text(
            rng.integers(7, spec.vocab_size, (pairs, tokens), np.int32),
            segments,
            words,
            np.ones((pairs, tokens), bool),
        ),
        Image(
            rng.random((pairs, regions, spec.feature_dim), np.float32),
            np.concatenate([low, low + 0.5, area], axis=-1),
            np.ones((pairs, regions), bool),
            np.broadcast_to(np.arange(KNOWN_CLASSES, dtype=np.int32), known).copy(),
            np.full(known, 1 / KNOWN_CLASSES, np.float32),
        ),
        np.arange(pairs, dtype=np.int32),
    )


def main() -> None:
    """Measures and prints one line a figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tag", default="data_cc")
    parser.add_argument("--scale", default="tiny", choices=variants.SCALES)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--regions", type=int, default=36)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()

    spec = RELEASE_SPEC if args.scale == "full" else TINY_SPEC
    config = with_spec(variants.get_config(args.tag, scale=args.scale), spec)
    candidates = min(config.objective.candidates, args.pairs)
    config = dataclasses.replace(
        config,
        dtype=args.dtype,
        objective=dataclasses.replace(config.objective, candidates=candidates),
    )
    model = registry.build(config)
    tx = optim.build(config.optim, model.abstract(), config.steps)
    batch = jax.device_put(
        random_batch(spec, pairs=args.pairs, regions=args.regions, tokens=args.tokens)
    )
    state = jax.jit(lambda key: State.fresh(model.init(key), tx))(jax.random.key(0))
    key = jax.random.key(1)
    train = jax.jit(step.build(model, tx, config), donate_argnums=0)
    train = train.lower(state, batch, key).compile()

    def call() -> jax.Array:
        nonlocal state
        state, _ = train(state, batch, key)
        return state.step

    seconds = median_seconds(call, repeats=args.repeats)
    operations = flops(train)
    size = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(model.abstract()))
    print(f"machine            {machine()}")
    print(f"model              {config.tag}, {args.scale}, {args.dtype}, {size:,} parameters")
    print(f"batch              {args.pairs} pairs × {args.regions} regions × {args.tokens} tokens")
    print(f"step               {seconds * 1e3:,.1f} ms, {args.pairs / seconds:,.0f} pairs/s")
    print(
        f"model FLOP/s       {operations / seconds / 1e9:,.0f} G ({operations / 1e9:,.1f} G a step)"
    )
    print(f"peak memory        {peak_memory_mib():,.0f} MiB (process)")
    device = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in device:
        print(f"peak device memory {device['peak_bytes_in_use'] / 2**20:,.0f} MiB")


if __name__ == "__main__":
    main()
