"""Which device holds what: a mesh, and a table of rules over parameter paths.

The batch is cut over the mesh axis "data", large parameters over "model"; `jax.jit` with these
NamedShardings inserts the communication.
"""

from __future__ import annotations

import dataclasses
import math
import os
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from mmt_jax import params as params_lib
from mmt_jax import placement
from mmt_jax.configs.config import Config
from mmt_jax.errors import UsageError
from mmt_jax.models.registry import FAMILIES
from mmt_jax.nn.places import PLACES
from mmt_jax.typing import Params

AXES = ("data", "model")
P = PartitionSpec


def initialize() -> None:
    """Joins the other hosts of a run, where JAX_COORDINATOR_ADDRESS names the first of them.

    JAX_NUM_PROCESSES and JAX_PROCESS_ID say how many there are and which this one is; jax finds
    them out by itself under Slurm, MPI and on TPU pods. UsageError: one of them is no number, or
    missing where jax cannot.
    """
    if "JAX_COORDINATOR_ADDRESS" not in os.environ or jax.distributed.is_initialized():
        return
    numbers = {name: os.environ.get(name) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")}
    for name, value in numbers.items():
        if value and not value.isdecimal():
            raise UsageError(f"{name}={value} is no number")
    count, place = (int(value) if value else None for value in numbers.values())
    try:
        jax.distributed.initialize(num_processes=count, process_id=place)
    except ValueError as error:
        raise UsageError(
            f"JAX_COORDINATOR_ADDRESS is set, but this host cannot join: {error} Set "
            f"{' and '.join(numbers)} too"
        ) from None


def wait_for_hosts(until: str) -> None:
    """Waits until all hosts of a run are here, too: `until` names the place."""
    multihost_utils.sync_global_devices(until)


def mesh(config: Config) -> Mesh:
    """The devices of a run as a mesh with the axes "data" and "model"; an axis left out has size 1.

    UsageError: unknown axes, sizes that the devices cannot fill, or a batch that cannot be cut.
    """
    sizes = dict.fromkeys(AXES, 1) | dict(config.mesh)
    if len(sizes) != len(AXES) or len(dict(config.mesh)) != len(config.mesh):
        raise UsageError(f"config.mesh={config.mesh} must name each of {', '.join(AXES)} once")
    available = jax.device_count()
    free = [axis for axis, size in sizes.items() if size == -1]
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(free) > 1 or any(size < 1 for size in sizes.values() if size != -1):
        raise UsageError(
            f"config.mesh={config.mesh} must have sizes above 0, at most one of them -1"
        )
    if fixed > available or (free and available % fixed):
        raise UsageError(
            f"config.mesh={config.mesh} asks for {'a multiple of ' if free else ''}{fixed} "
            f"devices, there are {available}"
        )
    if free:
        sizes[free[0]] = available // fixed
    part = sizes["data"] * config.grad_accum
    if config.batch_size % part:
        raise UsageError(
            f"config.batch_size={config.batch_size} is not a multiple of {part}: "
            f"config.grad_accum={config.grad_accum} times {sizes['data']} devices on the data axis"
        )
    shape = tuple(sizes[axis] for axis in AXES)
    devices = jax.devices()[: math.prod(shape)]
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, P())


def batched(mesh: Mesh) -> NamedSharding:
    """The first axis cut over "data"."""
    return NamedSharding(mesh, P("data"))


def of_params(params: Params, config: Config, mesh: Mesh | AbstractMesh) -> Params:
    """The NamedSharding of each parameter, as a tree like `params` (abstract ones will do).

    An axis that the mesh's does not divide, in whole heads if it has heads, stays whole. Each
    parameter must match one row of what families share and of its family's own (ValueError).
    """
    table = tuple(dict.fromkeys((*PLACES, *FAMILIES[config.model.family].places)))

    def fit(axis: str | None, size: int) -> str | None:
        if axis == "data":
            return axis if config.fsdp and size % mesh.shape[axis] == 0 else None
        if axis not in (None, "model"):
            size = getattr(config.model, axis, None) or config.model.heads
        return "model" if axis and size % mesh.shape["model"] == 0 else None

    return params_lib.unflatten(
        {
            path: NamedSharding(mesh, P(*map(fit, _row(table, path), leaf.shape)))
            for path, leaf in params_lib.flatten(params).items()
        }
    )


def _row(table: tuple[tuple[str, PartitionSpec], ...], path: str) -> PartitionSpec:
    hits = [
        (pattern, spec) for pattern, spec in table if not params_lib.unmatched([pattern], [path])
    ]
    if len(hits) != 1:
        raise ValueError(
            f"{path} matches {len(hits)} rows of mmt_jax.nn.places.PLACES and its family's places "
            f"({', '.join(pattern for pattern, _ in hits)}); it must match exactly one"
        )
    return hits[0][1]


def of_state(state: Any, params: Params, config: Config, mesh: Mesh) -> Any:
    """The NamedSharding of each leaf of any tree that holds trees like `params`, or parts of them.

    A leaf whose path ends as a parameter's does lies where that parameter lies; others, such as
    step counts, are whole on every device.
    """
    table = params_lib.flatten(of_params(params, config, mesh))

    def find(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        del leaf
        keys = [str(key.key) if hasattr(key, "key") else "" for key in path]
        ends = ("/".join(keys[start:]) for start in range(len(keys)))
        return next((table[end] for end in ends if end in table), replicated(mesh))

    return jax.tree_util.tree_map_with_path(find, state)


def whole(params: Params, config: Config, mesh: Mesh) -> Params:
    """Parameters or their gradient inside a step, whole on every device of the axis "data".

    Left to itself, XLA would rather gather the activations of the whole batch than weights that are
    cut over the same axis. Each is gathered, and its gradient added up, where that is needed.
    """
    if not config.fsdp:
        return params
    places = of_params(params, dataclasses.replace(config, fsdp=False), mesh)
    return jax.lax.with_sharding_constraint(params, places)


def put_key(key: jax.Array, mesh: Mesh) -> jax.Array:
    """A random key that all hosts have alike, whole on every device."""
    data = placement.put(jax.device_get(jax.random.key_data(key)), replicated(mesh))
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))


def host_rows(sharding: NamedSharding, size: int) -> slice:
    """The rows of a batch of `size` that lie on this host's devices, or the range around them."""
    indices: Any = sharding.addressable_devices_indices_map((size,))
    cuts = [cut for (cut, *_) in indices.values()]
    return slice(min(cut.start or 0 for cut in cuts), max(cut.stop or size for cut in cuts))


def put(batch: Any, sharding: NamedSharding, size: int) -> Any:
    """Numpy arrays of this host's `host_rows` of a batch of `size`, as arrays over all devices."""
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    first = host_rows(sharding, size).start

    def whole(rows: np.ndarray) -> jax.Array:
        def part(index: Any) -> np.ndarray:
            cut, *others = index
            return rows[(slice((cut.start or 0) - first, (cut.stop or size) - first), *others)]

        return jax.make_array_from_callback((size, *rows.shape[1:]), sharding, part)

    return jax.tree.map(whole, batch)
