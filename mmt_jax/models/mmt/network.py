"""The study's models: a language and an image stream that attend to each other layer by layer."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Float32

from mmt_jax.configs.config import Config
from mmt_jax.configs.tasks import PAIR, PAIR_OF_PHOTOS
from mmt_jax.errors import UsageError
from mmt_jax.models import checks
from mmt_jax.models.base import Encoded, Fused, Network, sizes
from mmt_jax.nn import trace
from mmt_jax.nn.embed import Tables, TokenEmbed
from mmt_jax.nn.heads import (
    MATCH,
    AnswerHead,
    Calibration,
    CosineScore,
    LinearPooler,
    Pooler,
    ProductScore,
)
from mmt_jax.nn.kinds import STREAMS, kinds
from mmt_jax.nn.layers import Sizes
from mmt_jax.nn.places import P
from mmt_jax.nn.primitives import (
    LayerNorm,
    Linear,
    Table,
    average,
    dropout,
    dropout_features,
    even_out,
    split,
)
from mmt_jax.nn.streams import Streams, unimodal_depth
from mmt_jax.typing import Array, Image, Key, Text

GLOBAL = -1  # the whole photo is the last region
SEGMENTS = 3  # the release uses 0, and 2 at [CLS]


def stack_sizes(config: Config) -> Sizes:
    """Of the layers of both streams."""
    model = config.model
    return sizes(config, model.width, model.heads, model.mlp_dim, head_dim=model.head_dim)


class RegionEmbed(nnx.Module):
    """LayerNorm(Linear(features) + Linear(box)); a detector's features are evened out first."""

    def __init__(self, config: Config):
        model, layer = config.model, stack_sizes(config)
        self.rate, self.pixels, self.dtype = layer.dropout, model.pixels, config.dtype
        self.feature_dropout = model.image_dropout
        self.features = Linear(model.feature_dim, model.width)
        self.boxes = Linear(5, model.width, bias=False)
        self.norm = LayerNorm(model.width, layer.eps)

    def __call__(self, image: Image, *, key: Key) -> Float[Array, "B R D"]:
        # Standardised, patches that differ in brightness alone would be one.
        features = image.features if self.pixels else even_out(image.features)
        key_features, key = split(key, 2) if self.feature_dropout else (None, key)
        features = dropout_features(features, self.feature_dropout, key_features)
        x = self.features(features.astype(self.dtype)) + self.boxes(image.boxes.astype(self.dtype))
        return dropout(self.norm(x), self.rate, key)


class Evened(nnx.Module):
    """Regions as their features, evened out, without a parameter."""

    def __call__(self, image: Image, *, key: Key) -> Float[Array, "B R F"]:
        del key
        return even_out(image.features)


class StreamNetwork(Network):
    """What has its captions, or captions and photos, go through `Streams`."""

    @classmethod
    def check(cls, config: Config) -> None:
        table = kinds(config.model.layers)
        if config.objective.hloss and not any(kind.multimodal for kind in table):
            raise UsageError(
                "config.objective.hloss puts a loss after every multimodal layer, "
                "but config.model.layers has none",
            )

    def __init__(self, config: Config):
        model = config.model
        self.hloss = config.objective.hloss
        self.heads = {"text": model.cls_index, "image": GLOBAL}  # the slots that scores read
        tables = Tables(model.vocab_size, model.max_positions, SEGMENTS, scheme="real", frozen=())
        self.text = TokenEmbed(tables, stack_sizes(config), dtype=config.dtype)
        self.streams = Streams(stack_sizes(config), model.layers)

    @property
    def token_table(self) -> Table:
        return self.text.tokens

    def encode_text(self, text: Text, *, key: Key = None) -> Encoded:
        key_embed, key_layers = split(key, 2)
        return self._encode("text", self.text(text, key=key_embed), text.mask, key_layers)

    def _encode(
        self, stream: str, x: Float[Array, "B S D"], mask: Bool[Array, "B S"], key: Key
    ) -> Encoded:
        states, keys_values = self.streams.encode(stream, x, mask, key=key)
        heads = tuple(x[:, self.heads[stream]] for x in states) if self.hloss else ()
        return Encoded(states[-1], mask, keys_values, heads)


