"""How the benchmarks time: the median of repeated calls."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax


def median_seconds(call: Callable[[], Any], *, repeats: int) -> float:
    """Median wall time of `call`, whose result is waited for; one more call before warms up."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def paired_seconds(calls: Mapping[str, Callable[[], Any]], *, repeats: int) -> dict[str, float]:
    """Median wall time of each of `calls`, taken in turns: what slows the machine slows them all.

    Results are waited for where they are JAX's; others must be ready when the call returns.
    """
    for call in calls.values():
        jax.block_until_ready(call())
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def machine() -> str:
    """What a figure was measured on."""
    device = jax.devices()[0]
    return (
        f"{os.cpu_count()} {platform.machine()} cores, "
        f"{jax.device_count()} × {device.device_kind}, "
        f"jax {jax.__version__}, Python {platform.python_version()}"
    )
