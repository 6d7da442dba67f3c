"""A run's step as compiled programs, and where on the devices it finds what it needs."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from mmt_jax import placement, progress
from mmt_jax.configs.config import Config
from mmt_jax.data.pipeline import Examples
from mmt_jax.models.base import Model
from mmt_jax.tasks.records import Records
from mmt_jax.train import optim, sharding, speed
from mmt_jax.train import step as step_lib
from mmt_jax.train.state import State, Window, abstract, keys
from mmt_jax.typing import Batch, Params


class Program:
    """One compiled step for each size in `config.data.buckets`.

    Called as compiled, it cannot be traced again: a batch in another place is an error.

    Attributes:
      mesh: the devices.
      first_key: of fresh parameters.
      like: the state as abstract arrays in their places.
      largest: a batch without padding, likewise.
      empty: a window without metrics.
    """

    def __init__(self, model: Model, config: Config, examples: Examples | Records):
        """Lays the state out, and compiles nothing of the step yet.

        UsageError: a mesh, an optimiser or an objective that cannot be.
        """
        self.mesh = mesh = sharding.mesh(config)
        self.first_key, self._key = (
            sharding.put_key(key, mesh) for key in keys(config.seed, config.prng)
        )
        self._model, self._config = model, config
        self._tx = optim.build(config.optim, model.abstract(), config.steps)
        self._averages = config.optim.ema > 0
        shapes = abstract(model, self._tx, average=self._averages)
        self._placed = sharding.of_state(shapes, shapes.params, config, mesh)
        self._batched = sharding.batched(mesh)
        self.like = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            self._placed,
        )
        size = config.batch_size
        like = functools.partial(jax.ShapeDtypeStruct, sharding=self._batched)
        pair = examples.batch(np.zeros(1, np.int64), np.zeros(1, np.int64))
        self.largest = jax.tree.map(lambda x: like((size, *x.shape[1:]), x.dtype), pair)
        whole = functools.partial(sharding.whole, config=config, mesh=mesh)
        step = jax.jit(  # traced once for both uses below
            step_lib.build(model, self._tx, config, whole=whole)
        )
        _, metrics = jax.eval_shape(step, self.like, self.largest, self._key)
        make = jax.jit(lambda: Window.empty(metrics), out_shardings=sharding.replicated(mesh))
        self.empty: Window = make()

        def run(state: State, window: Window, batch: Batch, key: jax.Array) -> tuple[State, Window]:
            state, metrics = step(state, batch, key)  # these stay on the device
            return state, window.add(metrics, state.step)

        self._step = jax.jit(run, donate_argnums=0, out_shardings=(self._placed, None))
        # What the model asks for, however it is computed: see `flops`.
        plain = dataclasses.replace(
            config,
            grad_accum=1,
            remat="none",
            attention="xla",
            objective=dataclasses.replace(config.objective, chunk=0),
        )
        self._plain = step_lib.build(dataclasses.replace(model, config=plain), self._tx, plain)
        self._compiled: dict[Any, tuple[Any, float | None]] = {}

    def first_state(self, weights: Params | None) -> State:
        """The state before the first step: of `weights`, or of fresh ones."""
        model = self._model
        fresh = functools.partial(State.fresh, tx=self._tx, average=self._averages)
        if weights is None:
            first = jax.jit(lambda key: fresh(model.init(key)), out_shardings=self._placed)
            return first(self.first_key)
        params = jax.tree.map(placement.put, weights, self._placed.params)
        return jax.jit(fresh, out_shardings=self._placed)(params)

    @property
    def rows(self) -> slice:
        """Those of a batch that this host reads."""
        return sharding.host_rows(self._batched, self._config.batch_size)

    def put(self, batch: Batch) -> Batch:
        """Numpy arrays of this host's rows, as a batch on the devices."""
        return sharding.put(batch, self._batched, self._config.batch_size)

    def compile(self) -> Any:
        """The step, compiled for the largest batches before the first of them is there.

        Its `memory_analysis()` says what it takes of each device.
        """
        progress.stage("compiling a step")
        return self._for(self.largest)[0]

    def __call__(self, state: State, window: Window, batch: Batch) -> tuple[State, Window]:
        """Takes a step; `state` is used up."""
        step, _ = self._for(batch)
        with jax.transfer_guard("disallow"):
            return step(state, window, batch, self._key)

    def flops(self, batch: Batch) -> float | None:
        """Of the products of a step on such a batch, over all devices, each computed once.

        None where the device's peak is not known.
        """
        return self._for(batch)[1]

    def _for(self, batch: Batch) -> tuple[Any, float | None]:
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
        if shapes not in self._compiled:
            traced = self._step.trace(self.like, self.empty, batch, self._key)
            with jax.numpy_dtype_promotion("standard"):  # on which jax relies for 16-bit gradients
                lowered = traced.lower()
            flops = None
            if speed.peak(self.mesh):
                flops = speed.flops(self._plain, self.like, batch, self._key)
            self._compiled[shapes] = lowered.compile(), flops
        return self._compiled[shapes]
