"""The two streams and the seam between them: what is unimodal is encoded, the rest is fused.

A stream is unimodal until the first layer in which it reads the other. Up to there its states, and
the keys and values that the other stream will read, depend on one item alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from flax import nnx
from jaxtyping import Bool, Float

from mmt_jax.nn import trace
from mmt_jax.nn.kinds import STREAMS, Kind, kinds
from mmt_jax.nn.layers import Layer, Sizes, numbered, recomputed
from mmt_jax.nn.primitives import split
from mmt_jax.typing import Array, Encoded, Key, KeysValues

States = dict[str, Float[Array, "P _ D"]]  # by stream


def other(stream: str) -> str:
    """The other of the two streams."""
    return STREAMS[1 - STREAMS.index(stream)]


def unimodal_depth(table: tuple[Kind, ...], stream: str) -> int:
    """How many layers `stream` passes before it first reads the other stream."""
    for i, kind in enumerate(table):
        if other(stream) in kind.reads(stream):
            return i
    return len(table)


class StreamLayer(nnx.Module):
    """One layer of both streams; parts that no output depends on are not built."""

    def __init__(self, sizes: Sizes, kind: Kind):
        self.kind = kind
        if kind.tied:
            self.shared = Layer(sizes, key_bias=kind.needs_key_bias("text"))
            return
        for stream in STREAMS:
            reads, is_read = bool(kind.reads(stream)), kind.is_read(stream)
            if reads or is_read:
                bias = kind.needs_key_bias(stream)
                setattr(self, stream, Layer(sizes, reads=reads, is_read=is_read, key_bias=bias))

    def of(self, stream: str) -> Layer:
        """The weights that `stream` uses."""
        return self.shared if self.kind.tied else getattr(self, stream)

    def keys_values(self, stream: str, x: Float[Array, "B U D"]) -> KeysValues:
        """Keys and values of the states `x` of `stream`."""
        return self.of(stream).attention.keys_values(x)


class Streams(nnx.Module):
    """The layers of both streams."""

    def __init__(self, sizes: Sizes, layers: tuple[str, ...]):
        self.kinds, self.remat = kinds(layers), sizes.remat
        self.depth = {stream: unimodal_depth(self.kinds, stream) for stream in STREAMS}
        self.first_fused = min(self.depth.values())
        self.layers = nnx.Dict(
            {str(i): StreamLayer(sizes, kind) for i, kind in enumerate(self.kinds)}
        )

    def encode(
        self,
        stream: str,
        x: Float[Array, "B S D"],
        mask: Bool[Array, "B S"],
        *,
        key: Key,
        done: int = 0,
    ) -> tuple[list[Float[Array, "B S D"]], dict[str, KeysValues]]:
        """The unimodal layers of `stream` on states `x`, which are those after `done` of them.

        `x` and the states after each further one, and the keys and values of each layer that are
        made of unimodal states and that the other stream, or a fused layer, will read.
        """
        states, keys_values = [trace.states(x)], {}
        keys = split(key, len(self.kinds))
        layers = enumerate(zip(self.kinds, numbered(self.layers)))
        for i, (kind, layer) in itertools.islice(layers, done, None):
            unimodal = i < self.depth[stream]
            own = layer.keys_values(stream, x) if kind.is_read(stream) else None
            if own and (stream in kind.reads(other(stream)) or not unimodal):
                keys_values[str(i)] = own
            if not unimodal:
                break
            if kind.reads(stream):
                update = recomputed(layer.of(stream), self.remat)
                x = update(x, [(own, mask)], key=keys[i])
            states.append(x)
        return states, keys_values

    def fuse(
        self, items: Mapping[str, Encoded], *, key: Key, only: Mapping[str, slice] | None = None
    ) -> list[States]:
        """The layers from the first fused one on, over P pairs, whose items are given by stream.

        Items are as after the stream's unimodal layers, with the keys and values of `encode`.
        `only` says by stream which states are wanted after its last layer: the others are not
        computed there, and are no more in what is given back. None = all.

        The states of both streams after each of these layers; a stream that is still unimodal there
        shows its states after the last unimodal one.
        """
        after, states = [], {stream: item.states for stream, item in items.items()}
        keys = split(key, 2 * len(self.kinds))
        for i in range(self.first_fused, len(self.kinds)):
            kind, layer = self.kinds[i], self.layers[str(i)]
            fused = [stream for stream in STREAMS if i >= self.depth[stream]]
            read = self._read(i, fused, states, items)
            updated = {}
            for n, stream in enumerate(STREAMS):
                if stream in fused and kind.reads(stream):
                    x = states[stream]
                    later = self.kinds[i + 1 :]
                    if only and not any(k.reads(stream) or k.is_read(stream) for k in later):
                        x = x[:, only[stream]]
                    sources = [(read[source], items[source].mask) for source in kind.reads(stream)]
                    update = trace.of(layer.of(stream), stream, *kind.reads(stream))
                    update = recomputed(update, self.remat)
                    updated[stream] = update(x, sources, key=keys[2 * i + n])
            states = states | updated
            after.append(states)
        return after

    def _read(
        self, number: int, readers: list[str], states: States, items: Mapping[str, Encoded]
    ) -> dict[str, KeysValues]:
        """Keys and values that layer `number` needs for `readers`, by the stream that is read."""
        kind, layer = self.kinds[number], self.layers[str(number)]
        return {
            stream: items[stream].keys_values.get(str(number))
            or layer.keys_values(stream, states[stream])
            for stream in STREAMS
            if any(stream in kind.reads(reader) for reader in readers)
        }
