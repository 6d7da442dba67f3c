"""A run's step as compiled programs, and where on the devices it finds what it needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from mmt_jax import placement
from mmt_jax.configs.config import Config
from mmt_jax.data.feed import Feed
from mmt_jax.data.pipeline import Examples
from mmt_jax.models.base import Model
from mmt_jax.tasks.records import Records
from mmt_jax.train import optim, sharding
from mmt_jax.train import step as step_lib
from mmt_jax.train.state import State, Window, abstract
from mmt_jax.typing import Batch, Params


class Program:
    """One compiled step for each size in `config.data.buckets`.

    Called as compiled, it cannot be traced again: a batch in another place is an error.

    Attributes:
      like: the state as abstract arrays in their places.
      empty: a window without metrics.
    """

    def __init__(
        self,
        model: Model,
        config: Config,
        examples: Examples | Records,
        mesh: jax.sharding.Mesh,
        key: jax.Array,
    ):
        """Lays the state out, and compiles nothing of the step yet.

        Args:
          model: to be trained.
          config: of the run.
          examples: what batches are made of.
          mesh: from `sharding.mesh`.
          key: of the run's steps, see `state.keys`.

        Raises:
          UsageError: an optimiser that cannot be.
        """
        self._model, self._size, self._key = model, config.batch_size, key
        self._tx = optim.build(config.optim, model.abstract(), config.steps)
        shapes = abstract(model, self._tx)
        self._placed = sharding.of_state(shapes, shapes.params, mesh)
        self._batched = sharding.batched(mesh)
        self.like = _like(shapes, self._placed)
        self._largest = _like(_batch_shapes(examples, self._size), self._batched)
        step = jax.jit(step_lib.build(model, self._tx, config))  # traced once for both uses below
        _, metrics = jax.eval_shape(step, self.like, self._largest, key)
        make = jax.jit(lambda: Window.empty(metrics), out_shardings=sharding.replicated(mesh))
        self.empty: Window = make()
        self._step = jax.jit(
            step_lib.windowed(step), donate_argnums=0, out_shardings=(self._placed, None)
        )
        self._compiled: dict[Any, Any] = {}

    def first_state(self, key: jax.Array, source: Params | None) -> State:
        """The state before the first step: `source`, or fresh weights drawn with `key`."""
        tx, model = self._tx, self._model
        if source is None:
            fresh = jax.jit(
                lambda key: State.fresh(model.init(key), tx), out_shardings=self._placed
            )
            return fresh(key)
        params = jax.tree.map(placement.put, jax.device_get(source), self._placed.params)
        return jax.jit(lambda p: State.fresh(p, tx), out_shardings=self._placed)(params)

    def feed(self, iterator: Feed) -> Iterator[tuple[Batch, dict[str, Any]]]:
        """Batches on the devices, one ahead, each with the position in the data after it."""
        ahead = sharding.put(next(iterator), self._batched, self._size)
        while True:
            batch, position = ahead, iterator.get_state()
            ahead = sharding.put(next(iterator), self._batched, self._size)
            yield batch, position

    def compile(self) -> None:
        """Compiles the step for the largest batches, before the first of them is there."""
        self._for(self._largest)

    def __call__(self, state: State, window: Window, batch: Batch) -> tuple[State, Window]:
        """Takes a step; `state` is used up."""
        step = self._for(batch)
        with jax.transfer_guard("disallow"):
            return step(state, window, batch, self._key)

    def _for(self, batch: Batch) -> Any:
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
        if shapes not in self._compiled:
            lowered = self._step.lower(self.like, self.empty, batch, self._key)
            self._compiled[shapes] = lowered.compile()
        return self._compiled[shapes]


def _like(shapes: Any, placed: Any) -> Any:
    """Abstract arrays with shardings: one for each leaf, or one for all."""
    if isinstance(placed, jax.sharding.Sharding):
        placed = jax.tree.map(lambda _: placed, shapes)
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        shapes,
        placed,
    )


def _batch_shapes(examples: Examples | Records, size: int) -> Batch:
    """What a batch of `size` pairs is like."""
    pair = examples.batch(np.zeros(1, np.int64), np.zeros(1, np.int64))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), pair)
