"""BridgeTower (Xu et al., AAAI 2023, arXiv 2206.08657): two towers, bridged into cross layers.

RoBERTa and CLIP's vision transformer encode caption and photo. Each layer of the cross-modal
encoder takes up one more layer of both towers: its input is LayerNorm(tap + state), the tap being a
linear map of the tower's states. Both streams read the other as it was before the layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from mmt_jax.configs.config import Config
from mmt_jax.configs.models import BridgeTowerConfig
from mmt_jax.configs.tasks import PAIR, PAIR_OF_PHOTOS
from mmt_jax.errors import UsageError
from mmt_jax.models import checks
from mmt_jax.models.base import Encoded, Fused, Network
from mmt_jax.nn import encoders
from mmt_jax.nn.blocks import linear, split
from mmt_jax.nn.heads import MATCH, AnswerHead, Calibration, RegionHead, unit
from mmt_jax.typing import Array, Image, Params, Text

# How a tap meets the state of the layer before, and where the weight in that begins, if any.
LINKS: dict[str, tuple[Callable[[Array, Array, Array], Array], float | None]] = {
    "add": (lambda tap, state, _: tap + state, None),
    "scaled_add": (lambda tap, state, weight: weight * tap + state, 1.0),
    "interpolate": (lambda tap, state, weight: (1 - weight) * tap + weight * state, 0.5),
}
TEXT, IMAGE = 0, 1  # rows of the token types; a record's second photo has a row of its own


class Bridge(nnx.Module):
    """LayerNorm of a tap and the state of the layer before; "link tower" in the paper's code."""

    def __init__(self, model: BridgeTowerConfig, rngs: nnx.Rngs, *, link: str):
        self.join, first = LINKS[link]
        self.weight = None if first is None else nnx.Param(jnp.asarray(first))
        self.norm = encoders.layer_norm(model.width, model.bridge_eps, rngs)

    def __call__(self, tap: Array, state: Array) -> Array:
        """[P, S, D] twice → [P, S, D]."""
        weight = None if self.weight is None else self.weight[...]
        return self.norm(self.join(tap, state, weight))


class CrossLayer(nnx.Module):
    """Attention to itself, to the other stream, then the MLP; all post-LN."""

    def __init__(self, sizes: encoders.Sizes, rngs: nnx.Rngs):
        self.attention = encoders.Attention(sizes, rngs)
        self.cross = encoders.Attention(sizes, rngs)
        self.mlp = encoders.Mlp(sizes, rngs)


class Stream(nnx.Module):
    """One modality's half of the cross-modal encoder."""

    def __init__(self, model: BridgeTowerConfig, tower_width: int, rngs: nnx.Rngs):
        sizes = encoders.Sizes(
            model.width, model.heads, model.mlp_dim, eps=model.cross_eps, dropout=model.dropout
        )
        numbers = [str(i) for i in range(model.cross_layers)]
        own = numbers[:1] if model.shared_transforms else numbers
        self.transforms = nnx.Dict({i: linear(tower_width, model.width, rngs) for i in own})
        self.first_norm = encoders.layer_norm(model.width, model.bridge_eps, rngs)
        self.bridges = nnx.Dict({i: Bridge(model, rngs, link=model.link) for i in numbers[:-1]})
        self.layers = nnx.Dict({i: CrossLayer(sizes, rngs) for i in numbers})
        self.pooler = linear(model.width, model.width, rngs)

    def tap(self, layer: int, states: Array, kind: Array) -> Array:
        """Tower states [B, S, tower width] as cross layer `layer` takes them, plus `kind` [D]."""
        return self.transforms[str(layer % len(self.transforms))](states) + kind

    def pool(self, states: Array) -> Array:
        """[P, S, D] → [P, D], of the first token."""
        return jnp.tanh(self.pooler(states[:, 0]))


