"""The losses of the study: per example, unreduced, and their sum over a batch.

MLM and MRM count on matched pairs alone: what a wrong caption says of a photo teaches nothing.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mmt_jax.models.base import Encoded, Fused, Model, take
from mmt_jax.nn.heads import MATCH
from mmt_jax.objectives import corruption, embedding, pairing
from mmt_jax.typing import Array, Batch, Image, Metric, Params

Losses = dict[str, Metric]


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
    given = class_probs > 0
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


def compute(
    model: Model, params: Params, batch: Batch, *, key: jax.Array, dropout: bool = True
) -> tuple[Array, Losses]:
    """The training loss of one batch.

    Args:
      model: any model; its config's objective says which losses there are.
      params: its parameters.
      batch: B matched pairs.
      key: random key of pairing, corruption and dropout.
      dropout: off for evaluation.

    Returns:
      The loss, [] f32, and its terms: `itm`, `mlm`, `mrm`, `itc` where they are trained,
      `calibration` of contrastive models, and `itm_accuracy` (of the two-way answer, or of
      caption → photo among the candidates).

    Raises:
      UsageError: a contrastive objective whose candidates do not divide the batch.
    """
    objective, keys = model.config.objective, jax.random.split(key, 6)
    dropout_keys = list(keys[3:]) if dropout else [None] * 3
    text, words, image, regions = batch.text, None, batch.image, None
    if objective.mlm:
        text, words = corruption.mask_words(
            text,
            rate=objective.mlm_rate,
            vocab_size=model.config.model.vocab_size,
            mask_id=model.config.model.mask_id,
            key=keys[0],
        )
    if objective.mrm:
        image, regions = corruption.mask_regions(
            image,
            rate=objective.mrm_rate,
            global_region=model.config.model.global_region,
            key=keys[1],
        )

    encoded_text = model.encode_text(params, text, key=dropout_keys[0])
    if objective.itm == "none":
        everything = jnp.ones(text.mask.shape[0], bool)
        losses = {"mlm": _words_loss(model, params, encoded_text.states, words, everything)}
        return objective.mlm * losses["mlm"].mean, losses
    encoded_image = model.encode_image(params, image, key=dropout_keys[1])

    if objective.itm == "classification":
        pairs = pairing.mismatched(batch.image_ids, rate=objective.mismatch, key=keys[2])
    elif _by_embeddings(model):
        pairs = pairing.matched(len(batch.image_ids))
    else:
        pairs = pairing.candidates(len(batch.image_ids), num=objective.candidates)
    fused = model.fuse(
        params,
        take(encoded_text, pairs.text),
        take(encoded_image, pairs.image),
        key=dropout_keys[2],
    )
    if objective.itm == "classification":
        losses = _classification(fused.logits, pairs.matched)
    else:
        losses = _among_candidates(
            model, params, encoded_text, encoded_image, fused, image_ids=batch.image_ids
        )
    if objective.itc and model.embeds and not model.separable:
        losses["itc"] = _image_text_contrast(
            model, params, encoded_text, encoded_image, image_ids=batch.image_ids
        )

    matched = jnp.take(pairs.matched, pairs.aligned)
    if objective.mlm:
        states = jnp.take(fused.text, pairs.aligned, axis=0)
        losses["mlm"] = _words_loss(model, params, states, words, matched)
    if objective.mrm:
        states = jnp.take(fused.image, pairs.aligned, axis=0)
        chosen = regions & matched[:, None]
        losses["mrm"] = _regions_loss(model, params, states, batch.image, chosen)
    weights = {
        "itm": 1.0,
        "mlm": objective.mlm,
        "mrm": objective.mrm,
        "itc": objective.itc,
        "calibration": 1.0,  # reaches no other parameter
    }
    total = sum(weights[name] * losses[name].mean for name in weights if name in losses)
    return total, losses


def _by_embeddings(model: Model) -> bool:
    """Whether candidates are scored by products of embeddings; a loss a layer needs the layers."""
    return model.separable and not model.config.objective.hloss


def _among_candidates(
    model: Model, params: Params, text: Encoded, image: Encoded, fused: Fused, *, image_ids: Array
) -> Losses:
    """Contrastive ITM of B captions and photos, by their embeddings or by `fused` candidates."""
    objective, num = model.config.objective, model.config.objective.candidates
    allowed = pairing.distinct(image_ids, num=num)
    if not _by_embeddings(model):
        scores = fused.scores.reshape(fused.scores.shape[0], -1, num, num)
        return _contrastive(scores, model.logits(params, scores), allowed)
    embeddings = model.embed_text(params, text), model.embed_image(params, image)
    scores = _embedding_scores(*embeddings, num=num)
    losses = _contrastive(scores, model.logits(params, scores), allowed)
    if objective.loss != "softmax":
        losses["itm"] = embedding.LOSSES[objective.loss](*embeddings, image_ids)
    return losses


def _image_text_contrast(
    model: Model, params: Params, text: Encoded, image: Encoded, *, image_ids: Array
) -> Metric:
    """Of models that embed beside a joint score: among all B captions and photos of the batch."""
    scale = model.contrast_scale(params)
    scores = scale * model.embed_text(params, text) @ model.embed_image(params, image).T
    allowed = pairing.distinct(image_ids, num=len(image_ids))
    return Metric.of(sum(contrastive(scores[None], allowed)) / 2)


def _classification(logits: Array, matched: Array) -> Losses:
    """Two-way answers [L, P, 2], averaged over the L layers that answer."""
    labels = jnp.where(matched, MATCH, 1 - MATCH)
    losses = cross_entropy(logits, jnp.broadcast_to(labels, logits.shape[:-1])).mean(axis=0)
    right = jnp.argmax(logits[-1], axis=-1) == labels
    return {"itm": Metric.of(losses), "itm_accuracy": Metric.of(right.astype(jnp.float32))}


def _contrastive(scores: Array, logits: Array, allowed: Array) -> Losses:
    """Scores [L, G, K, K] and their calibrated logits [L, G, K, K, 2]; `allowed` [G, K, K]."""
    losses = jax.vmap(lambda layer: sum(contrastive(layer, allowed)) / 2)(scores).mean(axis=0)
    best = jnp.argmax(jnp.where(allowed, scores[-1], -jnp.inf), axis=-1)
    right = best == jnp.arange(scores.shape[-1])[None, :]
    # Matched and mismatched pairs weigh the same, as they do in classification.
    true = jnp.broadcast_to(jnp.eye(scores.shape[-1], dtype=bool), allowed.shape)
    errors = cross_entropy(logits[-1], jnp.where(true, MATCH, 1 - MATCH))
    matched, wrong = Metric.of(errors, true), Metric.of(errors, allowed & ~true)
    return {
        "itm": Metric.of(losses),
        "itm_accuracy": Metric.of(right.astype(jnp.float32)),
        "calibration": Metric((matched.mean + wrong.mean) / 2, jnp.ones(())),
    }


def _embedding_scores(text: Array, image: Array, *, num: int) -> Array:
    """Embeddings [B, E] of captions and photos → [1, G, K, K]: one matrix product a group."""
    text, image = (x.reshape(-1, num, x.shape[-1]) for x in (text, image))
    return jnp.einsum("gie,gje->gij", text, image)[None]


def _words_loss(
    model: Model, params: Params, states: Array, words: corruption.WordTargets, matched: Array
) -> Metric:
    """MLM on text states [B, T, D] of aligned pairs, `matched` [B] bool."""
    hidden = jnp.take_along_axis(states, words.positions[..., None], axis=1)
    losses = cross_entropy(model.words(params, hidden), words.token_ids)
    return Metric.of(losses, words.mask & matched[:, None])


def _regions_loss(
    model: Model, params: Params, states: Array, image: Image, chosen: Array
) -> Metric:
    """MRM on region states [B, R, D] of aligned pairs where `chosen` [B, R] is True.

    A region whose class distribution is known has to be classified, any other regressed.
    """
    predicted, classes = model.regions(params, states), model.config.model.num_classes
    loss = Metric.of(jnp.zeros(()), jnp.zeros((), bool))
    if classes:
        known = image.class_probs.sum(-1) > 0
        divergence = class_divergence(predicted[..., :classes], image.class_ids, image.class_probs)
        loss, chosen = Metric.of(divergence, chosen & known), chosen & ~known
    if model.config.model.regressed:
        loss += Metric.of(feature_error(predicted[..., classes:], image.features), chosen)
    return loss
