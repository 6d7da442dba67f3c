"""Losses of a task: what a model answers, against what people or the task's rules say.

Targets are [B, A] f32 over a task's A labels. A record that nobody has answered has no target above
0 and does not count.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Float32

from mmt_jax.configs.tasks import TASKS
from mmt_jax.models.base import Model
from mmt_jax.nn.primitives import split
from mmt_jax.typing import Array, Batch, Key, Metric, Params


def soft(logits: Float32[Array, "B A"], targets: Float[Array, "B A"]) -> Float32[Array, " B"]:
    """Each answer by itself is right to a degree: binary cross-entropies, summed over answers.

    The loss of VQA (Teney et al., 2018, arXiv 1708.02711), as LXMERT and BridgeTower scale it.
    """
    return (jax.nn.softplus(logits) - targets * logits).sum(-1)


def label(logits: Float32[Array, "B A"], targets: Float[Array, "B A"]) -> Float32[Array, " B"]:
    """Cross-entropy with one right answer; of several, the mean in proportion to their targets.

    That is what LXMERT's pre-training draws one of the answers for.
    """
    share = targets / jnp.maximum(targets.sum(-1, keepdims=True), 1e-9)
    return -(share * jax.nn.log_softmax(logits)).sum(-1)


def value(logits: Float32[Array, "B A"], targets: Float[Array, "B A"]) -> Float32[Array, " B"]:
    """Squared error of the one number that is asked for."""
    return jnp.square(logits[..., 0] - targets[..., 0])


# By name: logits and targets [B, A] f32 → [B].
LOSSES: dict[str, Callable[[Array, Array], Array]] = {"soft": soft, "label": label, "value": value}


def logits(model: Model, params: Params, batch: Batch, *, key: Key = None) -> Float32[Array, "B A"]:
    """Answers to B records."""
    keys = split(key, 4)
    photos = () if batch.image is None else (batch.image, *batch.more)
    images = model.encode_images(params, photos, key=keys[0]) if photos else ()
    pooled: list[Array]
    if batch.text is None:
        pooled = [model.pool(params, image) for image in images]
    else:
        text = model.encode_text(params, batch.text, key=keys[1])
        each = split(keys[2], len(images))
        pooled = [
            model.fuse(params, text, image, key=own, states=False).pooled
            for image, own in zip(images, each)
        ]
        pooled = pooled or [model.pool(params, text)]
    return model.answers(params, jnp.concatenate(pooled, axis=-1), key=keys[3])


def metrics(
    model: Model,
    answered: Float32[Array, "B A"],
    targets: Float[Array, "B A"],
    counted: Bool[Array, " B"] | None = None,
) -> dict[str, Metric]:
    """`answers`, the task's loss, and `answers_score`, what the likeliest answer is worth.

    `answered` are logits; `counted` is True where an answer can be expected, None = everywhere.
    """
    name = TASKS[model.config.task.name].loss
    losses = LOSSES[name](answered, targets)
    if name == "value":
        return {"answers": Metric.of(losses)}
    known = targets.max(axis=-1) > 0
    known = known if counted is None else known & counted
    best = jnp.argmax(answered, axis=-1)
    worth = jnp.take_along_axis(targets, best[:, None], axis=-1)[:, 0]
    # What VQA's annotators say may lie outside the labels: none of these is right.
    return {
        "answers": Metric.of(losses, known if name == "label" else counted),
        "answers_score": Metric.of(worth, counted if name == "soft" else known),
    }
