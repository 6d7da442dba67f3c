"""LXMERT (Tan and Bansal, EMNLP 2019, arXiv 1908.07490): two encoders, then cross-modal layers.

Language layers read the caption, object-relation layers the regions; each cross-modal layer lets
both streams attend to each other as they were before it, by one attention that both share, and then
to themselves. Parameters are those of the published checkpoints, one for one.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx

from mmt_jax.configs.config import Config
from mmt_jax.configs.models import LxmertConfig
from mmt_jax.configs.tasks import PAIR, PAIR_OF_PHOTOS
from mmt_jax.errors import UsageError
from mmt_jax.models import checks
from mmt_jax.models.base import Encoded, Fused, Network
from mmt_jax.nn import encoders
from mmt_jax.nn.blocks import dropout, linear, split
from mmt_jax.nn.heads import MATCH, AnswerHead, Calibration, WordHead
from mmt_jax.typing import Array, Image, Text

CORNERS = (1, 0, 3, 2)  # of a record's box, in LXMERT's order: x1, y1, x2, y2
EPS = 1e-12  # of every LayerNorm


class RegionEmbed(nnx.Module):
    """The mean of two LayerNorms, of the features' and of the box's linear map."""

    def __init__(self, model: LxmertConfig, sizes: encoders.Sizes, rngs: nnx.Rngs):
        self.rate = sizes.dropout
        self.features = linear(model.feature_dim, sizes.width, rngs)
        # Of a hidden region only the bias is left. Were that constant, LayerNorm would divide by
        # its eps: gradients of 1e5, before which all others vanish in the norm that is clipped.
        spread = 0.02 * math.sqrt(2 * 768 / sizes.width)
        self.features.bias = nnx.Param(spread * jnp.cos(jnp.arange(sizes.width, dtype=jnp.float32)))
        self.features_norm = encoders.layer_norm(sizes.width, sizes.eps, rngs)
        self.boxes = linear(len(CORNERS), sizes.width, rngs)
        self.boxes_norm = encoders.layer_norm(sizes.width, sizes.eps, rngs)

    def __call__(self, image: Image, *, key: jax.Array | None) -> Array:
        """[B, R, F] and [B, R, 5] → [B, R, D]."""
        dtype = self.features.kernel.dtype  # that of the computation; records are float32
        features = self.features_norm(self.features(image.features.astype(dtype)))
        boxes = jnp.take(image.boxes, jnp.array(CORNERS), axis=-1).astype(dtype)
        x = (features + self.boxes_norm(self.boxes(boxes))) / 2
        return dropout(x, self.rate, key)


class RegionEncoder(nnx.Module):
    """Embedding and object-relation layers."""

    def __init__(self, model: LxmertConfig, sizes: encoders.Sizes, rngs: nnx.Rngs):
        self.embed = RegionEmbed(model, sizes, rngs)
        self.stack = encoders.Stack(sizes, model.region_layers, rngs)

    def __call__(self, image: Image, *, key: jax.Array | None) -> list[Array]:
        """States after the embedding and each layer, [B, R, D]."""
        key_embed, key_stack = split(key, 2)
        return self.stack(self.embed(image, key=key_embed), image.mask, key=key_stack)


class CrossLayer(nnx.Module):
    """Attention to the other stream with shared weights, then a layer of each stream's own."""

    def __init__(self, sizes: encoders.Sizes, rngs: nnx.Rngs):
        self.cross = encoders.Attention(sizes, rngs)
        self.text = encoders.Layer(sizes, rngs)
        self.image = encoders.Layer(sizes, rngs)

    def __call__(
        self,
        text: Array,
        image: Array,
        masks: tuple[Array, Array],
        *,
        keys_values: tuple[encoders.KeysValues, encoders.KeysValues],
        key: jax.Array | None,
    ) -> tuple[Array, Array]:
        """States [P, T, D] and [P, R, D] after the layer.

        Args:
          text: [P, T, D].
          image: [P, R, D].
          masks: of text and image, bool.
          keys_values: `cross.keys_values` of text and image.
          key: switches dropout on.
        """
        (text_mask, image_mask), (of_text, of_image) = masks, keys_values
        keys = split(key, 4)
        text = self.cross(text, image_mask, read=of_image, key=keys[0])
        image = self.cross(image, text_mask, read=of_text, key=keys[1])
        return self.text(text, text_mask, key=keys[2]), self.image(image, image_mask, key=keys[3])


