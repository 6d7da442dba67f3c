"""A trained model as whoever uses it asks it: numpy in, numpy out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int

from mmt_jax import placement
from mmt_jax.infer import pairs as pairing
from mmt_jax.infer import trace
from mmt_jax.infer.pairs import Items
from mmt_jax.models.base import Encoded, Model, take
from mmt_jax.nn.heads import MATCH
from mmt_jax.objectives import answers
from mmt_jax.typing import Array, Batch, Image, Params, Text

Texts: TypeAlias = Text | Items
Images: TypeAlias = Image | Items

_EMBEDDED = 256  # items embedded at once
_ROWS = 64  # pairs at once, at most, that are given row by row


class Predictor:
    """A model and its parameters, in float32 whatever dtype it was trained in.

    Functions are compiled once for each model and shape, and serve later predictors with other
    parameters. They run where the parameters are: on a mesh, the pairs of `scores` are spread over
    all devices, and what is given row by row is computed on each.

    Attributes:
      model: in float32, for bfloat16 would tie most scores.
      params: its parameters, on their devices.
    """

    def __init__(self, model: Model, params: Params):
        self.model = in_float32(model)
        self.params, self._whole, self._spread = placement.of(params)

    def score(
        self,
        texts: Texts,
        images: Images,
        *,
        top: int = 0,
        similar: Float32[np.ndarray, "M N"] | None = None,
        pairs: int = 1024,
        progress: bool = False,
    ) -> Float32[np.ndarray, "M N"]:
        """Scores M captions with N photos; separable models by one product of embeddings.

        With `top`, models that score jointly score the pairs that embeddings rank best:
        where the photo is among the `top` of the caption or the caption among the `top` of the
        photo, and one score serves both directions (ALBEF, Li et al., 2021, arXiv 2107.07651;
        BridgeTower, Xu et al., 2023, arXiv 2206.08657).

        Args:
          texts, images: in memory, or fetched when they are needed.
          top: pairs kept of each caption and of each photo; 0 = all.
          similar: what they are chosen by; None = products of the model's own embeddings.
          pairs: how many are fused at once, about; bounds the memory.
          progress: show a line on stderr while it takes more than a few seconds.

        Returns:
          Higher = better match; -inf where a pair is not scored.
        """
        chosen, joint = None, self.model.config.objective.itm != "none"
        if top or self.model.separable or not joint:  # some have embeddings and no match head
            if similar is None:
                similar = self.embed(texts) @ self.embed(images).T
            if not top:
                return similar
            chosen = pairing.best(similar, top)
        function = _SCORES if chosen is None else _chosen
        return self._pairwise(function, texts, images, chosen, pairs=pairs, progress=progress)

    def log_odds(
        self, texts: Texts, images: Images, *, pairs: int = 256, progress: bool = False
    ) -> Float32[np.ndarray, "M N"]:
        """Log odds of a match of M captions with N photos: calibrated scores."""
        return self._pairwise(_LOG_ODDS, texts, images, pairs=pairs, progress=progress)

    def embed(self, items: Texts | Images) -> Float32[np.ndarray, "n E"]:
        """Embeddings of captions or photos; their inner products rank pairs."""
        items = Items.of(items)
        parts = list(pairing.chunks(items.mask, _EMBEDDED, self._spread.num_devices))
        rows = self._fetch([self._run(embed, part.take(items), at=self._spread) for part in parts])
        out = np.empty((len(items.mask), rows[0].shape[1]), np.float32)
        for part, row in zip(parts, rows, strict=True):
            out[part.index] = row[: len(part.index)]
        return out

    def probabilities(self, scores: Float32[np.ndarray, "*P"]) -> Float32[np.ndarray, "*P"] | None:
        """What `score` says of pairs → probabilities of a match; None = none have been learned.

        Published weights without a calibration have learned none. They hold where half of the pairs
        match, as in training.
        """
        if not self.fitted:
            return None
        if self.model.separable or self.model.config.objective.itm == "contrastive":
            return self._fetch(self._run(_calibrated, scores))
        return np.exp(-np.logaddexp(0, -scores))  # of a match head, scores are log odds

    @property
    def fitted(self) -> bool:
        """Whether match probabilities have been learned."""
        if self.model.config.objective.itm == "contrastive":
            scale = self.params["calibration"]  # as it is born, see `nn.heads.Calibration`
            return (float(scale["scale"]), float(scale["bias"])) != (1.0, 0.0)
        return self.model.config.objective.itm != "none"

    def matches(self, texts: Text, images: Image) -> Float32[np.ndarray, " P"]:
        """Row p of `texts` meets row p of `images`: the scores of `score`, of these pairs alone."""
        if self.model.separable or self.model.config.objective.itm == "none":
            return (self.embed(texts) * self.embed(images)).sum(axis=1)
        return self._rows(_matches, texts, images)

    def logits(self, texts: Text, images: Image) -> Float32[np.ndarray, "P 2"]:
        """Row p of `texts` meets row p of `images`: match logits, index 0 = match."""
        return self._rows(logits, texts, images)

    def _rows(self, function: Any, texts: Text, images: Image) -> Any:
        """Pairs row by row, some at a time."""
        parts = []
        for start in range(0, len(texts.mask), _ROWS):
            rows = pairing.filled(np.arange(start, min(start + _ROWS, len(texts.mask))))
            part = jax.tree.map(lambda leaf, rows=rows: leaf[rows], (texts, images))
            parts.append(self._run(function, *part))
        return np.concatenate(self._fetch(parts))[: len(texts.mask)]

    def words(self, texts: Text, images: Image | None) -> Float32[np.ndarray, "B T V"]:
        """Logits over the vocabulary; None for models that read sentences alone."""
        return self._fetch(self._run(_words, texts, images))

    def answers(self, batch: Batch) -> Float32[np.ndarray, "B A"]:
        """Logits of a task's answers to B records; targets are ignored."""
        batch = dataclasses.replace(batch, targets=None)
        return self._fetch(self._run(answers.logits, batch))

    def attention(self, texts: Text, images: Image) -> list[Float32[np.ndarray, "P N T R"]]:
        """As `trace.attention`."""
        return self._fetch(self._run(trace.attention, texts, images))

    def trace(self, texts: Text | None, images: Image | None) -> dict[str, Any]:
        """As `trace.trace`."""
        return self._fetch(self._run(trace.trace, texts, images))

    def _pairwise(
        self, function: Any, texts: Any, images: Any, chosen: Any = None, **how: Any
    ) -> Float32[np.ndarray, "M N"]:
        # Blocks of all pairs are spread by their captions, chosen pairs one by one.
        captions = self._spread if chosen is None else self._whole

        def score(text: Encoded, image: Encoded, *rows: np.ndarray) -> Array:
            rows = placement.put(rows, self._spread)
            found = _compiled(function, self.model, self.params, text, image, *rows)
            return jax.device_put(found, self._whole)

        return pairing.pairwise(
            Items.of(texts),
            Items.of(images),
            encode_text=lambda rows: self._run(_encode, rows, at=captions),
            encode_image=lambda rows: self._run(_encode, rows),
            score=score,
            chosen=chosen,
            multiple=self._spread.num_devices,
            **how,
        )

    def _run(self, function: Any, *items: Any, at: jax.sharding.Sharding | None = None) -> Any:
        """Calls a function on numpy items: of photos, on what a model reads of them."""
        read = jax.tree.map(
            lambda i: Image(i.features, i.boxes, i.mask) if isinstance(i, Image) else i,
            items,
            is_leaf=lambda i: isinstance(i, Image),
        )
        items = placement.put(read, at or self._whole)
        return _compiled(function, self.model, self.params, *items)

    def _fetch(self, found: Any) -> Any:
        return jax.device_get(jax.device_put(found, self._whole))


