"""LXMERT (Tan and Bansal, EMNLP 2019, arXiv 1908.07490): two encoders, then cross-modal layers.

Language layers read the caption, object-relation layers the regions; each cross-modal layer lets
both streams attend to each other as they were before it, by one attention that both share, and then
to themselves. Parameters are those of the published checkpoints, one for one.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float

from mmt_jax.configs.config import Config
from mmt_jax.configs.tasks import PAIR, PAIR_OF_PHOTOS
from mmt_jax.errors import UsageError
from mmt_jax.models import checks
from mmt_jax.models.base import Encoded, Fused, Network, sizes, unscored
from mmt_jax.models.lxmert.config import LxmertConfig
from mmt_jax.nn.embed import Tables, TextEncoder
from mmt_jax.nn.heads import AnswerHead, Calibration, RegionHead, WordHead, scored
from mmt_jax.nn.layers import Attention, KeysValues, Layer, Sizes, Stack, numbered, recomputed
from mmt_jax.nn.primitives import LayerNorm, Linear, dropout, split
from mmt_jax.nn.trace import of
from mmt_jax.typing import Array, Image, Key, Text

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


class RegionEncoder(nnx.Module):
    """Embedding and object-relation layers."""

    def __init__(self, model: LxmertConfig, sizes: Sizes, *, dtype: str):
        self.embed = RegionEmbed(model, sizes, dtype=dtype)
        self.stack = Stack(sizes, model.region_layers)

    def __call__(self, image: Image, *, key: Key) -> list[Float[Array, "B R D"]]:
        """States after the embedding and each layer."""
        key_embed, key_stack = split(key, 2)
        return self.stack(self.embed(image, key=key_embed), image.mask, key=key_stack)


class CrossLayer(nnx.Module):
    """Attention to the other stream with shared weights, then a layer of each stream's own."""

    def __init__(self, sizes: Sizes):
        self.cross = Attention(sizes)
        self.text = Layer(sizes)
        self.image = Layer(sizes)

    def __call__(
        self,
        text: Float[Array, "P T D"],
        image: Float[Array, "P R D"],
        masks: tuple[Bool[Array, "P T"], Bool[Array, "P R"]],
        *,
        keys_values: tuple[KeysValues, KeysValues],
        key: Key,
    ) -> tuple[Float[Array, "P T D"], Float[Array, "P R D"]]:
        """States after the layer.

        Args:
          text: states before it.
          image: likewise.
          masks: of text and image.
          keys_values: `cross.keys_values` of text and image.
          key: switches dropout on.
        """
        (text_mask, image_mask), (of_text, of_image) = masks, keys_values
        keys = split(key, 4)
        text = of(self.cross, "text", "image")(text, [(of_image, image_mask)], key=keys[0])
        image = of(self.cross, "image", "text")(image, [(of_text, text_mask)], key=keys[1])
        return (
            of(self.text, "text", "text")(text, text_mask, key=keys[2]),
            of(self.image, "image", "image")(image, image_mask, key=keys[3]),
        )

    def first_token(
        self,
        text: Float[Array, "P T D"],
        masks: tuple[Bool[Array, "P T"], Bool[Array, "P R"]],
        *,
        of_image: KeysValues,
        key: Key,
    ) -> Float[Array, "P 1 D"]:
        """The state of the first token alone after the layer; arguments as above."""
        keys = split(key, 4)
        text = self.cross(text, [(of_image, masks[1])], key=keys[0])
        read = [(self.text.attention.keys_values(text), masks[0])]
        return self.text(text[:, :1], read, key=keys[2])