class RegionHead(nnx.Module):
    """Detector classes and attributes of a region, and its features, where each is trained."""

    def __init__(self, model: LxmertConfig, rngs: nnx.Rngs):
        self.dense = linear(model.width, model.width, rngs)
        self.norm = encoders.layer_norm(model.width, EPS, rngs)
        dims = {
            "attributes": model.num_attributes,
            "classes": model.num_classes,
            "features": model.regressed,
        }
        self.outs = nnx.Dict({n: linear(model.width, dim, rngs) for n, dim in dims.items() if dim})

    def __call__(self, states: Array) -> dict[str, Array]:
        """[..., D] → class logits, attribute logits and features, [..., C], [..., A], [..., F]."""
        x = self.norm(encoders.gelu(self.dense(states)))
        return {name: out(x) for name, out in self.outs.items()}


class Lxmert(Network):
    """Encoders, cross-modal layers, pooler of the first token, and heads."""

    itms = ("classification", "contrastive", "none")
    answers_on = (PAIR, PAIR_OF_PHOTOS)

    @classmethod
    def check(cls, config: Config) -> None:
        """See `Network.check`."""
        checks.heads(config.model, "")
        if config.objective.hloss:
            raise UsageError(
                "config.objective.hloss puts a loss after every layer, which the family lxmert "
                "does not score; set it to False"
            )

    def __init__(self, config: Config, rngs: nnx.Rngs):
        model, itm = config.model, config.objective.itm
        assert isinstance(model, LxmertConfig)
        sizes = encoders.Sizes(
            model.width, model.heads, model.mlp_dim, eps=EPS, dropout=model.dropout
        )
        tables = encoders.Tables(
            model.vocab_size,
            model.max_positions,
            model.segments,
            frozen=("tokens", "positions", "segments"),
        )
        self.text = encoders.TextEncoder(tables, sizes, model.language_layers, rngs)
        self.image = RegionEncoder(model, sizes, rngs)
        self.layers = nnx.Dict({str(i): CrossLayer(sizes, rngs) for i in range(model.cross_layers)})
        self.pooler = linear(model.width, model.width, rngs)
        self.scores = itm != "none"
        if itm == "classification":
            self.match = linear(model.width, 2, rngs)
        if itm == "contrastive":
            # A softmax over candidates cancels a bias.
            self.match = linear(model.width, 1, rngs, bias=False)
            self.calibration = Calibration()
        if config.objective.mlm:
            self.word_head = WordHead(model, rngs)
        if config.objective.mrm:
            self.region_head = RegionHead(model, rngs)
        if model.num_answers:
            photos = checks.photos(config)
            self.answer_head = AnswerHead(
                photos * model.width, 2 * model.width, model.num_answers, rngs, eps=EPS
            )

    def text_states(self, text: Text, *, key: jax.Array | None = None) -> list[Array]:
        """States of captions after the embedding and each language layer, [B, T, D]."""
        return self.text(text.token_ids, text.segment_ids, text.mask, key=key)

    def image_states(self, image: Image, *, key: jax.Array | None = None) -> list[Array]:
        """States of photos after the embedding and each object-relation layer, [B, R, D]."""
        return self.image(image, key=key)

    def cross_states(
        self, text: Encoded, image: Encoded, *, key: jax.Array | None = None
    ) -> list[tuple[Array, Array]]:
        """States of both streams before the cross-modal layers and after each of them."""
        trace = [(text.states, image.states)]
        keys = split(key, len(self.layers))
        for number, (layer, layer_key) in enumerate(zip(encoders.numbered(self.layers), keys)):
            of_text, of_image = (
                item.keys_values.get(str(number)) or layer.cross.keys_values(states)
                for item, states in zip((text, image), trace[-1])
            )
            masks = text.mask, image.mask
            trace.append(layer(*trace[-1], masks, keys_values=(of_text, of_image), key=layer_key))
        return trace

    def encode_text(self, text: Text, *, key: jax.Array | None = None) -> Encoded:
        """See `Model.encode_text`."""
        return self._encoded(self.text_states(text, key=key)[-1], text.mask)

    def encode_image(self, image: Image, *, key: jax.Array | None = None) -> Encoded:
        """See `Model.encode_image`."""
        return self._encoded(self.image_states(image, key=key)[-1], image.mask)

    def _encoded(self, states: Array, mask: Array) -> Encoded:
        """What the first cross-modal layer reads of an item is known before it meets another."""
        layers = encoders.numbered(self.layers)[:1]
        first = {str(n): layer.cross.keys_values(states) for n, layer in enumerate(layers)}
        return Encoded(states, mask, first, ())

    def fuse(self, text: Encoded, image: Encoded, *, key: jax.Array | None = None) -> Fused:
        """See `Model.fuse`; without a match head nothing is scored (L = 0)."""
        states = self.cross_states(text, image, key=key)[-1]
        pairs = text.mask.shape[0]  # symbolic when exported
        scores, logits = jnp.zeros((0, pairs)), jnp.zeros((0, pairs, 2))
        pooled = jnp.tanh(self.pooler(states[0][:, 0]))
        if self.scores:
            out = self.match(pooled).astype(jnp.float32)[None]
            if out.shape[-1] == 1:
                scores, logits = out[..., 0], self.calibration(out[..., 0])
            else:
                scores, logits = out[..., MATCH] - out[..., 1 - MATCH], out
        return Fused(*states, scores, logits, pooled)

    def logits(self, scores: Array) -> Array:
        """See `Model.logits`."""
        return self.calibration(scores)

    def words(self, states: Array) -> Array:
        """See `Model.words`."""
        return self.word_head(states, self.text.embed.tokens.embedding[...])

    def regions(self, states: Array) -> Array:
        """See `Model.regions`."""
        outputs = self.region_head(states)
        return jnp.concatenate(
            [outputs[name] for name in ("classes", "features") if name in outputs], axis=-1
        )

    def attributes(self, states: Array) -> Array:
        """See `Model.attributes`."""
        return self.region_head(states)["attributes"]

    def attention(self, text: Encoded, image: Encoded) -> list[Array]:
        """See `Model.attention`."""
        return [
            layer.cross.weights(x, layer.cross.keys_values(y)[0], image.mask)
            for layer, (x, y) in zip(encoders.numbered(self.layers), self.cross_states(text, image))
        ]

    def trace(self, text: Text, image: Image) -> dict[str, list[Array]]:
        """All that happens to P pairs, for looking at it.

        Returns:
          `text` and `image`: the states after the embedding and after each layer, [P, S, D].
          `text_attention`, `image_attention`: the weights with which each unimodal layer reads,
          [P, N, S, S]; `text_to_image`, `image_to_text`: those of each cross-modal layer, [P, N, T,
          R] and [P, N, R, T].
        """
        texts, images = self.text_states(text), self.image_states(image)
        encoded = self._encoded(texts[-1], text.mask), self._encoded(images[-1], image.mask)
        cross = self.cross_states(*encoded)
        found = {
            "text": texts + [pair[0] for pair in cross[1:]],
            "image": images + [pair[1] for pair in cross[1:]],
            "text_attention": _maps(self.text.stack, texts, text.mask),
            "image_attention": _maps(self.image.stack, images, image.mask),
            "text_to_image": [],
            "image_to_text": [],
        }
        for layer, (x, y) in zip(encoders.numbered(self.layers), cross):
            (of_text, _), (of_image, _) = map(layer.cross.keys_values, (x, y))
            found["text_to_image"].append(layer.cross.weights(x, of_image, image.mask))
            found["image_to_text"].append(layer.cross.weights(y, of_text, text.mask))
        return found


def _maps(stack: encoders.Stack, states: list[Array], mask: Array) -> list[Array]:
    """With which weights each layer of `stack` reads the states before it."""
    attentions = [layer.attention for layer in encoders.numbered(stack.layers)]
    return [
        attention.weights(x, attention.keys_values(x)[0], mask)
        for attention, x in zip(attentions, states)
    ]