def in_float32(model: Model) -> Model:
    """The model, computing in float32."""
    return dataclasses.replace(model, config=dataclasses.replace(model.config, dtype="float32"))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _compiled(function: Callable[..., Any], model: Model, params: Params, *items: Any) -> Any:
    return function(model, params, *items)


def _encode(model: Model, params: Params, items: Text | Image) -> Encoded:
    if isinstance(items, Text):
        return model.encode_text(params, items)
    return model.encode_image(params, items)


def embed(model: Model, params: Params, items: Text | Image) -> Float32[Array, "n E"]:
    """n captions or photos → embeddings."""
    of = model.embed_text if isinstance(items, Text) else model.embed_image
    return of(params, _encode(model, params, items))


def scored(
    model: Model, params: Params, text: Encoded, image: Encoded
) -> tuple[Float32[Array, " P"], Float32[Array, "P 2"]]:
    """P encoded captions with P encoded photos → scores and match logits.

    Here alone pairs are fused for nothing but their scores.
    """
    fused = model.fuse(params, text, image, states=False)
    return fused.scores[-1], fused.logits[-1]


def _score(model: Model, params: Params, text: Encoded, image: Encoded) -> Float32[Array, " P"]:
    return scored(model, params, text, image)[0]


def _odds(model: Model, params: Params, text: Encoded, image: Encoded) -> Float32[Array, " P"]:
    logits = scored(model, params, text, image)[1]
    return logits[:, 0] - logits[:, 1]


def _calibrated(model: Model, params: Params, products: Array) -> Array:
    return jax.nn.softmax(model.logits(params, products))[..., MATCH]


def _all_pairs(
    of: Callable[..., Array], model: Model, params: Params, text: Encoded, image: Encoded
) -> Float32[Array, "A B"]:
    """A captions with each of B photos."""
    a, b = text.mask.shape[0], image.mask.shape[0]
    text = jax.tree.map(lambda leaf: jnp.repeat(leaf, b, axis=0), text)
    image = jax.tree.map(lambda leaf: jnp.tile(leaf, (a,) + (1,) * (leaf.ndim - 1)), image)
    return of(model, params, text, image).reshape(a, b)


def _chosen(
    model: Model,
    params: Params,
    text: Encoded,
    image: Encoded,
    captions: Int[Array, " P"],
    photos: Int[Array, " P"],
) -> Float32[Array, " P"]:
    """P rows of encoded captions with P rows of encoded photos."""
    return _score(model, params, take(text, captions), take(image, photos))


# Functions are told apart by what they are: one for each use, and not one for each call.
_SCORES = functools.partial(_all_pairs, _score)
_LOG_ODDS = functools.partial(_all_pairs, _odds)


def logits(model: Model, params: Params, texts: Text, images: Image) -> Float32[Array, "P 2"]:
    """P pairs, row by row → match logits."""
    encoded = _encode(model, params, texts), _encode(model, params, images)
    return scored(model, params, *encoded)[1]


def _matches(model: Model, params: Params, texts: Text, images: Image) -> Float32[Array, " P"]:
    return _score(model, params, _encode(model, params, texts), _encode(model, params, images))


def _words(
    model: Model, params: Params, texts: Text, images: Image | None
) -> Float32[Array, "B T V"]:
    encoded = _encode(model, params, texts)
    states = encoded.states
    if images is not None:
        states = model.fuse(params, encoded, _encode(model, params, images)).text
    return model.words(params, states).astype(jnp.float32)
