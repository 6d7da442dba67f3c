"""The two streams and the seam between them: what is unimodal is encoded, the rest is fused.

A stream is unimodal until the first layer in which it reads the other. Up to there its states, and
the keys and values that the other stream will read, depend on one item alone.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from mmt_jax.configs.config import ModelConfig
from mmt_jax.nn.blocks import STREAMS, Kind, Layer, kinds, split
from mmt_jax.typing import Array

KeysValues = tuple[Array, Array]


def other(stream: str) -> str:
    """The other of the two streams."""
    return STREAMS[1 - STREAMS.index(stream)]


def unimodal_depth(table: tuple[Kind, ...], stream: str) -> int:
    """How many layers `stream` passes before it first reads the other stream."""
    for i, kind in enumerate(table):
        if other(stream) in kind.reads(stream):
            return i
    return len(table)


class Streams(nnx.Module):
    """The layers of both streams."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.kinds = kinds(config.layers)
        self.depth = {stream: unimodal_depth(self.kinds, stream) for stream in STREAMS}
        self.first_fused = min(self.depth.values())
        self.layers = nnx.Dict(
            {str(i): Layer(config, kind, rngs) for i, kind in enumerate(self.kinds)}
        )

    def encode(
        self, stream: str, x: Array, mask: Array, *, key: jax.Array | None
    ) -> tuple[list[Array], dict[str, KeysValues]]:
        """The unimodal layers of `stream` on states `x` [B, S, D].

        Returns:
          The states before the first layer and after each unimodal one, and the keys and values of
          each layer that are made of unimodal states and that the other stream, or a fused layer,
          will read.
        """
        states, keys_values = [x], {}
        keys = split(key, len(self.kinds))
        for i, kind in enumerate(self.kinds):
            unimodal = i < self.depth[stream]
            layer = self.layers[str(i)]
            if kind.is_read(stream):
                own = layer.keys_values(stream, x)
                if stream in kind.reads(other(stream)) or not unimodal:
                    keys_values[str(i)] = own
            if not unimodal:
                break
            if kind.reads(stream):
                x = layer.update(stream, x, [(own, mask)], key=keys[i])
            states.append(x)
        return states, keys_values

    def fuse(
        self,
        states: dict[str, Array],
        masks: dict[str, Array],
        keys_values: dict[str, dict[str, KeysValues]],
        *,
        key: jax.Array | None,
    ) -> list[dict[str, Array]]:
        """The layers from the first fused one on, over P pairs.

        Args:
          states: by stream, [P, S, D] after the stream's unimodal layers.
          masks: by stream, [P, S] bool.
          keys_values: by stream, what `encode` returned.
          key: switches dropout on.

        Returns:
          The states of both streams after each of these layers; a stream that is still unimodal
          there shows its states after the last unimodal one.
        """
        trace = []
        keys = split(key, 2 * len(self.kinds))
        for i in range(self.first_fused, len(self.kinds)):
            kind, layer = self.kinds[i], self.layers[str(i)]
            fused = [stream for stream in STREAMS if i >= self.depth[stream]]
            read = self._read(i, fused, states, keys_values)
            updated = {
                stream: layer.update(
                    stream,
                    states[stream],
                    [(read[source], masks[source]) for source in kind.reads(stream)],
                    key=keys[2 * i + n],
                )
                for n, stream in enumerate(STREAMS)
                if stream in fused and kind.reads(stream)
            }
            states = states | updated
            trace.append(states)
        return trace

    def attention(
        self,
        states: dict[str, Array],
        masks: dict[str, Array],
        keys_values: dict[str, dict[str, KeysValues]],
    ) -> list[Array]:
        """With which weights text reads the image, in each layer in which it does.

        Args are those of `fuse`.

        Returns:
          [P, N, T, R] f32 each; where text reads itself too, they sum to less than 1.
        """
        maps = []
        trace = [states, *self.fuse(states, masks, keys_values, key=None)]
        for i, before in enumerate(trace[:-1], self.first_fused):
            sources = self.kinds[i].text
            if "image" not in sources:
                continue
            read = self._read(i, ["text"], before, keys_values)
            keys = jnp.concatenate([read[source][0] for source in sources], axis=1)
            mask = jnp.concatenate([masks[source] for source in sources], axis=1)
            block = self.layers[str(i)].block("text")
            weights = block.attention.weights(before["text"], keys, mask)
            maps.append(weights[..., -masks["image"].shape[1] :])  # the image is read last
        return maps

    def _read(
        self,
        number: int,
        readers: list[str],
        states: dict[str, Array],
        keys_values: dict[str, dict[str, KeysValues]],
    ) -> dict[str, KeysValues]:
        """Keys and values that layer `number` needs for `readers`, by the stream that is read."""
        kind, layer = self.kinds[number], self.layers[str(number)]
        return {
            stream: known[str(number)]
            if str(number) in (known := keys_values[stream])
            else layer.keys_values(stream, states[stream])
            for stream in STREAMS
            if any(stream in kind.reads(reader) for reader in readers)
        }
