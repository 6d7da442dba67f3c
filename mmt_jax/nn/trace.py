"""What a network computes on its way, for whoever looks at it.

Layers offer their states and attention here. Unless a trace is being recorded nothing is computed
of it, so that programs that record none are what they would be without. (`nnx.Module.sow` would
keep arrays in modules, under their paths: layers that both streams share have one path.)
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from mmt_jax.typing import Array


@dataclasses.dataclass
class Trace:
    """What was offered, in order."""

    # By stream: before its first layer and after each.
    states: dict[str, list[Array]] = dataclasses.field(default_factory=dict)
    # Who reads, what is read, and the weights [B, N, S, U].
    attention: list[tuple[str, tuple[str, ...], Array]] = dataclasses.field(default_factory=list)
    # By stream: the vector [B, E] that stands for it.
    pooled: dict[str, Array] = dataclasses.field(default_factory=dict)


_TRACE: contextvars.ContextVar[Trace | None] = contextvars.ContextVar("trace", default=None)
_STREAM: contextvars.ContextVar[tuple[str, tuple[str, ...]]] = contextvars.ContextVar("stream")


@contextlib.contextmanager
def recorded() -> Iterator[Trace]:
    """Records within, what layers compute; not through `jax.checkpoint`, which hides it."""
    trace = Trace()
    token = _TRACE.set(trace)
    try:
        yield trace
    finally:
        _TRACE.reset(token)


def of(function: Callable[..., Any], stream: str, *sources: str) -> Callable[..., Any]:
    """`function`, whose states are those of `stream` and whose attention reads `sources`."""

    def call(*args: Any, **kwargs: Any) -> Any:
        token = _STREAM.set((stream, sources))
        try:
            return function(*args, **kwargs)
        finally:
            _STREAM.reset(token)

    return call


def states(x: Array) -> Array:
    """Offers the states of a stream, and gives them back."""
    if (trace := _TRACE.get()) is not None:
        trace.states.setdefault(_STREAM.get()[0], []).append(x)
    return x


def pooled(stream: str, vectors: Array) -> Array:
    """Offers what stands for the items of a stream, and gives it back."""
    if (trace := _TRACE.get()) is not None:
        trace.pooled[stream] = vectors
    return vectors


def attention(weights: Callable[[], Array]) -> None:
    """Offers the weights of attention, computed if anybody looks."""
    if (trace := _TRACE.get()) is not None:
        trace.attention.append((*_STREAM.get(), weights()))
