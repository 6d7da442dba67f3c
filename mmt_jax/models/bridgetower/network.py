"""BridgeTower (Xu et al., AAAI 2023, arXiv 2206.08657): two towers, bridged into cross layers.

RoBERTa and CLIP's vision transformer encode caption and photo. Each layer of the cross-modal
encoder takes up one more layer of both towers: its input is LayerNorm(tap + state), the tap being a
linear map of the tower's states. Both streams read the other as it was before the layer.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Float32

from mmt_jax.configs.config import Config
from mmt_jax.configs.tasks import PAIR, PAIR_OF_PHOTOS
from mmt_jax.errors import UsageError
from mmt_jax.models import checks
from mmt_jax.models.base import Encoded, Fused, Network, sizes
from mmt_jax.models.bridgetower.config import BridgeTowerConfig
from mmt_jax.nn import trace
from mmt_jax.nn.embed import Tables, TextEncoder
from mmt_jax.nn.heads import AnswerHead
from mmt_jax.nn.kinds import STREAMS
from mmt_jax.nn.layers import Attention, Mlp, Read, Sizes, recomputed
from mmt_jax.nn.places import P
from mmt_jax.nn.primitives import LayerNorm, Linear, Table, beside, split, unit
from mmt_jax.nn.vision import VisionEncoder, with_class
from mmt_jax.typing import Array, Image, Key, Params, Text

# How a tap meets the state of the layer before, and where the weight in that begins, if any.
LINKS: dict[str, tuple[Callable[[Array, Array, Any], Array], float | None]] = {
    "add": (lambda tap, state, _: tap + state, None),
    "scaled_add": (lambda tap, state, weight: weight * tap + state, 1.0),
    "interpolate": (lambda tap, state, weight: (1 - weight) * tap + weight * state, 0.5),
}
TEXT, IMAGE = 0, 1  # rows of the token types; a record's second photo has a row of its own


class Bridge(nnx.Module):
    """LayerNorm of a tap and the state of the layer before; "link tower" in the paper's code."""

    def __init__(self, model: BridgeTowerConfig):
        self.join, first = LINKS[model.link]
        self.weight = None if first is None else nnx.Param(jnp.asarray(first))
        self.norm = LayerNorm(model.width, model.bridge_eps)

    def __call__(
        self, tap: Float[Array, "P S D"], state: Float[Array, "P S D"]
    ) -> Float[Array, "P S D"]:
        if self.weight is None:
            return self.norm(self.join(tap, state, None))
        # In float32: small steps of the weight count.
        joined = self.join(tap.astype(jnp.float32), state.astype(jnp.float32), self.weight[...])
        return self.norm(joined.astype(tap.dtype))


class CrossLayer(nnx.Module):
    """Attention to itself, to the other stream, then the MLP; all post-LN."""

    def __init__(self, sizes: Sizes):
        self.attention = Attention(sizes)
        self.cross = Attention(sizes)
        self.mlp = Mlp(sizes)

    def __call__(
        self, x: Float[Array, "P S D"], other: Read, *, keys: Sequence[Key]
    ) -> Float[Array, "P S D"]:
        """States after attention to itself, and what is read of the other stream → those after."""
        return trace.states(self.mlp(self.cross(x, [other], key=keys[0]), key=keys[1]))


class Stream(nnx.Module):
    """One modality's half of the cross-modal encoder."""

    def __init__(self, config: Config, tower_width: int):
        model = config.model
        assert isinstance(model, BridgeTowerConfig)
        own = sizes(config, model.width, model.heads, model.mlp_dim, eps=model.cross_eps)
        self.remat = own.remat
        numbers = [str(i) for i in range(model.cross_layers)]
        maps = numbers[:1] if model.shared_transforms else numbers
        self.transforms = nnx.Dict({i: Linear(tower_width, model.width) for i in maps})
        self.first_norm = LayerNorm(model.width, model.bridge_eps)
        self.bridges = nnx.Dict({i: Bridge(model) for i in numbers[:-1]})
        self.layers = nnx.Dict({i: CrossLayer(own) for i in numbers})
        self.pooler = Linear(model.width, model.width)

    def tap(
        self, layer: int, states: Float[Array, "B S W"], kind: Float[Array, " D"]
    ) -> Float[Array, "B S D"]:
        """Tower states as cross layer `layer` takes them, plus `kind`."""
        tapped = self.transforms[str(layer % len(self.transforms))](states)
        return tapped + beside(kind, tapped).astype(states.dtype)

    def pool(self, states: Float[Array, "P S D"]) -> Float32[Array, "P D"]:
        """Of the first token."""
        return jnp.tanh(self.pooler(states[:, 0], dtype=jnp.float32))


