"""Time and memory of one training step: forward, backward and the optimiser's update.

  python benchmarks/step.py --tag=data_cc --scale=tiny
  python benchmarks/step.py --scale=full --pairs=1024 --regions=101 --tokens=25 --dtype=bfloat16
  JAX_NUM_CPU_DEVICES=8 python benchmarks/step.py --scale=full --pairs=1024 --fsdp --repeats=0

The batch is 32 pairs of 36 regions and 24 tokens unless flags say otherwise. `full` takes a
detector's 2,048 features, 1,601 classes and 32,000 pieces, as the release does. Memory is a
device's, by XLA's account of the compiled step; with `--repeats=0` the step is compiled and not
run, so that it need not fit. On CPUs, XLA_FLAGS=--xla_cpu_enable_concurrency_optimized_scheduler=
false has it schedule for memory, as it does for accelerators; those fuse more and keep less.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from timing import machine, median_seconds

from mmt_jax.configs import variants
from mmt_jax.configs.config import RELEASE_SPEC, DataSpec, with_spec
from mmt_jax.models import registry
from mmt_jax.train import optim, sharding, speed, step
from mmt_jax.train import state as state_lib
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
    parser.add_argument("--attention", default="auto", choices=("auto", "xla", "cudnn"))
    parser.add_argument("--remat", default="none", choices=("none", "layers"))
    parser.add_argument("--chunk", type=int, default=0, help="config.objective.chunk")
    parser.add_argument("--accum", type=int, default=1, help="config.grad_accum")
    parser.add_argument("--fsdp", action="store_true")
    parser.add_argument("--prng", default="threefry", choices=("threefry", "rbg"))
    parser.add_argument("--dropout", type=float, help="the model's, if it shall be another")
    parser.add_argument("--repeats", type=int, default=20, help="0 = compile only")
    args = parser.parse_args()

    spec = RELEASE_SPEC if args.scale == "full" else TINY_SPEC
    config = with_spec(variants.get_config(args.tag, scale=args.scale), spec)
    candidates = min(config.objective.candidates, args.pairs)
    config = dataclasses.replace(
        config,
        dtype=args.dtype,
        batch_size=args.pairs,
        grad_accum=args.accum,
        attention=args.attention,
        remat=args.remat,
        fsdp=args.fsdp,
        prng=args.prng,
        objective=dataclasses.replace(config.objective, candidates=candidates, chunk=args.chunk),
    )
    if args.dropout is not None:
        model = dataclasses.replace(config.model, dropout=args.dropout)
        config = dataclasses.replace(config, model=model)
    model = registry.build(config)
    mesh = sharding.mesh(config)
    tx = optim.build(config.optim, model.abstract(), config.steps)
    shapes = state_lib.abstract(model, tx)
    placed = sharding.of_state(shapes, shapes.params, config, mesh)
    over = sharding.batched(mesh)
    one = random_batch(spec, pairs=1, regions=args.regions, tokens=args.tokens)
    many = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((args.pairs, *x.shape[1:]), x.dtype, sharding=over), one
    )
    first, later = state_lib.keys(config.seed, config.prng)
    whole = functools.partial(sharding.whole, config=config, mesh=mesh)
    train = jax.jit(
        step.build(model, tx, config, whole=whole),
        donate_argnums=0,
        in_shardings=(placed, over, None),
        out_shardings=(placed, None),
    )
    train = train.lower(shapes, many, later).compile()
    memory: Any = train.memory_analysis()
    held, used = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    size = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes.params))
    print(f"machine            {machine()}")
    print(f"model              {config.tag}, {args.scale}, {args.dtype}, {size:,} parameters")
    print(f"batch              {args.pairs} pairs × {args.regions} regions × {args.tokens} tokens")
    print(
        f"memory             {(held + used) / 2**30:,.2f} GiB: state and batch "
        f"{held / 2**30:,.2f}, beside them {used / 2**30:,.2f}"
    )
    if not args.repeats:
        return
    batch = random_batch(spec, pairs=args.pairs, regions=args.regions, tokens=args.tokens)
    batch = jax.device_put(batch, over)
    fresh = jax.jit(lambda key: state_lib.State.fresh(model.init(key), tx), out_shardings=placed)
    state = fresh(first)

    def call() -> jax.Array:
        nonlocal state
        state, _ = train(state, batch, later)
        return state.step

    seconds = median_seconds(call, repeats=args.repeats)
    in_one = step.build(model, tx, dataclasses.replace(config, grad_accum=1))
    operations = speed.flops(in_one, shapes, many, later)
    print(f"step               {seconds * 1e3:,.1f} ms, {args.pairs / seconds:,.0f} pairs/s")
    print(
        f"model FLOP/s       {operations / seconds / 1e9:,.0f} G ({operations / 1e9:,.1f} G a step)"
    )
    if peak := speed.peak(mesh):
        print(f"share of the peak  {operations / seconds / peak:.1%}")
    device = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in device:
        print(f"memory in use      {device['peak_bytes_in_use'] / 2**30:,.2f} GiB at most")


if __name__ == "__main__":
    main()
