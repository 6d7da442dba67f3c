"""CLIP (Radford et al., ICML 2021, arXiv 2103.00020): two towers, whose unit vectors are compared.

The text tower reads from left to right; the last token, which has read all others, stands for the
caption, and the class in front of the patches for the photo.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Float32

from mmt_jax.configs.config import Config
from mmt_jax.configs.tasks import PHOTO
from mmt_jax.models import checks
from mmt_jax.models.base import Encoded, Towers, sizes
from mmt_jax.models.clip.config import ClipConfig
from mmt_jax.nn import trace
from mmt_jax.nn.heads import Calibration, LinearHead, capped
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

    def __call__(self, text: Text, *, key: Key = None) -> list[Float[Array, "B T D"]]:
        """States after the embedding and each layer, without the last LayerNorm."""
        place = jnp.arange(text.token_ids.shape[1])
        x = self.tokens(text.token_ids) + self.positions(place)[None]
        before = place[:, None] >= place[None]
        return self.stack(x.astype(self.dtype), text.mask[:, None] & before[None], key=key)


class Clip(Towers):
    """Towers, projections, and a score that is a cosine times a learned scale.

    Reads captions as `[CLS] … [SEP]` by token ids alone (segments are ignored), and patches of the
    whole photo with values in 0..1. Without a score it is the image tower alone.
    """

    itms = ("contrastive", "none")
    trains = ()
    answers_on = (PHOTO,)

    @classmethod
    def check(cls, config: Config) -> None:
        checks.heads(config.model, "text", "image")
        checks.grid(config.model)

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

    def embed_text(self, text: Encoded) -> Float32[Array, "B E"]:
        """The unit vector, times the scale."""
        return text.heads[0] * capped(self.log_scale[...])


NETWORK = Clip