class Contrast(nnx.Module):
    """Heads of the image–text contrast: unit vectors, and what their products are multiplied by.

    The paper's reads what each tower says by itself. Hugging Face's reads the photo as the last
    cross layer takes it, and has a third head, of the pair.
    """

    def __init__(self, model: BridgeTowerConfig):
        hf = model.itc == "huggingface"
        self.text = Linear(model.text_width, model.itc_dim)
        self.image = Linear(model.width if hf else model.image_width, model.itc_dim)
        if hf:
            self.pair = Linear(2 * model.width, model.itc_dim)
        self.log_scale = nnx.Param(jnp.asarray(-math.log(0.07)))
        # The paper's code keeps the temperature, the scale's inverse, within 0.001 and 0.5.
        self.bounds = (0.0, math.inf) if hf else (2.0, 1000.0)

    def scale(self) -> Float32[Array, ""]:
        """What products are multiplied by."""
        return jnp.clip(jnp.exp(self.log_scale[...]), *self.bounds)


class BridgeTower(Network):
    """Towers, cross-modal encoder, and the heads that the objective and `itc` ask for.

    Reads captions as `[CLS] … [SEP]` by token ids alone (segments are ignored), and patches of the
    whole photo with values in 0..1.
    """

    itms = ("classification", "contrastive", "none")
    answers_on = (PAIR, PAIR_OF_PHOTOS)
    places = (
        (r"types/embedding", P()),
        (r".*/transforms/\d+/(kernel|bias)", P("data")),
        (r".*/bridges/\d+/weight", P()),
        (r"contrast_head/(text|image|pair)/(kernel|bias)", P("data")),
        (r"contrast_head/log_scale", P()),
    )

    @classmethod
    def check(cls, config: Config) -> None:
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

    @classmethod
    def embeds(cls, config: Config) -> bool:
        return config.model.itc != "none"

    def __init__(self, config: Config):
        model = config.model
        assert isinstance(model, BridgeTowerConfig)
        self.count, self.hf_itc = model.cross_layers, model.itc == "huggingface"
        text, image = model.text_width, model.image_width
        self.text = TextEncoder(
            Tables.roberta(model.vocab_size, model.max_positions, pad_id=model.pad_id),
            sizes(config, text, model.text_heads, model.text_mlp_dim, eps=model.text_eps),
            model.tower_layers,
            dtype=config.dtype,
        )
        self.image = VisionEncoder(
            sizes(
                config,
                image,
                model.image_heads,
                4 * image,
                eps=model.image_eps,
                activation="quick_gelu",
                pre_norm=True,
                dropout=0.0,
                attention_dropout=0.0,
            ),
            model.tower_layers,
            patch_dim=model.feature_dim,
            grid=model.image_size // model.patch_size,
            dtype=config.dtype,
        )
        photos = checks.photos(config)
        self.types = Table(1 + photos, model.width)
        self.text_cross = Stream(config, text)
        self.image_cross = Stream(config, image)
        self.build_match(config, 2 * model.width)
        self.build_masked(config, eps=model.head_eps, tied=model.tied_words)
        if model.num_answers:
            width = 2 * model.width * photos
            self.answer_head = AnswerHead(
                width,
                2 * width if photos == 1 else 3 * width // 4,  # 1.5 × what one photo gives
                model.num_answers,
                eps=1e-5,
                norm_first=True,
                dropout=model.dropout if photos > 1 else 0.0,
            )
        if model.itc != "none":
            self.contrast_head = Contrast(model)

    def text_states(self, text: Text, *, key: Key = None) -> list[Float[Array, "B T W"]]:
        """RoBERTa has one segment."""
        one = dataclasses.replace(text, segment_ids=jnp.zeros_like(text.token_ids))
        return self.text(one, key=key)

    def encode_text(self, text: Text, *, key: Key = None) -> Encoded:
        key_tower, key_cross = split(key, 2)
        states = self.text_states(text, key=key_tower)
        cls = states[-1][:, 0]
        return self._encode(TEXT, TEXT, states[-self.count :], text.mask, cls, key=key_cross)

    @classmethod
    def adopt(cls, params: Params, wanted: Params) -> Params:
        """A second photo starts with the token type of the first."""
        types = params["types"]["embedding"]
        missing = max(0, wanted["types"]["embedding"].shape[0] - types.shape[0])
        table = jnp.concatenate([types, *[types[IMAGE:][:1]] * missing])
        return {**params, "types": {"embedding": table}}

    def encode_images(self, images: Sequence[Image], *, key: Key = None) -> tuple[Encoded, ...]:
        keys = split(key, len(images))
        return tuple(
            self.encode_image(image, key=image_key, kind=IMAGE + place)
            for place, (image, image_key) in enumerate(zip(images, keys))
        )

    def encode_image(self, image: Image, *, key: Key = None, kind: int = IMAGE) -> Encoded:
        """`kind` is a row of the token types."""
        key_tower, key_cross = split(key, 2)
        states = self.image_states(image, key=key_tower)[-self.count :]
        states = [self.image.last_norm(x) for x in states]
        mask, cls = with_class(image.mask), states[-1][:, 0]
        return self._encode(IMAGE, kind, states, mask, cls, key=key_cross)

    def _streams(self) -> tuple[Stream, Stream]:
        return self.text_cross, self.image_cross

    def _encode(
        self,
        which: int,
        kind: int,
        states: list[Float[Array, "B S W"]],
        mask: Bool[Array, "B S"],
        cls: Float[Array, "B W"],
        *,
        key: Key,
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
        self, text: Encoded, image: Encoded, *, key: Key = None, states: bool = True
    ) -> list[tuple[Float[Array, "P T D"], Float[Array, "P S D"]]]:
        """States of both streams after each cross layer, the photo's class first.

        Without `states`, those of the first tokens alone after the last layer.
        """
        items, streams = (text, image), self._streams()
        # By stream: its states after attention to itself, and the keys and values that the other
        # stream makes of its states before that.
        attended = [item.states for item in items]
        read = [item.keys_values["0"] for item in items]
        after = []
        keys = iter(split(key, 6 * self.count))
        for i in range(self.count):
            layers = [stream.layers[str(i)] for stream in streams]
            wanted = slice(None) if states or i < self.count - 1 else slice(1)
            if i:
                inputs = [
                    stream.bridges[str(i - 1)](item.taps[i - 1], state)
                    for stream, item, state in zip(streams, items, after[-1])
                ]
                own = [layer.attention.keys_values(x) for layer, x in zip(layers, inputs)]
                attended = [
                    recomputed(trace.of(layer.attention, name, name), self.text_cross.remat)(
                        x[:, wanted], [(keys_values, item.mask)], key=next(keys)
                    )
                    for name, layer, item, x, keys_values in zip(
                        STREAMS, layers, items, inputs, own
                    )
                ]
                read = [layer.cross.keys_values(x) for layer, x in zip(reversed(layers), inputs)]
            else:
                attended = [x[:, wanted] for x in attended]
            updated = []
            for name, source, layer, x, other, keys_values in zip(
                STREAMS, STREAMS[::-1], layers, attended, items[::-1], read[::-1]
            ):
                step = recomputed(trace.of(layer, name, source), self.text_cross.remat)
                step_keys = next(keys), next(keys)
                updated.append(step(x, (keys_values, other.mask), keys=step_keys))
            after.append((updated[0], updated[1]))
        return after

    def pooled(
        self, text: Float[Array, "P T D"], image: Float[Array, "P S D"]
    ) -> Float32[Array, "P 2*D"]:
        """States after the last layer → those of the pair."""
        pools = [
            trace.pooled(name, stream.pool(x))
            for name, stream, x in zip(STREAMS, self._streams(), (text, image))
        ]
        return jnp.concatenate(pools, axis=-1)

    def fuse(self, text: Encoded, image: Encoded, *, key: Key = None, states: bool = True) -> Fused:
        last = self.cross_states(text, image, key=key, states=states)[-1]
        pooled = self.pooled(*last)
        shown = (last[0], last[1][:, 1:]) if states else (None, None)
        return self.judged(shown, self.matched(pooled), pooled)

    def embed_text(self, text: Encoded) -> Float32[Array, "B E"]:
        """Unit vectors of the image–text contrast."""
        return unit(self.contrast_head.text(text.heads[0], dtype=jnp.float32))

    def embed_image(self, image: Encoded) -> Float32[Array, "B E"]:
        """Unit vectors of the image–text contrast."""
        return unit(self.contrast_head.image(image.heads[0], dtype=jnp.float32))

    def embed_pair(
        self, text: Encoded, image: Encoded, *, key: Key = None
    ) -> Float32[Array, "P E"]:
        """Unit vectors of Hugging Face's contrast of pairs with their parts."""
        states = self.cross_states(text, image, key=key)[-1]
        return unit(self.contrast_head.pair(self.pooled(*states)))

    def contrast(
        self, text: Encoded, image: Encoded, *, key: Key = None
    ) -> Float32[Array, "K B B"]:
        """In the paper's reading captions with photos and back; in Hugging Face's captions with
        photos, captions with pairs, and photos with pairs.
        """
        texts, images = self.embed_text(text), self.embed_image(image)
        if self.hf_itc:
            pairs = self.embed_pair(text, image, key=key)
            products = [texts @ images.T, texts @ pairs.T, images @ pairs.T]
        else:
            products = [texts @ images.T, images @ texts.T]
        return self.contrast_head.scale() * jnp.stack(products)


NETWORK = BridgeTower