class Lxmert(Network):
    """Encoders, cross-modal layers, pooler of the first token, and heads."""

    itms = ("classification", "contrastive", "none")
    answers_on = (PAIR, PAIR_OF_PHOTOS)

    @classmethod
    def check(cls, config: Config) -> None:
        checks.heads(config.model, "")
        if config.objective.hloss:
            raise UsageError(
                "config.objective.hloss puts a loss after every layer, which the family lxmert "
                "does not score; set it to False"
            )

    def __init__(self, config: Config):
        model, itm = config.model, config.objective.itm
        assert isinstance(model, LxmertConfig)
        layer = sizes(config, model.width, model.heads, model.mlp_dim)
        tables = Tables(
            model.vocab_size,
            model.max_positions,
            model.segments,
            frozen=("tokens", "positions", "segments"),
        )
        self.text = TextEncoder(tables, layer, model.language_layers, dtype=config.dtype)
        self.image = RegionEncoder(model, layer, dtype=config.dtype)
        self.remat = layer.remat
        self.layers = nnx.Dict({str(i): CrossLayer(layer) for i in range(model.cross_layers)})
        self.pooler = Linear(model.width, model.width)
        two = itm == "classification"  # a softmax over candidates cancels a bias
        self.match = None if itm == "none" else Linear(model.width, 1 + two, bias=two)
        self.calibration = Calibration() if itm == "contrastive" else None
        if config.objective.mlm:
            self.word_head = WordHead(model.width, model.vocab_size)
        if config.objective.mrm:
            parts = {
                "attributes": model.num_attributes or 0,
                "classes": model.num_classes,
                "features": model.regressed,
            }
            self.region_head = RegionHead(model.width, parts)
        if model.num_answers:
            photos = checks.photos(config)
            self.answer_head = AnswerHead(
                photos * model.width, 2 * model.width, model.num_answers, eps=layer.eps
            )

    def text_states(self, text: Text, *, key: Key = None) -> list[Float[Array, "B T D"]]:
        """States of captions after the embedding and each language layer."""
        return self.text(text.token_ids, text.segment_ids, text.mask, key=key)

    def image_states(self, image: Image, *, key: Key = None) -> list[Float[Array, "B R D"]]:
        """States of photos after the embedding and each object-relation layer."""
        return self.image(image, key=key)

    def cross_states(
        self, text: Encoded, image: Encoded, *, key: Key = None, depth: int | None = None
    ) -> list[tuple[Float[Array, "P T D"], Float[Array, "P R D"]]]:
        """States of both streams before the cross-modal layers and after each of the first `depth`.

        None = after each.
        """
        trace = [(text.states, image.states)]
        keys, masks = split(key, len(self.layers)), (text.mask, image.mask)
        for number, layer in enumerate(numbered(self.layers)[:depth]):
            keys_values = self._keys_values(number, layer, text, image, trace[-1])
            step = recomputed(layer, self.remat)
            trace.append(step(*trace[-1], masks, keys_values=keys_values, key=keys[number]))
        return trace

    def _keys_values(
        self,
        number: int,
        layer: CrossLayer,
        text: Encoded,
        image: Encoded,
        states: tuple[Array, Array],
    ) -> tuple[KeysValues, KeysValues]:
        """What cross-modal layer `number` reads; the first one's is known from encoding."""
        of_text, of_image = (
            item.keys_values.get(str(number)) or layer.cross.keys_values(x)
            for item, x in zip((text, image), states)
        )
        return of_text, of_image

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
        """Without a match head nothing is scored (L = 0)."""
        shown: tuple[Any, Any] = (None, None)
        if states or not len(self.layers):
            shown = self.cross_states(text, image, key=key)[-1]
            first = shown[0][:, 0]
        else:
            first = self._first_token(text, image, key=key)
        pooled = jnp.tanh(self.pooler(first, dtype=jnp.float32))
        if self.match is None:
            return Fused(*shown, *unscored(pooled), pooled)
        scores, logits = scored(self.match(pooled), self.calibration)
        return Fused(*shown, scores[None], logits[None], pooled)

    def _first_token(self, text: Encoded, image: Encoded, *, key: Key) -> Float[Array, "P D"]:
        """What the pooler reads: of the last layer nothing else is computed."""
        number = len(self.layers) - 1
        states = self.cross_states(text, image, key=key, depth=number)[-1]
        last, last_key = self.layers[str(number)], split(key, number + 1)[number]
        _, of_image = self._keys_values(number, last, text, image, states)
        step, masks = recomputed(last.first_token, self.remat), (text.mask, image.mask)
        return step(states[0], masks, of_image=of_image, key=last_key)[:, 0]


NETWORK = Lxmert
