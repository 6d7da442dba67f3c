"""The study's models: a language and an image stream that attend to each other layer by layer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from mmt_jax.configs.config import Config
from mmt_jax.configs.tasks import PAIR, PAIR_OF_PHOTOS
from mmt_jax.errors import UsageError
from mmt_jax.models import checks
from mmt_jax.models.base import Encoded, Fused, Network
from mmt_jax.nn.blocks import STREAMS, kinds, split
from mmt_jax.nn.embed import ImageEmbed, TextEmbed
from mmt_jax.nn.heads import AnswerHead, Calibration, Pooler, ProductScore, RegionHead, WordHead
from mmt_jax.nn.streams import Streams, unimodal_depth
from mmt_jax.typing import Array, Image, Text

GLOBAL = -1  # the whole photo is the last region


def check_streams(config: Config) -> None:
    """Refuses unknown kinds of layers, and ITM losses after layers that are not there.

    Raises:
      UsageError: naming the field.
    """
    table = kinds(config.model.layers)
    if config.objective.hloss and not any(kind.multimodal for kind in table):
        raise UsageError(
            "config.objective.hloss puts a loss after every multimodal layer, "
            "but config.model.layers has none",
        )


class MMT(Network):
    """Streams, poolers, match score and the heads of the two masked losses and of a task.

    A task's head reads the product of the two pooled vectors, as ViLBERT's do.
    """

    answers_on = (PAIR, PAIR_OF_PHOTOS)

    @classmethod
    def check(cls, config: Config) -> None:
        """See `Network.check`."""
        check_streams(config)

    @classmethod
    def separable(cls, config: Config) -> bool:
        """See `Network.separable`."""
        table = kinds(config.model.layers)
        return all(unimodal_depth(table, stream) == len(table) for stream in STREAMS)

    def __init__(self, config: Config, rngs: nnx.Rngs):
        model, objective = config.model, config.objective
        self.hloss = objective.hloss
        self.heads = {"text": model.cls_index, "image": GLOBAL}
        self.text = TextEmbed(model, rngs)
        self.image = ImageEmbed(model, rngs)
        self.streams = Streams(model, rngs)
        self.build_score(config, rngs)
        self.scores = objective.itm != "none"
        if objective.itm == "contrastive":
            self.calibration = Calibration()
        if model.num_answers:
            width = checks.photos(config) * model.pooled_dim
            self.answer_head = AnswerHead(width, 2 * width, model.num_answers, rngs, eps=1e-12)
        if objective.mlm:
            self.word_head = WordHead(model, rngs)
        if objective.mrm:
            self.region_head = RegionHead(model, rngs)

    def build_score(self, config: Config, rngs: nnx.Rngs) -> None:
        """Sets `pool_text`, `pool_image` and, where pairs are scored, `score`."""
        self.pool_text = Pooler(config.model, rngs)
        self.pool_image = Pooler(config.model, rngs)
        if config.objective.itm == "none":
            return
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
        heads = tuple(x[:, self.heads[stream]] for x in states) if self.hloss else ()
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
        heads = [tuple(last[stream][:, self.heads[stream]] for stream in STREAMS)]
        if self.hloss:
            heads = [
                tuple(self._head(stream, items[stream], trace, i) for stream in STREAMS)
                for i, kind in enumerate(self.streams.kinds)
                if kind.multimodal
            ]
        pooled = [(self.pool_text(text), self.pool_image(image)) for text, image in heads]
        product = pooled[-1][0] * pooled[-1][1]
        if not self.scores:
            pairs = product.shape[0]
            none = jnp.zeros((0, pairs)), jnp.zeros((0, pairs, 2))
            return Fused(last["text"], last["image"], *none, product)
        scores, logits = zip(
            *(
                self._match(*pair, key=pair_key)
                for pair, pair_key in zip(pooled, split(key_score, len(pooled)))
            )
        )
        return Fused(last["text"], last["image"], jnp.stack(scores), jnp.stack(logits), product)

    def attention(self, text: Encoded, image: Encoded) -> list[Array]:
        """See `Model.attention`."""
        items = {"text": text, "image": image}
        return self.streams.attention(
            {stream: item.states for stream, item in items.items()},
            {stream: item.mask for stream, item in items.items()},
            {stream: item.keys_values for stream, item in items.items()},
        )

    def _head(self, stream: str, item: Encoded, trace: list[dict[str, Array]], layer: int) -> Array:
        """[P, D]: the state that stands for the whole item, after `layer`."""
        if layer < self.streams.depth[stream]:
            return item.heads[layer + 1]
        return trace[layer - self.streams.first_fused][stream][:, self.heads[stream]]

    def _match(self, text: Array, image: Array, *, key: jax.Array | None) -> tuple[Array, Array]:
        """Pooled vectors [P, E] of both streams → score [P] and logits [P, 2], f32."""
        out = self.score(text, image, key=key)
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
        pooled = self.pool_text(text.states[:, self.heads["text"]])
        return self.score.text(pooled).astype(jnp.float32)

    def embed_image(self, image: Encoded) -> Array:
        """See `Model.embed_image`."""
        pooled = self.pool_image(image.states[:, self.heads["image"]])
        return self.score.image(pooled).astype(jnp.float32)