class Contrast(nnx.Module):
    """Heads of the image–text contrast: unit vectors, and what their products are multiplied by.

    The paper's reads what each tower says by itself. Hugging Face's reads the photo as the last
    cross layer takes it, and has a third head, of the pair.
    """

    def __init__(self, model: BridgeTowerConfig, rngs: nnx.Rngs):
        hf = model.itc == "huggingface"
        self.text = linear(model.text_width, model.itc_dim, rngs)
        self.image = linear(model.width if hf else model.image_width, model.itc_dim, rngs)
        if hf:
            self.pair = linear(2 * model.width, model.itc_dim, rngs)
        self.log_scale = nnx.Param(jnp.asarray(-math.log(0.07)))
        # The paper's code keeps the temperature, the scale's inverse, within 0.001 and 0.5.
        self.bounds = (0.0, math.inf) if hf else (2.0, 1000.0)

    def scale(self) -> Array:
        """[] f32."""
        return jnp.clip(jnp.exp(self.log_scale[...].astype(jnp.float32)), *self.bounds)


class BridgeTower(Network):
    """Towers, cross-modal encoder, and the heads that the objective and `itc` ask for.

    Reads captions as `[CLS] … [SEP]` by token ids alone (segments are ignored), and patches of the
    whole photo with values in 0..1.
    """

    itms = ("classification", "contrastive", "none")
    answers_on = (PAIR, PAIR_OF_PHOTOS)

    @classmethod
    def check(cls, config: Config) -> None:
        """See `Network.check`."""
        model = config.model
        checks.heads(model, "", "text", "image")
        checks.grid(model)
        if not 1 <= model.cross_layers <= model.tower_layers:
            raise UsageError(
                f"config.model.cross_layers is {model.cross_layers}; it must be from 1 to "
                f"config.model.tower_layers, {model.tower_layers}: each layer taps one of a tower"
            )
        if model.tied_words and model.text_width != model.width:
            raise UsageError(
                f"config.model.tied_words needs config.model.text_width={model.text_width} to be "
                f"config.model.width={model.width}"
            )
        if config.objective.hloss:
            raise UsageError("config.objective.hloss is not for the family bridgetower; unset it")

    @classmethod
    def embeds(cls, config: Config) -> bool:
        """See `Network.embeds`."""
        return config.model.itc != "none"

    def __init__(self, config: Config, rngs: nnx.Rngs):
        model, objective = config.model, config.objective
        assert isinstance(model, BridgeTowerConfig)
        self.count, self.hf_itc = model.cross_layers, model.itc == "huggingface"
        self.text = encoders.TextEncoder(
            encoders.Tables.roberta(model.vocab_size, model.max_positions, pad_id=model.pad_id),
            encoders.Sizes(
                model.text_width,
                model.text_heads,
                model.text_mlp_dim,
                eps=model.text_eps,
                dropout=model.dropout,
            ),
            model.tower_layers,
            rngs,
        )
        self.image = encoders.VisionEncoder(
            encoders.Sizes(
                model.image_width,
                model.image_heads,
                4 * model.image_width,
                eps=model.image_eps,
                activation="quick_gelu",
                pre_norm=True,
            ),
            model.tower_layers,
            patch_dim=model.feature_dim,
            grid=model.image_size // model.patch_size,
            rngs=rngs,
        )
        photos = checks.photos(config)
        self.types = encoders.table(1 + photos, model.width, rngs)
        self.text_cross = Stream(model, model.text_width, rngs)
        self.image_cross = Stream(model, model.image_width, rngs)
        contrastive = objective.itm == "contrastive"
        if objective.itm != "none":
            # A softmax over candidates cancels a bias: only the two-way answer has one.
            answers = 1 if contrastive else 2
            self.match = linear(2 * model.width, answers, rngs, bias=not contrastive)
        if contrastive:
            self.calibration = Calibration()
        if objective.mlm:
            self.word_head = encoders.WordHead(
                model.width, model.vocab_size, model.head_eps, rngs, tied=model.tied_words
            )
        if objective.mrm:
            self.region_head = RegionHead(model, rngs)
        if model.num_answers:
            width = 2 * model.width * photos
            self.answer_head = AnswerHead(
                width,
                2 * width if photos == 1 else 3 * width // 4,  # 1.5 × what one photo gives
                model.num_answers,
                rngs,
                eps=1e-5,
                norm_first=True,
                dropout=model.dropout if photos > 1 else 0.0,
            )
        if model.itc != "none":
            self.contrast_head = Contrast(model, rngs)

    def text_states(self, text: Text, *, key: jax.Array | None = None) -> list[Array]:
        """States of the text tower after its embedding and each layer, [B, T, text width]."""
        segments = jnp.zeros_like(text.token_ids)
        return self.text(text.token_ids, segments, text.mask, key=key)

    def image_states(self, image: Image, *, key: jax.Array | None = None) -> list[Array]:
        """States of the image tower after its embedding and each layer, [B, 1 + R, image width].

        The class comes first; the tower's last LayerNorm is not in them.
        """
        return self.image(image.features, image.boxes, encoders.with_class(image.mask), key=key)

    def encode_text(self, text: Text, *, key: jax.Array | None = None) -> Encoded:
        """See `Model.encode_text`."""
        key_tower, key_cross = split(key, 2)
        states = self.text_states(text, key=key_tower)
        cls = states[-1][:, 0]
        return self._encode(TEXT, TEXT, states[-self.count :], text.mask, cls, key=key_cross)

    @classmethod
    def adopt(cls, params: Params, wanted: Params) -> Params:
        """See `Model.adopt`: a second photo starts with the token type of the first."""
        types = params["types"]["embedding"]
        missing = max(0, wanted["types"]["embedding"].shape[0] - types.shape[0])
        table = jnp.concatenate([types, *[types[IMAGE:][:1]] * missing])
        return {**params, "types": {"embedding": table}}

    def encode_images(
        self, images: Sequence[Image], *, key: jax.Array | None = None
    ) -> tuple[Encoded, ...]:
        """See `Model.encode_images`."""
        keys = split(key, len(images))
        return tuple(
            self.encode_image(image, key=image_key, kind=IMAGE + place)
            for place, (image, image_key) in enumerate(zip(images, keys))
        )

    def encode_image(
        self, image: Image, *, key: jax.Array | None = None, kind: int = IMAGE
    ) -> Encoded:
        """See `Model.encode_image`; `kind` is a row of the token types."""
        key_tower, key_cross = split(key, 2)
        states = self.image_states(image, key=key_tower)[-self.count :]
        states = [self.image.last_norm(x) for x in states]
        mask, cls = encoders.with_class(image.mask), states[-1][:, 0]
        return self._encode(IMAGE, kind, states, mask, cls, key=key_cross)

    def _streams(self) -> tuple[Stream, Stream]:
        return self.text_cross, self.image_cross

    def _encode(
        self,
        which: int,
        kind: int,
        states: list[Array],
        mask: Array,
        cls: Array,
        *,
        key: jax.Array | None,
    ) -> Encoded:
        """What cross layers take of one item; of the first, all that depends on it alone."""
        own, other = self._streams()[which], self._streams()[1 - which]
        token_type = self.types.embedding[...][kind]
        taps = [own.tap(layer, x, token_type) for layer, x in enumerate(states)]
        first = own.first_norm(taps[0])
        if which == IMAGE and self.hf_itc:
            cls = taps[-1][:, 0]
        return Encoded(
            states=own.layers["0"].attention(first, mask, key=key),
            mask=mask,
            keys_values={"0": other.layers["0"].cross.keys_values(first)},
            heads=(cls,),
            taps=tuple(taps[1:]),
        )

    def cross_states(
        self, text: Encoded, image: Encoded, *, key: jax.Array | None = None
    ) -> list[tuple[Array, Array]]:
        """States of both streams after each cross layer: [P, T, D] and [P, 1 + R, D]."""
        items, streams = (text, image), self._streams()
        # By stream: its states after attention to itself, and the keys and values that the other
        # stream makes of its states before that.
        attended = [item.states for item in items]
        read = [item.keys_values["0"] for item in items]
        trace = []
        keys = iter(split(key, 6 * self.count))
        for i in range(self.count):
            layers = [stream.layers[str(i)] for stream in streams]
            if i:
                inputs = [
                    stream.bridges[str(i - 1)](item.taps[i - 1], state)
                    for stream, item, state in zip(streams, items, trace[-1])
                ]
                attended = [
                    layer.attention(x, item.mask, key=next(keys))
                    for layer, item, x in zip(layers, items, inputs)
                ]
                read = [layer.cross.keys_values(x) for layer, x in zip(reversed(layers), inputs)]
            updated = [
                layer.cross(x, other.mask, read=keys_values, key=next(keys))
                for layer, x, other, keys_values in zip(layers, attended, items[::-1], read[::-1])
            ]
            trace.append(tuple(layer.mlp(x, key=next(keys)) for layer, x in zip(layers, updated)))
        return trace

    def pooled(self, text: Array, image: Array) -> Array:
        """States [P, T, D] and [P, 1 + R, D] after the last layer → [P, 2 D], of the pair."""
        pools = [stream.pool(x) for stream, x in zip(self._streams(), (text, image))]
        return jnp.concatenate(pools, axis=-1)

    def fuse(self, text: Encoded, image: Encoded, *, key: jax.Array | None = None) -> Fused:
        """See `Model.fuse`; without a match head nothing is scored (L = 0)."""
        states = self.cross_states(text, image, key=key)[-1]
        pooled = self.pooled(*states)
        scores, logits = self._match(pooled)
        return Fused(states[0], states[1][:, 1:], scores, logits, pooled)

    def _match(self, pooled: Array) -> tuple[Array, Array]:
        """Pooled vectors [P, 2 D] of pairs → scores [L, P] and logits [L, P, 2], f32."""
        if not hasattr(self, "match"):
            pairs = pooled.shape[0]
            return jnp.zeros((0, pairs)), jnp.zeros((0, pairs, 2))
        out = self.match(pooled).astype(jnp.float32)[None]
        if out.shape[-1] == 1:
            return out[..., 0], self.calibration(out[..., 0])
        return out[..., MATCH] - out[..., 1 - MATCH], out

    def logits(self, scores: Array) -> Array:
        """See `Model.logits`."""
        return self.calibration(scores)

    def words(self, states: Array) -> Array:
        """See `Model.words`."""
        return self.word_head(states, self.text.embed.tokens.embedding[...])

    def regions(self, states: Array) -> Array:
        """See `Model.regions`."""
        return self.region_head(states)

    def embed_text(self, text: Encoded) -> Array:
        """Unit vectors [B, E] f32 of the image–text contrast."""
        return unit(self.contrast_head.text(text.heads[0]))

    def embed_image(self, image: Encoded) -> Array:
        """Unit vectors [B, E] f32 of the image–text contrast."""
        return unit(self.contrast_head.image(image.heads[0]))

    def embed_pair(self, text: Encoded, image: Encoded, *, key: jax.Array | None = None) -> Array:
        """Unit vectors [P, E] f32 of Hugging Face's contrast of pairs with their parts."""
        states = self.cross_states(text, image, key=key)[-1]
        return unit(self.contrast_head.pair(self.pooled(*states)))

    def contrast(self, text: Encoded, image: Encoded, *, key: jax.Array | None = None) -> Array:
        """See `Model.contrast`.

        In the paper's reading captions with photos and back; in Hugging Face's captions with
        photos, captions with pairs, and photos with pairs.
        """
        texts, images = self.embed_text(text), self.embed_image(image)
        if self.hf_itc:
            pairs = self.embed_pair(text, image, key=key)
            products = [texts @ images.T, texts @ pairs.T, images @ pairs.T]
        else:
            products = [texts @ images.T, images @ texts.T]
        return self.contrast_head.scale() * jnp.stack(products)
