"""LXMERT (Tan and Bansal, EMNLP 2019, arXiv 1908.07490): two encoders, then cross-modal layers.

Language layers read the caption, object-relation layers the regions; each cross-modal layer lets
both streams attend to each other as they were before it, by one attention that both share, and then
to themselves. Parameters are those of the published checkpoints, one for one.
"""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float

from mmt_jax.configs.config import Config
from mmt_jax.configs.tasks import PAIR, PAIR_OF_PHOTOS
from mmt_jax.models import checks
from mmt_jax.models.base import Encoded, Fused, Network, sizes
from mmt_jax.models.lxmert.config import LxmertConfig
from mmt_jax.nn.embed import Encoder, Tables, TextEncoder
from mmt_jax.nn.heads import AnswerHead
from mmt_jax.nn.layers import Attention, Layer, Sizes, Stack, numbered, recomputed
from mmt_jax.nn.primitives import LayerNorm, Linear, dropout, split
from mmt_jax.nn.trace import of
from mmt_jax.typing import Array, Image, Key, KeysValues, Text

CORNERS = (1, 0, 3, 2)  # of a record's box, in LXMERT's order: x1, y1, x2, y2


class RegionEmbed(nnx.Module):
    """The mean of two LayerNorms, of the features' and of the box's linear map."""

    def __init__(self, model: LxmertConfig, sizes: Sizes, *, dtype: str):
        self.rate, self.dtype = sizes.dropout, dtype
        self.features = Linear(model.feature_dim, sizes.width)
        # Of a hidden region only the bias is left. Were that constant, LayerNorm would divide by
        # its eps: gradients of 1e5, before which all others vanish in the norm that is clipped.
        spread = 0.02 * math.sqrt(2 * 768 / sizes.width)
        self.features.bias = nnx.Param(spread * jnp.cos(jnp.arange(sizes.width, dtype=jnp.float32)))
        self.features_norm = LayerNorm(sizes.width, sizes.eps)
        self.boxes = Linear(len(CORNERS), sizes.width)
        self.boxes_norm = LayerNorm(sizes.width, sizes.eps)

    def __call__(self, image: Image, *, key: Key) -> Float[Array, "B R D"]:
        boxes = jnp.take(image.boxes, jnp.array(CORNERS), axis=-1)
        features = self.features_norm(self.features(image.features.astype(self.dtype)))
        x = (features + self.boxes_norm(self.boxes(boxes.astype(self.dtype)))) / 2
        return dropout(x, self.rate, key)


class CrossLayer(nnx.Module):
    """Attention to the other stream with shared weights, then a layer of each stream's own."""

    def __init__(self, sizes: Sizes):
        self.cross = Attention(sizes)
        self.text = Layer(sizes)
        self.image = Layer(sizes)

    def __call__(
        self,
        states: tuple[Float[Array, "P T D"], Float[Array, "P R D"]],
        masks: tuple[Bool[Array, "P T"], Bool[Array, "P R"]],
        *,
        keys_values: tuple[KeysValues, KeysValues],
        key: Key,
        whole: bool = True,
    ) -> tuple[Float[Array, "P _ D"], Float[Array, "P R D"]]:
        """States of text and image after the layer, whose `cross.keys_values` are known.

        If not `whole`, of text the first token's alone, and nothing of the image is computed.
        """
        (text, image), (of_text, of_image), keys = states, keys_values, split(key, 4)
        own_text, own_image = of(self.text, "text", "text"), of(self.image, "image", "image")
        text = of(self.cross, "text", "image")(text, [(of_image, masks[1])], key=keys[0])
        if not whole:
            read = [(self.text.attention.keys_values(text), masks[0])]
            return own_text(text[:, :1], read, key=keys[2]), image
        image = of(self.cross, "image", "text")(image, [(of_text, masks[0])], key=keys[1])
        return own_text(text, masks[0], key=keys[2]), own_image(image, masks[1], key=keys[3])


class Lxmert(Network):
    """Encoders, cross-modal layers, pooler of the first token, and heads."""

    itms = ("classification", "contrastive", "none")
    answers_on = (PAIR, PAIR_OF_PHOTOS)

    @classmethod
    def check(cls, config: Config) -> None:
        checks.heads(config.model, "")

    def __init__(self, config: Config):
        model = config.model
        assert isinstance(model, LxmertConfig)
        layer = sizes(config, model.width, model.heads, model.mlp_dim)
        tables = Tables(
            model.vocab_size,
            model.max_positions,
            model.segments,
            frozen=("tokens", "positions", "segments"),
        )
        self.text = TextEncoder(tables, layer, model.language_layers, dtype=config.dtype)
        regions = RegionEmbed(model, layer, dtype=config.dtype)
        self.image = Encoder(regions, Stack(layer, model.region_layers))
        self.remat = layer.remat
        self.layers = nnx.Dict({str(i): CrossLayer(layer) for i in range(model.cross_layers)})
        self.pooler = Linear(model.width, model.width)
        self.build_match(config, model.width)
        self.build_masked(config)
        if model.num_answers:
            photos = checks.photos(config)
            self.answer_head = AnswerHead(
                photos * model.width, 2 * model.width, model.num_answers, eps=layer.eps
            )

    def cross_states(
        self, text: Encoded, image: Encoded, *, key: Key = None, states: bool = True
    ) -> list[tuple[Float[Array, "P _ D"], Float[Array, "P R D"]]]:
        """States of both streams before the cross-modal layers and after each.

        Without `states`, of those after the last layer the first token's alone are right.
        """
        items, trace = (text, image), [(text.states, image.states)]
        keys, masks = split(key, len(self.layers)), (text.mask, image.mask)
        for number, layer in enumerate(numbered(self.layers)):
            keys_values = tuple(  # the first layer's are known from encoding
                item.keys_values.get(str(number)) or layer.cross.keys_values(x)
                for item, x in zip(items, trace[-1])
            )
            whole = states or number + 1 < len(self.layers)
            step = recomputed(functools.partial(layer, whole=whole), self.remat)
            trace.append(step(trace[-1], masks, keys_values=keys_values, key=keys[number]))
        return trace

    def encode_text(self, text: Text, *, key: Key = None) -> Encoded:
        return self._encoded(self.text_states(text, key=key)[-1], text.mask)

    def encode_image(self, image: Image, *, key: Key = None) -> Encoded:
        return self._encoded(self.image_states(image, key=key)[-1], image.mask)

    def _encoded(self, states: Float[Array, "B S D"], mask: Bool[Array, "B S"]) -> Encoded:
        """What the first cross-modal layer reads of an item is known before it meets another."""
        layers = numbered(self.layers)[:1]
        first = {str(n): layer.cross.keys_values(states) for n, layer in enumerate(layers)}
        return Encoded(states, mask, first, ())

    def fuse(self, text: Encoded, image: Encoded, *, key: Key = None, states: bool = True) -> Fused:
        last = self.cross_states(text, image, key=key, states=states)[-1]
        pooled = jnp.tanh(self.pooler(last[0][:, 0], dtype=jnp.float32))
        return self.judged(last if states else (None, None), self.matched(pooled), pooled)


NETWORK = Lxmert
