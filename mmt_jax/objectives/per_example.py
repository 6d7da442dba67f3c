"""Losses as functions of arrays alone: per example, unreduced."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Float32, Int

from mmt_jax.typing import Array


def cross_entropy(logits: Float[Array, "*b C"], labels: Int[Array, "*b"]) -> Float32[Array, "*b"]:
    """-log softmax(logits)[label]."""
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]


def class_divergence(
    logits: Float[Array, "*b C"], class_ids: Int[Array, "*b k"], class_probs: Float[Array, "*b k"]
) -> Float32[Array, "*b"]:
    """KL(detector ‖ model) of a region's classes (ViLBERT, Lu et al. 2019, eq. for masked regions).

    The probabilities that are given need not sum to 1: the rest is spread evenly over the other
    classes. Entries of probability 0 give none: they fill up shorter lists, and may repeat a class.
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    known = jnp.take_along_axis(log_probs, class_ids, axis=-1)
    given = (class_probs > 0).astype(jnp.float32)
    others = logits.shape[-1] - given.sum(-1)
    rest = jnp.where(others > 0, jnp.clip(1.0 - class_probs.sum(-1), 0.0, 1.0), 0.0)
    each = rest / jnp.maximum(others, 1)
    negative_entropy = jax.scipy.special.xlogy(class_probs, class_probs).sum(-1)
    negative_entropy += jax.scipy.special.xlogy(rest, each)
    agreement = (class_probs * known).sum(-1) + each * (log_probs.sum(-1) - (given * known).sum(-1))
    return negative_entropy - agreement


def feature_error(
    predicted: Float[Array, "*b F"], features: Float[Array, "*b F"]
) -> Float32[Array, "*b"]:
    """Mean squared error over the features of a region."""
    return jnp.mean(jnp.square(predicted.astype(jnp.float32) - features), axis=-1)


def smooth_l1(
    predicted: Float[Array, "*b F"], features: Float[Array, "*b F"]
) -> Float32[Array, "*b"]:
    """Huber's loss with δ = 1, mean over features (LXMERT)."""
    error = jnp.abs(predicted.astype(jnp.float32) - features)
    return jnp.mean(jnp.where(error < 1, 0.5 * error**2, error - 0.5), axis=-1)


def contrastive(
    scores: Float[Array, "G K K"], allowed: Bool[Array, "G K K"]
) -> tuple[Float[Array, "G K"], Float[Array, "G K"]]:
    """Softmax cross-entropy of the true pairs, on the diagonal, among the candidates `allowed`.

    Of captions (rows) → photos, and of photos → captions.
    """
    scores = jnp.where(allowed, scores, -jnp.inf)
    true = jnp.diagonal(scores, axis1=1, axis2=2)
    return jax.nn.logsumexp(scores, axis=2) - true, jax.nn.logsumexp(scores, axis=1) - true


def soft_contrast(
    logits: Float[Array, "K B B"], image_ids: Int[Array, " B"]
) -> Float32[Array, "K B"]:
    """Cross-entropy of rows with the columns of the same photo, each as right as the others."""
    same = (image_ids[:, None] == image_ids[None, :]).astype(jnp.float32)
    target = same / same.sum(-1, keepdims=True)
    return -(target[None] * jax.nn.log_softmax(logits)).sum(-1)
