"""Losses as functions of arrays alone: per example, unreduced."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mmt_jax.typing import Array


def cross_entropy(logits: Array, labels: Array) -> Array:
    """-log softmax(logits)[label]: [..., C] and [...] i32 → [...] f32."""
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]


def class_divergence(logits: Array, class_ids: Array, class_probs: Array) -> Array:
    """KL(detector ‖ model) of a region's classes (ViLBERT, Lu et al. 2019, eq. for masked regions).

    The probabilities that are given need not sum to 1: the rest is spread evenly over the other
    classes. Entries of probability 0 give none: they fill up shorter lists, and may repeat a class.

    Args:
      logits: [..., C].
      class_ids: [..., k] i32, distinct where the probability is not 0.
      class_probs: [..., k] f32.

    Returns:
      [...] f32, in nats.
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


def feature_error(predicted: Array, features: Array) -> Array:
    """Mean squared error over the features of a region: [..., F] twice → [...] f32."""
    return jnp.mean(jnp.square(predicted.astype(jnp.float32) - features), axis=-1)


def smooth_l1(predicted: Array, features: Array) -> Array:
    """Huber's loss with δ = 1, mean over features (LXMERT): [..., F] twice → [...] f32."""
    error = jnp.abs(predicted.astype(jnp.float32) - features)
    return jnp.mean(jnp.where(error < 1, 0.5 * error**2, error - 0.5), axis=-1)


def contrastive(scores: Array, allowed: Array) -> tuple[Array, Array]:
    """Softmax cross-entropy of the true pair among its K candidates, in both directions.

    Args:
      scores: [G, K, K] f32; the true pairs are on the diagonal.
      allowed: [G, K, K] bool: the candidates that count.

    Returns:
      Caption → photos and photo → captions, [G, K] f32 each.
    """
    scores = jnp.where(allowed, scores, -jnp.inf)
    true = jnp.diagonal(scores, axis1=1, axis2=2)
    return jax.nn.logsumexp(scores, axis=2) - true, jax.nn.logsumexp(scores, axis=1) - true


def soft_contrast(logits: Array, image_ids: Array) -> Array:
    """Cross-entropy with what shows the same photo: every such column is as right as the others.

    Args:
      logits: [K, B, B] f32, K times B rows that look for their match among B columns.
      image_ids: [B] i32, equal where two rows show the same photo.

    Returns:
      [K, B] f32.
    """
    same = (image_ids[:, None] == image_ids[None, :]).astype(jnp.float32)
    target = same / same.sum(-1, keepdims=True)
    return -(target[None] * jax.nn.log_softmax(logits)).sum(-1)
