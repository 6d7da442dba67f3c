"""Where arrays lie: on the devices of parameters, whichever hosts these belong to."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from mmt_jax.typing import Params


def of(params: Params) -> tuple[Params, Sharding, Sharding]:
    """Parameters on their devices, a sharding that is whole on each, and one cut over all."""
    params = jax.tree.map(lambda p: p if isinstance(p, jax.Array) else jax.device_put(p), params)
    sharding = jax.tree.leaves(params)[0].sharding
    if not isinstance(sharding, NamedSharding):
        return params, sharding, sharding
    mesh = sharding.mesh
    cut = PartitionSpec(mesh.axis_names)
    return params, NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, cut)


def put(items: Any, sharding: Sharding) -> Any:
    """Numpy arrays that each host holds whole, on the devices of `sharding`."""
    if sharding.is_fully_addressable:
        return jax.device_put(items, sharding)
    # device_put would first ask all hosts, array by array, whether they hold the same.
    return jax.tree.map(
        lambda leaf: jax.make_array_from_callback(leaf.shape, sharding, leaf.__getitem__), items
    )
