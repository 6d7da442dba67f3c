"""Whether caption and photo match: who meets whom, and the losses of their scores."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float32, Int

from mmt_jax.models.base import Encoded, Model
from mmt_jax.nn.heads import MATCH
from mmt_jax.objectives import embedding, pairing
from mmt_jax.objectives.per_example import contrastive, cross_entropy
from mmt_jax.typing import Array, Key, Metric, Metrics, Params


def meet(model: Model, image_ids: Int[Array, " B"], contrast: Any, key: jax.Array) -> pairing.Pairs:
    """Who meets whom for the match; `contrast` is None in models without one."""
    objective, batch = model.config.objective, len(image_ids)
    if objective.itm == "classification":
        if objective.negatives == "hard":
            return pairing.hard(contrast[0], image_ids, key=key)
        return pairing.mismatched(image_ids, rate=objective.mismatch, key=key)
    return pairing.matched(batch)


def classification(logits: Float32[Array, "L P 2"], matched: Bool[Array, " P"]) -> Metrics:
    """Two-way answers, averaged over the L layers that answer."""
    labels = jnp.where(matched, MATCH, 1 - MATCH)
    losses = cross_entropy(logits, jnp.broadcast_to(labels, logits.shape[:-1])).mean(axis=0)
    right = jnp.argmax(logits[-1], axis=-1) == labels
    return {"itm": Metric.of(losses), "itm_accuracy": Metric.of(right.astype(jnp.float32))}


def candidates(
    model: Model,
    params: Params,
    text: Encoded,
    image: Encoded,
    image_ids: Int[Array, " B"],
    key: Key,
) -> Metrics:
    """Contrastive ITM of B captions and photos, among `candidates` of each; `key`: dropout."""
    objective, num = model.config.objective, model.config.objective.candidates
    if not model.separable or objective.hloss:  # a loss a layer needs the layers
        return _jointly(model, params, text, image, image_ids, key)
    embeddings = model.embed_text(params, text), model.embed_image(params, image)
    allowed = pairing.distinct(image_ids, num=num)
    groups = (x.reshape(-1, num, x.shape[-1]) for x in embeddings)
    scores = jnp.einsum("gie,gje->gij", *groups)[None]
    losses = _contrastive(scores, model.logits(params, scores), allowed)
    if objective.loss != "softmax":
        del losses["itm"]
        losses |= embedding.LOSSES[objective.loss](*embeddings, image_ids, **objective.settings)
    return losses


def _jointly(
    model: Model,
    params: Params,
    text: Encoded,
    image: Encoded,
    image_ids: Int[Array, " B"],
    key: Key,
) -> Metrics:
    """Contrastive ITM of B captions and photos, each caption fused with each of its candidates.

    Of a pair that is no more than a candidate only the score is computed. With `objective.chunk`,
    some captions of each group at a time meet their candidates, and again for the gradient: what
    is fused at once bounds the memory.
    """
    num, batch = model.config.objective.candidates, len(image_ids)
    allowed = pairing.distinct(image_ids, num=num)
    text, image = jax.tree.map(lambda x: x.reshape(-1, num, *x.shape[1:]), (text, image))
    rows = num
    if chunk := model.config.objective.chunk:
        rows = max(r for r in range(1, num + 1) if num % r == 0 and (r == 1 or r * batch <= chunk))

    def scores_of(item: tuple[Any, Array]) -> Float32[Array, "L G rows K"]:
        """Scores of the captions [G, rows, ...] of an `Encoded`."""
        some, number = item
        shape = (batch // num, rows, num)

        def each(x: Array, axis: int) -> Array:
            spread = jnp.broadcast_to(jnp.expand_dims(x, axis), (*shape, *x.shape[2:]))
            return spread.reshape(-1, *x.shape[2:])

        texts = jax.tree.map(lambda x: each(x, 2), some)
        images = jax.tree.map(lambda x: each(x, 1), image)
        step = None if key is None else jax.random.fold_in(key, number)
        scores = model.fuse(params, texts, images, key=step, states=False).scores
        return scores.reshape(-1, *shape)

    if rows == num:
        scores = scores_of((text, jnp.zeros((), jnp.int32)))
    else:
        parts = jax.tree.map(
            lambda x: x.reshape(x.shape[0], -1, rows, *x.shape[2:]).swapaxes(0, 1), text
        )
        numbers = jnp.arange(num // rows)
        scores = jax.lax.map(jax.checkpoint(scores_of), (parts, numbers))  # [chunk, L, G, rows, K]
        scores = jnp.moveaxis(scores, 0, 2).reshape(*scores.shape[1:3], num, num)
    return _contrastive(scores, model.logits(params, scores), allowed)


def _contrastive(
    scores: Float32[Array, "L G K K"],
    logits: Float32[Array, "L G K K 2"],
    allowed: Bool[Array, "G K K"],
) -> Metrics:
    """Scores and their calibrated logits."""
    losses = jax.vmap(lambda layer: jnp.add(*contrastive(layer, allowed)) / 2)(scores).mean(axis=0)
    best = jnp.argmax(jnp.where(allowed, scores[-1], -jnp.inf), axis=-1)
    right = best == jnp.arange(scores.shape[-1])[None, :]
    # Matched and mismatched pairs weigh the same, as they do in classification.
    true = jnp.broadcast_to(jnp.eye(scores.shape[-1], dtype=bool), allowed.shape)
    errors = cross_entropy(logits[-1], jnp.where(true, MATCH, 1 - MATCH))
    return {
        "itm": Metric.of(losses),
        "itm_accuracy": Metric.of(right.astype(jnp.float32)),
        "calibration_true": Metric.of(errors, true),
        "calibration_wrong": Metric.of(errors, allowed & ~true),
    }
