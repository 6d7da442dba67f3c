"""How fast a run is, how busy its devices are, and how long it waits for data."""

from __future__ import annotations

import math
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mmt_jax.typing import Batch

# Products in bfloat16 (float16 on V100 and T4) that a device can do, in FLOP/s without sparsity, by
# how its kind begins; from the makers' data sheets. Of several that fit, the first counts.
PEAKS = {
    "TPU v6 lite": 918e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v4": 275e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA GH200": 989e12,
    "NVIDIA A100": 312e12,
    "NVIDIA A10G": 70e12,
    "NVIDIA A10": 125e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA L40": 181e12,
    "NVIDIA L4": 121e12,
    "Tesla V100": 125e12,
    "Tesla T4": 65e12,
}


def peak(mesh: jax.sharding.Mesh) -> float | None:
    """FLOP/s of all devices of a mesh together; None where PEAKS lacks their kind."""
    kind = mesh.devices.flat[0].device_kind
    each = next((rate for name, rate in PEAKS.items() if kind.startswith(name)), None)
    return each and each * mesh.size


def flops(call: Callable[..., Any], *args: Any) -> float:
    """Of the matrix products of `call`: twice their multiplications, whatever runs them.

    XLA counts for CPUs alone, and a loop's body once. What is no product, such as a softmax, is
    left out, and what a kernel of cuDNN's does. `args` may be abstract.
    """
    return _products(jax.make_jaxpr(call)(*args).jaxpr)


def _products(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            each = math.prod(shape[axis] for axis in contracted)
            total += 2.0 * each * math.prod(equation.outvars[0].aval.shape)
        inner = [getattr(leaf, "jaxpr", leaf) for leaf in jax.tree.leaves(equation.params)]
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += times * sum(_products(leaf) for leaf in inner if hasattr(leaf, "eqns"))
    return total


def tokens(batch: Batch) -> int:
    """Words and regions of a batch of numpy arrays that are no padding."""
    parts = (batch.text, batch.image, *batch.more)
    return sum(int(np.sum(part.mask)) for part in parts if part is not None)


class Speed:
    """Counts steps until they are asked for."""

    def __init__(self, mesh: jax.sharding.Mesh, pairs: int):
        """`pairs` are in a batch."""
        self._peak, self._pairs = peak(mesh), pairs
        self.restart()

    def restart(self) -> None:
        """Leaves out what happened until now."""
        self._steps = self._tokens = 0
        self._flops = self._waited = 0.0
        self._since = time.perf_counter()

    def add(self, *, tokens: int, flops: float | None, waited: float) -> None:
        """One step is under way: its `tokens` and its FLOPs, and seconds `waited` for its data."""
        self._steps += 1
        self._tokens += tokens
        self._flops += flops or 0.0
        self._waited += waited

    def values(self) -> dict[str, float]:
        """Figures by name, since this was asked for last.

        `mfu`, on devices of PEAKS, is the share of the products that they could have done which a
        step asks for (`Program.flops`). `data_wait` is the share of the time in which nothing was
        to be done but wait for a batch.
        """
        spent = max(time.perf_counter() - self._since, 1e-9)
        found = {
            "pairs_per_second": self._pairs * self._steps / spent,
            "tokens_per_second": self._tokens / spent,
            "data_wait": self._waited / spent,
        }
        if self._peak:
            found["mfu"] = self._flops / spent / self._peak
        self.restart()
        return found


class Profiler:
    """Writes what the steps of `config.profile` do to a folder, for TensorBoard and Perfetto."""

    def __init__(self, folder: pathlib.Path, window: tuple[int, ...]):
        """`window` is the first step and how many, or empty."""
        start, count = window or (0, 0)
        self._folder, self._steps, self._on = folder, range(start, start + count), False

    def before(self, step: int, running: object) -> None:
        """To be told before each step; where tracing begins or ends, `running` is waited for."""
        if self._on != (step in self._steps):
            jax.block_until_ready(running)
            self.close() if self._on else jax.profiler.start_trace(self._folder)
            self._on = step in self._steps

    def close(self) -> None:
        """Ends a trace that has not ended."""
        if self._on:
            jax.profiler.stop_trace()
            self._on = False
