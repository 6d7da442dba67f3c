"""Memory of one training step, by XLA's own account of the compiled program; nothing is run.

  python benchmarks/memory.py --tag=data_cc --batch=1024 --remat=layers --dtype=bfloat16
  python benchmarks/memory.py --tag=loss_v1-contrastive32 --batch=1024 --chunk=1024 --devices=8

The model is at full size: the release's 25 tokens, 101 regions of 2,048 features, 1,601 classes
and 32,000 pieces. Figures are a device's. They are those of XLA for CPUs, told to schedule for
memory; compilers for accelerators fuse more and keep less, so these are upper bounds there.
"""

from __future__ import annotations

import argparse
import dataclasses
import os


def main() -> None:
    """Prints a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tag", default="data_cc")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--remat", default="none")
    parser.add_argument("--chunk", type=int, default=0)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--accum", type=int, default=1)
    parser.add_argument("--fsdp", action="store_true")
    args = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_NUM_CPU_DEVICES"] = str(args.devices)
    os.environ["XLA_FLAGS"] = "--xla_cpu_enable_concurrency_optimized_scheduler=false"

    import jax
    from step import random_batch

    from mmt_jax.configs import variants
    from mmt_jax.configs.config import RELEASE_SPEC, with_spec
    from mmt_jax.models import registry
    from mmt_jax.train import optim, sharding, state, step

    config = variants.get_config(args.tag)
    config = dataclasses.replace(
        with_spec(config, RELEASE_SPEC),
        batch_size=args.batch,
        grad_accum=args.accum,
        remat=args.remat,
        dtype=args.dtype,
        objective=dataclasses.replace(config.objective, chunk=args.chunk),
        fsdp=args.fsdp,
    )
    model = registry.build(config)
    mesh = sharding.mesh(config)
    tx = optim.build(config.optim, model.abstract(), config.steps)
    shapes = state.abstract(model, tx)
    placed = sharding.of_state(shapes, shapes.params, config, mesh)
    one = random_batch(RELEASE_SPEC, pairs=1, regions=101, tokens=25)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((args.batch, *x.shape[1:]), x.dtype), one)
    build = step.build(model, tx, config)
    run = jax.jit(
        lambda state, *more: build(sharding.gathered(state, config, mesh), *more),
        donate_argnums=0,
        in_shardings=(placed, sharding.batched(mesh), None),
        out_shardings=(placed, None),
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    found = run.lower(shapes, batch, key).compile().memory_analysis()
    held, used = found.argument_size_in_bytes, found.temp_size_in_bytes
    print(
        f"{args.tag}, {args.batch} pairs on {args.devices}: "
        f"state and batch {held / 2**30:.1f} GiB, beside them {used / 2**30:.1f} GiB, "
        f"in all {(held + used) / 2**30:.1f}"
    )


if __name__ == "__main__":
    main()
