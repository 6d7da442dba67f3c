"""What an exported model takes and answers: names, shapes and the functions behind them.

`default` takes the seven keys of the release (facts: `mmt_jax.data.schema`), or `image/pixels` in
place of the three image keys where the model reads pixels. `embed`, of models that score a pair by
an inner product, takes the same keys; there captions and photos need not be as many. `answer`, of
models with a head for questions about photos, takes the question as a caption; where it is about
two photos, the keys of the second begin with `image_2/`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from mmt_jax.configs.config import Config
from mmt_jax.configs.tasks import TASKS
from mmt_jax.data import regions, schema
from mmt_jax.errors import UsageError
from mmt_jax.infer import predict
from mmt_jax.models.base import Model
from mmt_jax.models.checks import asked_about
from mmt_jax.objectives import answers
from mmt_jax.typing import Array, Batch, Image, Params

OUTPUT = "output"
TEXT_EMBEDDING = "text_embedding"
IMAGE_EMBEDDING = "image_embedding"
LOGITS = "logits"
PROBABILITIES = "probabilities"


@dataclasses.dataclass(frozen=True)
class Field:
    """One input. A dimension is a number, or an expression of the letters that it is free in."""

    dims: tuple[str, ...]
    dtype: str

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Sizes; None where any will do."""
        return tuple(int(dim) if dim.isdecimal() else None for dim in self.dims)


def fields(config: Config, *, photos: str = "b", count: int = 1) -> dict[str, Field]:
    """The inputs of a model by key.

    `photos` is the letter of the number of photos: other than "b", there may be more or fewer of
    them than of captions. A caption or question is about `count` of them.
    """
    found = {key: Field(("b", "t"), "int32") for key in schema.TEXT_KEYS}
    for place in range(count):
        h, w, r = (f"{letter}{place or ''}" for letter in "hwr")
        if config.model.pixels:
            side = config.model.patch_size
            image = {schema.PIXELS: Field((photos, f"{side}*{h}", f"{side}*{w}", "3"), "float32")}
        else:
            image = {
                schema.BOXES: Field((photos, r, "5"), "float32"),
                schema.FEATURES: Field((photos, r, str(config.model.feature_dim)), "float32"),
                schema.IMAGE_PADDING: Field((photos, r), "int32"),
            }
        found |= {placed(key, place): field for key, field in image.items()}
    return found


def placed(key: str, place: int) -> str:
    """The key of a question's photo number `place`: of its second, image_2/bboxes, ...."""
    return key.replace("image/", f"image_{place + 1}/") if place else key


def photo(inputs: Mapping[str, Array], place: int) -> dict[str, Array]:
    """The keys of that photo, under the names of a single one."""
    keys = (schema.PIXELS, *schema.IMAGE_KEYS)
    return {key: inputs[placed(key, place)] for key in keys if placed(key, place) in inputs}


def image(config: Config, inputs: Mapping[str, Array]) -> Image:
    """The photos among `inputs`: regions, or patches of `image/pixels` [B, H, W, 3] f32."""
    if config.model.pixels:
        return regions.pixel_image(
            inputs[schema.PIXELS],
            config.model.patch_size,
            global_region=config.model.global_region,
        )
    return schema.to_image(inputs)


def padded(values: np.ndarray, key: str, length: int) -> np.ndarray:
    """The input `key` [B, S, ...] → [B, length, ...], S ≤ length, with padding in front."""
    widths = [(0, 0), (length - values.shape[1], 0)] + [(0, 0)] * (values.ndim - 2)
    return np.pad(values, widths, constant_values=schema.FILL.get(key, 0))


def default(model: Model, params: Params, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """B pairs → `output` [B, 2] f32 logits: softmax(...)[:, 0] is the match probability."""
    pairs = schema.to_text(inputs), image(model.config, inputs)
    return {OUTPUT: predict.logits(model, params, *pairs)}


def embed(model: Model, params: Params, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """M captions, N photos → `text_embedding` [M, E] f32 and `image_embedding` [N, E] f32.

    Their inner product ranks pairs. In separable models it is the score, up to a constant.
    """
    return {
        TEXT_EMBEDDING: predict.embed(model, params, schema.to_text(inputs)),
        IMAGE_EMBEDDING: predict.embed(model, params, image(model.config, inputs)),
    }


def answer(model: Model, params: Params, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """B questions → `logits` and `probabilities`, [B, A] f32, of the A answers.

    Of VQAv2 and GQA each answer is right or wrong by itself; elsewhere probabilities sum to 1.
    """
    photos = [
        image(model.config, photo(inputs, place)) for place in range(asked_about(model.config))
    ]
    text = schema.to_text(inputs)
    numbers = jnp.zeros(text.mask.shape[0], jnp.int32)
    logits = answers.logits(model, params, Batch(text, photos[0], numbers, tuple(photos[1:])))
    return {LOGITS: logits, PROBABILITIES: chances(model.config, logits)}


def chances(config: Config, logits: Float32[Array, "*b A"]) -> Float32[Array, "*b A"]:
    """Logits of a task's answers → their probabilities."""
    soft = TASKS[config.task.name or "vqa"].loss == "soft"
    return jax.nn.sigmoid(logits) if soft else jax.nn.softmax(logits)


def signatures(model: Model) -> dict[str, tuple[Callable[..., Any], dict[str, Field]]]:
    """A model's functions of (params, inputs) by name, with their inputs; UsageError if none."""
    found = {}
    if model.config.objective.itm != "none":
        found["default"] = (functools.partial(default, model), fields(model.config))
    if photos := asked_about(model.config):
        found["answer"] = (functools.partial(answer, model), fields(model.config, count=photos))
    if not found:
        raise UsageError(
            f"{model.config.tag or 'this model'} scores no pairs of image and text, and answers no "
            f"questions about photos, so there is nothing to export; export a model that was "
            f"trained with an ITM loss, or on vqa, gqa, nlvr2 or snli_ve"
        )
    if model.embeds:
        found["embed"] = (functools.partial(embed, model), fields(model.config, photos="n"))
    return found
