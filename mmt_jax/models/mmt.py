"""The study's models: a language and an image stream that attend to each other layer by layer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from mmt_jax.config import Config
from mmt_jax.models.base import Encoded, Fused, Network
from mmt_jax.nn.blocks import split
from mmt_jax.nn.embed import ImageEmbed, TextEmbed
from mmt_jax.nn.heads import Calibration, Pooler, ProductScore, RegionHead, WordHead
from mmt_jax.nn.streams import Streams
from mmt_jax.typing import Array, Image, Text

HEAD = -1  # [CLS] is the last token, the global region the last region


class MMT(Network):
    """Streams, poolers, match score and the heads of the two masked losses."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        model, objective = config.model, config.objective
        self.hloss = objective.hloss
        self.text = TextEmbed(model, rngs)
        self.image = ImageEmbed(model, rngs)
        self.streams = Streams(model, rngs)
        self.build_score(config, rngs)
        if objective.itm == "contrastive":
            self.calibration = Calibration()
        if objective.mlm:
            self.word_head = WordHead(model, rngs)
        if objective.mrm:
            self.region_head = RegionHead(model, rngs)

    def build_score(self, config: Config, rngs: nnx.Rngs) -> None:
        """Sets `pool_text`, `pool_image` and `score`."""
        self.pool_text = Pooler(config.model, rngs)
        self.pool_image = Pooler(config.model, rngs)
        logits = 1 if config.objective.itm == "contrastive" else 2
        self.score = ProductScore(config.model, logits, rngs)

    def encode_text(self, text: Text, *, key: jax.Array | None = None) -> Encoded:
        """See `Model.encode_text`."""
        key_embed, key_layers = split(key, 2)
        return self._encode("text", self.text(text, key=key_embed), text.mask, key_layers)

    def encode_image(self, image: Image, *, key: jax.Array | None = None) -> Encoded:
        """See `Model.encode_image`."""
        key_embed, key_layers = split(key, 2)
        return self._encode("image", self.image(image, key=key_embed), image.mask, key_layers)

    def _encode(self, stream: str, x: Array, mask: Array, key: jax.Array | None) -> Encoded:
        states, keys_values = self.streams.encode(stream, x, mask, key=key)
        heads = tuple(x[:, HEAD] for x in states) if self.hloss else ()
        return Encoded(states[-1], mask, keys_values, heads)

    def fuse(self, text: Encoded, image: Encoded, *, key: jax.Array | None = None) -> Fused:
        """See `Model.fuse`."""
        key_layers, key_score = split(key, 2)
        items = {"text": text, "image": image}
        trace = self.streams.fuse(
            {stream: item.states for stream, item in items.items()},
            {stream: item.mask for stream, item in items.items()},
            {stream: item.keys_values for stream, item in items.items()},
            key=key_layers,
        )
        last = trace[-1] if trace else {s: item.states for s, item in items.items()}
        heads = [(last["text"][:, HEAD], last["image"][:, HEAD])]
        if self.hloss:
            heads = [
                tuple(self._head(stream, items[stream], trace, i) for stream in ("text", "image"))
                for i, kind in enumerate(self.streams.kinds)
                if kind.multimodal
            ]
        scores, logits = zip(
            *(
                self._match(*pair, key=pair_key)
                for pair, pair_key in zip(heads, split(key_score, len(heads)))
            )
        )
        return Fused(last["text"], last["image"], jnp.stack(scores), jnp.stack(logits))

    def _head(self, stream: str, item: Encoded, trace: list[dict[str, Array]], layer: int) -> Array:
        """[P, D]: the state that stands for the whole item, after `layer`."""
        if layer < self.streams.depth[stream]:
            return item.heads[layer + 1]
        return trace[layer - self.streams.first_fused][stream][:, HEAD]

    def _match(self, text: Array, image: Array, *, key: jax.Array | None) -> tuple[Array, Array]:
        """Heads [P, D] of both streams → score [P] and logits [P, 2], f32."""
        out = self.score(self.pool_text(text), self.pool_image(image), key=key)
        out = out.astype(jnp.float32)
        if out.ndim == 1:
            return out, self.calibration(out)
        return out[:, 0] - out[:, 1], out

    def logits(self, scores: Array) -> Array:
        """See `Model.logits`."""
        return self.calibration(scores)

    def words(self, states: Array) -> Array:
        """See `Model.words`."""
        return self.word_head(states, self.text.tokens.embedding[...])

    def regions(self, states: Array) -> Array:
        """See `Model.regions`."""
        return self.region_head(states)

    def embed_text(self, text: Encoded) -> Array:
        """See `Model.embed_text`."""
        return self.score.text(self.pool_text(text.states[:, HEAD])).astype(jnp.float32)

    def embed_image(self, image: Encoded) -> Array:
        """See `Model.embed_image`."""
        return self.score.image(self.pool_image(image.states[:, HEAD])).astype(jnp.float32)
