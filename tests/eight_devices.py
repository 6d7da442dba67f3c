"""Run by test_sharding in a process of its own: what a step does on meshes of eight CPU devices."""

import dataclasses
import functools
import json
import os
import sys

import jax
import numpy as np
import optax
import tiny

from mmt_jax import params as trees
from mmt_jax.configs.config import OptimConfig
from mmt_jax.infer.predict import Predictor
from mmt_jax.train import checkpoint, optim, sharding, state, step, workdir

OPTIM = OptimConfig(lr=0.01, schedule="constant", warmup_steps=0, eps=1e-3)
MESHES = {
    "one": (1, 1, False),
    "data": (8, 1, False),
    "both": (4, 2, False),
    "fsdp": (4, 2, True),
}


def one_step(model, config, params, batch):
    """The state on the config's mesh after a step from `params`, loss and memory of the step."""
    mesh = sharding.mesh(config)
    tx = optim.build(config.optim, params, config.steps)
    shapes = jax.eval_shape(lambda params: state.State.fresh(params, tx), params)
    placed = sharding.of_state(shapes, params, config, mesh)
    first = jax.device_put(state.State.fresh(params, tx), placed)
    whole = functools.partial(sharding.whole, config=config, mesh=mesh)
    run = jax.jit(
        step.build(model, tx, config, whole=whole),
        out_shardings=(placed, None),
    )
    batch = sharding.put(batch, sharding.batched(mesh), len(batch.image_ids))
    run = run.lower(first, batch, jax.random.key(config.seed)).compile()
    after, metrics = run(first, batch, jax.random.key(config.seed))
    return after, float(metrics["loss"].mean), run.memory_analysis().output_size_in_bytes


def working_memory(model, config):
    """Bytes of a device that a step takes beside the state, for a batch that outweighs it."""
    mesh = sharding.mesh(config)
    tx = optim.build(config.optim, model.abstract(), config.steps)
    shapes = state.abstract(model, tx)
    placed = sharding.of_state(shapes, shapes.params, config, mesh)
    one, over = tiny.batch(1), sharding.batched(mesh)
    many = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((config.batch_size, *x.shape[1:]), x.dtype, sharding=over),
        one,
    )
    whole = functools.partial(sharding.whole, config=config, mesh=mesh)
    run = jax.jit(step.build(model, tx, config, whole=whole), out_shardings=(placed, None))
    run = run.lower(shapes, many, jax.random.key(0)).compile()
    return run.memory_analysis().temp_size_in_bytes


def distance(a, b):
    return max(
        float(np.abs(np.asarray(x) - np.asarray(y)).max())
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))
    )


def deep(folder):
    """Twelve layers, whose numbers do not sort as text: on 4 × 2, written and read on one."""
    built = tiny.model(("text",) * 11 + ("merged",))
    config = dataclasses.replace(built.config, mesh=(("data", 4), ("model", 2)))
    params = tiny.params(built)
    placed = jax.device_put(params, sharding.of_params(params, config, sharding.mesh(config)))
    os.makedirs(folder)
    workdir.write_config(folder, config)
    checkpoints = checkpoint.Checkpoints(folder, config)
    checkpoints.save(state.State(np.zeros((), np.int32), placed, {}), 0, position={}, metrics={})
    checkpoints.close()
    loaded = checkpoint.load(folder).params
    texts, images = tiny.text([3, 4]), tiny.image([3, 2])
    scores = [Predictor(built, p).score(texts, images) for p in (placed, loaded)]
    return {"distance": distance(params, loaded), "scores": distance(*scores)}


def main(folder):
    batch = jax.tree.map(np.asarray, tiny.batch(8))
    built = tiny.model(("merged",), width=16)
    params = jax.tree.map(jax.numpy.asarray, tiny.params(built))
    report, states = {}, {}
    for name, (data, model_axis, fsdp) in MESHES.items():
        config = dataclasses.replace(
            built.config,
            batch_size=8,
            mesh=(("data", data), ("model", model_axis)),
            fsdp=fsdp,
            optim=OPTIM,
        )
        model = dataclasses.replace(built, config=config)
        states[name], loss, memory = one_step(model, config, params, batch)
        flat = trees.flatten(states[name].params)
        moments = optax.tree.get(states[name].opt_state, "mu")
        report[name] = {
            "loss": loss,
            "memory": memory,
            "devices": len(flat["text/tokens/embedding"].sharding.device_set),
            "mlp": list(flat["streams/layers/0/text/mlp/hidden/kernel"].sharding.spec),
            "moment": list(
                moments["streams"]["layers"]["0"]["text"]["mlp"]["hidden"]["kernel"].sharding.spec
            ),
            "tokens": list(flat["text/tokens/embedding"].sharding.spec),
        }
    for name in MESHES:
        report[name]["distance"] = distance(states["one"].params, states[name].params)
        report[name]["moments"] = distance(states["one"].opt_state, states[name].opt_state)

    report["working"] = {
        name: working_memory(
            built,
            dataclasses.replace(
                built.config, batch_size=512, mesh=(("data", 8),), fsdp=fsdp, optim=OPTIM
            ),
        )
        for name, fsdp in (("data", False), ("fsdp", True))
    }

    # Written on 4 × 2, read on 2 × 1, and without asking for a mesh.
    config = dataclasses.replace(built.config, mesh=(("data", 4), ("model", 2)), optim=OPTIM)
    os.makedirs(folder)
    workdir.write_config(folder, config)
    checkpoints = checkpoint.Checkpoints(folder, config)
    saved = {"position": {"next_index": 7}, "metrics": {"loss": 1.0}}
    checkpoints.save(states["both"], 1, **saved)
    checkpoints.wait()
    config = dataclasses.replace(config, mesh=(("data", 2),))
    mesh = sharding.mesh(config)
    shapes = state.abstract(built, optim.build(OPTIM, built.abstract(), config.steps))
    placed = sharding.of_state(shapes, shapes.params, config, mesh)
    like = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, placed
    )
    read, position, _ = checkpoints.restore(1, like)
    report["read"] = {
        "distance": distance(states["both"], read),
        "devices": len(read.params["text"]["norm"]["scale"].sharding.device_set),
        "position": position,
    }
    loaded = checkpoint.load(folder)
    report["loaded"] = {
        "distance": distance(states["both"].params, loaded.params),
        "devices": len(loaded.params["text"]["norm"]["scale"].sharding.device_set),
    }
    report["deep"] = deep(os.path.join(folder, "deep"))
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1])
