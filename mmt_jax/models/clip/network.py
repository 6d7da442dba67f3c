"""CLIP (Radford et al., ICML 2021, arXiv 2103.00020): two towers, whose unit vectors are compared.

The text tower reads from left to right; the last token, which has read all others, stands for the
caption, and the class in front of the patches for the photo.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Float32, Int

from mmt_jax.configs.config import Config
from mmt_jax.configs.tasks import PHOTO
from mmt_jax.errors import UsageError
from mmt_jax.models import checks
from mmt_jax.models.base import Encoded, Fused, Network, sizes
from mmt_jax.models.clip.config import ClipConfig
from mmt_jax.nn import trace
from mmt_jax.nn.heads import Calibration, LinearHead
from mmt_jax.nn.layers import Sizes, Stack
from mmt_jax.nn.primitives import LayerNorm, Linear, Table, unit
from mmt_jax.nn.vision import VisionEncoder, with_class
from mmt_jax.typing import Array, Image, Key, Text


class CausalEncoder(nnx.Module):
    """Tokens and positions, pre-LN layers in which a token reads those before it, LayerNorm."""

    def __init__(self, model: ClipConfig, sizes: Sizes, *, dtype: str):
        self.dtype = dtype
        self.tokens = Table(model.vocab_size, sizes.width)
        self.positions = Table(model.max_positions, sizes.width)
        self.stack = Stack(sizes, model.text_layers)
        self.last_norm = LayerNorm(sizes.width, sizes.eps)

    def __call__(
        self, token_ids: Int[Array, "B T"], mask: Bool[Array, "B T"], *, key: Key = None
    ) -> list[Float[Array, "B T D"]]:
        """States after the embedding and each layer, without the last LayerNorm."""
        length = token_ids.shape[1]
        x = self.tokens(token_ids) + self.positions(jnp.arange(length))[None]
        before = jnp.arange(length)[:, None] >= jnp.arange(length)[None]
        return self.stack(x.astype(self.dtype), mask[:, None] & before[None], key=key)


class Clip(Network):
    """Towers, projections, and a score that is a cosine times a learned scale.

    Reads captions as `[CLS] … [SEP]` by token ids alone (segments are ignored), and patches of the
    whole photo with values in 0..1. Without a score it is the image tower alone.
    """

    itms = ("contrastive", "none")
    answers_on = (PHOTO,)

    @classmethod
    def check(cls, config: Config) -> None:
        model, objective = config.model, config.objective
        checks.heads(model, "text", "image")
        checks.grid(model)
        for name in ("mlm", "mrm", "hloss"):
            if getattr(objective, name):
                raise UsageError(
                    f"config.objective.{name} is {getattr(objective, name)}, but the family clip "
                    f"is trained by contrast alone; set it to 0"
                )

    @classmethod
    def separable(cls, config: Config) -> bool:
        return config.objective.itm != "none"

    def __init__(self, config: Config):
        model = config.model
        assert isinstance(model, ClipConfig)
        self.scores = config.objective.itm != "none"
        text, image = (
            sizes(
                config,
                getattr(model, f"{part}_width"),
                getattr(model, f"{part}_heads"),
                getattr(model, f"{part}_mlp_dim"),
                eps=model.eps,
                activation=model.activation,
                pre_norm=True,
            )
            for part in ("text", "image")
        )
        self.image = VisionEncoder(
            image,
            model.image_layers,
            patch_dim=model.feature_dim,
            grid=model.image_size // model.patch_size,
            dtype=config.dtype,
        )
        if model.num_answers:
            self.answer_head = LinearHead(image.width, model.num_answers)
        if not self.scores:
            return
        self.text = CausalEncoder(model, text, dtype=config.dtype)
        self.project_text = Linear(text.width, model.width, bias=False)
        self.project_image = Linear(image.width, model.width, bias=False)
        self.log_scale = nnx.Param(jnp.asarray(-math.log(0.07)))
        self.calibration = Calibration()

    def text_states(self, text: Text, *, key: Key = None) -> list[Float[Array, "B T D"]]:
        """States after the embedding and each layer."""
        return self.text(text.token_ids, text.mask, key=key)

    def image_states(self, image: Image, *, key: Key = None) -> list[Float[Array, "B S D"]]:
        """States after the embedding and each layer; the class first."""
        return self.image(image.features, image.boxes, with_class(image.mask), key=key)

    def encode_text(self, text: Text, *, key: Key = None) -> Encoded:
        """The one head is the unit vector."""
        states = self.text.last_norm(self.text_states(text, key=key)[-1])
        last = jnp.maximum(text.mask.sum(axis=1) - 1, 0)
        end = jnp.take_along_axis(states, last[:, None, None], axis=1)[:, 0]
        trace.pooled("text", end)
        return Encoded(states, text.mask, {}, (unit(self.project_text(end, dtype=jnp.float32)),))

    def encode_image(self, image: Image, *, key: Key = None) -> Encoded:
        """The one head, where there is a score, is the unit vector."""
        states = self.image.last_norm(self.image_states(image, key=key)[-1])
        cls = trace.pooled("image", states[:, 0])
        heads = (unit(self.project_image(cls, dtype=jnp.float32)),) if self.scores else ()
        return Encoded(states, with_class(image.mask), {}, heads)

    def pool(self, item: Encoded) -> Float[Array, "B D"]:
        """Of photos."""
        return item.states[:, 0]

    def fuse(self, text: Encoded, image: Encoded, *, key: Key = None, states: bool = True) -> Fused:
        del key, states  # the states are there
        scores = (self.embed_text(text) * self.embed_image(image)).sum(-1)
        logits = self.logits(scores)
        return Fused(text.states, image.states[:, 1:], scores[None], logits[None])

    def embed_text(self, text: Encoded) -> Float32[Array, "B E"]:
        """The unit vector, times the scale."""
        return text.heads[0] * jnp.exp(self.log_scale[...])

    def embed_image(self, image: Encoded) -> Float32[Array, "B E"]:
        """The unit vector."""
        return image.heads[0]


NETWORK = Clip