class MMT(StreamNetwork):
    """Streams, poolers, match score and the heads of the two masked losses and of a task.

    A task's head reads the product of the two pooled vectors, as ViLBERT's do.
    """

    trains = ("itm", "mlm", "mrm", "hloss")
    answers_on = (PAIR, PAIR_OF_PHOTOS)
    places = (
        (r"pool_(text|image)/(dense/)?(kernel|bias)", P("data")),
        (r"score/(dense/(kernel|bias)|log_scale)", P()),
    )

    @classmethod
    def check(cls, config: Config) -> None:
        super().check(config)
        model, objective = config.model, config.objective
        apart = cls.separable(config) and not objective.hloss
        for name, wanted in (
            ("cosine", apart and objective.itm == "contrastive"),
            ("pooling", apart),
            ("text_dropout", apart),
        ):
            if not wanted and (value := getattr(model, name)) not in ("cls", False):
                contrast = " under config.objective.itm=contrastive" * (name == "cosine")
                raise UsageError(
                    f"config.model.{name}={value} is for models in which no stream reads the other"
                    f"{contrast}, such as the baselines and loss_single-modality-contrastive1024, "
                    f"and without config.objective.hloss; leave it out"
                )

        if not model.embed_regions:
            read = any(kind.is_read("image") for kind in kinds(model.layers))
            if read or model.pixels or objective.mrm or not apart:
                raise UsageError(
                    "config.model.embed_regions=False is for models of regions none of whose "
                    "layers reads them, such as two towers with config.model.layers=('text',), "
                    "and without masked regions; leave it out"
                )

    @classmethod
    def separable(cls, config: Config) -> bool:
        table = kinds(config.model.layers)
        return all(unimodal_depth(table, stream) == len(table) for stream in STREAMS)

    @classmethod
    def embeds(cls, config: Config) -> bool:
        return cls.separable(config) and config.objective.itm != "none"

    def __init__(self, config: Config):
        super().__init__(config)
        model, objective = config.model, config.objective
        self.image = RegionEmbed(config) if model.embed_regions else Evened()
        # What stands for an item is known as soon as it is encoded.
        self.apart = self.separable(config) and not self.hloss
        features = not model.embed_regions
        self.pooled = model.pooling.split("+")
        self.hidden = {"text": model.text_dropout, "image": features * model.image_dropout}
        pooler, self.score = self.score_of(config)
        self.pool_text = pooler(len(self.pooled) * model.width, model.pooled_dim)
        width = model.feature_dim if features else model.width
        self.pool_image = pooler(len({*self.pooled} - {"words"}) * width, model.pooled_dim)
        self.calibration = Calibration() if objective.itm == "contrastive" else None
        if model.num_answers:
            read = checks.photos(config) * model.pooled_dim
            self.answer_head = AnswerHead(read, 2 * read, model.num_answers, eps=1e-12)
        self.build_masked(config)

    @staticmethod
    def score_of(config: Config) -> tuple[Any, Any]:
        """What pools a stream, and what scores two pooled vectors; None = pairs are not scored."""
        model, itm = config.model, config.objective.itm
        if model.cosine:
            return LinearPooler, CosineScore()
        if itm == "none":
            return Pooler, None
        logits = 1 if itm == "contrastive" else 2
        return Pooler, ProductScore(model.pooled_dim, logits, dropout=model.dropout)

    @classmethod
    def remembered(cls, config: Config) -> str | None:
        objective, table = config.objective, kinds(config.model.layers)
        unimodal = table[: unimodal_depth(table, "text")]
        # Captions that lose words are others in every step; what photos read of captions as they
        # are encoded is not among the features.
        if objective.mlm or objective.hloss or config.task.name or not unimodal:
            return None
        if any("text" in kind.reads("image") for kind in unimodal):
            return None
        numbers = "|".join(map(str, range(len(unimodal))))
        return rf"text/.*|streams/layers/({numbers})/text/.*"

    def text_features(self, text: Text) -> Float[Array, "B ..."]:
        item = self.encode_text(text)
        return item.heads[0] if self.apart else item.states

    def encode_text(self, text: Text, *, key: Key = None) -> Encoded:
        if text.features is None:
            return super().encode_text(text, key=key)
        key_layers = split(key, 2)[1]
        if self.apart:
            states = jnp.zeros((*text.mask.shape, 0), text.features.dtype)  # nobody reads them
            return Encoded(states, text.mask, {}, (self._hide("text", text.features, key_layers),))
        states, keys_values = self.streams.encode(
            "text", text.features, text.mask, key=key_layers, done=self.streams.depth["text"]
        )
        return Encoded(states[-1], text.mask, keys_values, ())

    def encode_image(self, image: Image, *, key: Key = None) -> Encoded:
        key_embed, key_layers = split(key, 2)
        return self._encode("image", self.image(image, key=key_embed), image.mask, key_layers)

    def _encode(
        self, stream: str, x: Float[Array, "B S D"], mask: Bool[Array, "B S"], key: Key
    ) -> Encoded:
        item = super()._encode(stream, x, mask, key)
        if not self.apart:
            return item
        head = item.states[:, self.heads[stream]]
        parts = {"cls": head}
        if "mean" in self.pooled:
            parts["mean"] = average(item.states, mask)
        if "max" in self.pooled:
            parts["max"] = jnp.where(mask[..., None], item.states, -jnp.inf).max(axis=1)
        if "words" in self.pooled and stream == "text":
            # Pieces are what stands between the first and the last real token, in every layout.
            place = jnp.cumsum(mask, axis=1)
            parts["words"] = average(x, mask & (place > 1) & (place < place[:, -1:]))
        parts = [parts[name].astype(head.dtype) for name in self.pooled if name in parts]
        head = jnp.concatenate(parts, axis=-1)
        return dataclasses.replace(item, heads=(self._hide(stream, head, key),))

    def _hide(self, stream: str, head: Float[Array, "B E"], key: Any) -> Float[Array, "B E"]:
        """Dropout of what stands for items, around its mean over the batch; `key`: of the layers.

        Around 0, entries that are far from it in every item would add the most noise of all.
        """
        if key is None or not self.hidden[stream]:
            return head
        key = jax.random.fold_in(key, len(self.streams.kinds))  # none of theirs
        mean = head.mean(axis=0, keepdims=True)
        return mean + dropout(head - mean, self.hidden[stream], key)

    def fuse(self, text: Encoded, image: Encoded, *, key: Key = None, states: bool = True) -> Fused:
        key_layers, key_score = split(key, 2)
        items = {"text": text, "image": image}
        # Of each stream the state that stands for the whole item.
        slots = {stream: slice(i, i + 1 or None) for stream, i in self.heads.items()}
        fused = self.streams.fuse(items, key=key_layers, only=None if states else slots)
        last = fused[-1] if fused else {s: item.states for s, item in items.items()}
        heads = [tuple(last[stream][:, self.heads[stream]] for stream in STREAMS)]
        if self.apart:
            heads = [(text.heads[0], image.heads[0])]
        if self.hloss:
            heads = [
                tuple(self._head(stream, items[stream], fused, i) for stream in STREAMS)
                for i, kind in enumerate(self.streams.kinds)
                if kind.multimodal
            ]
        pooled = [(self.pool_text(text), self.pool_image(image)) for text, image in heads]
        for stream, vectors in zip(STREAMS, pooled[-1]):
            trace.pooled(stream, vectors)
        product = pooled[-1][0] * pooled[-1][1]
        shown = (last["text"], last["image"]) if states else (None, None)
        if self.score is None:
            return self.judged(shown, None, product)
        outs = [self.score(*p, key=k) for p, k in zip(pooled, split(key_score, len(pooled)))]
        return self.judged(shown, jnp.stack(outs), product)

    def _head(
        self, stream: str, item: Encoded, fused: list[dict[str, Array]], layer: int
    ) -> Float[Array, "P D"]:
        """The state that stands for the whole item, after `layer`."""
        if layer < self.streams.depth[stream]:
            return item.heads[layer + 1]
        return fused[layer - self.streams.first_fused][stream][:, self.heads[stream]]

    def logits(self, scores: Float[Array, "*P"]) -> Float32[Array, "*P 2"]:
        if self.calibration is not None:
            return super().logits(scores)
        bias = self.score.dense.bias[...]  # the constant that products leave out
        return jnp.stack([scores + bias[MATCH], jnp.full_like(scores, bias[1 - MATCH])], axis=-1)

    def embed_text(self, text: Encoded) -> Float32[Array, "B E"]:
        return self.score.text(self.pool_text(self._last("text", text)))

    def embed_image(self, image: Encoded) -> Float32[Array, "B E"]:
        return self.score.image(self.pool_image(self._last("image", image)))

    def _last(self, stream: str, item: Encoded) -> Float[Array, "B _"]:
        """What stands for items that no stream of the other kind changes."""
        return item.heads[0] if self.apart else item.states[:, self.heads[stream]]


NETWORK = MMT
