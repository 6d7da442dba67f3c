"""The losses of the study: per example, unreduced, and their sum over a batch.

MLM and MRM count on matched pairs alone, for what a wrong caption says of a photo teaches nothing;
LXMERT's count on all (`readings`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmt_jax.configs.config import ObjectiveConfig
from mmt_jax.errors import UsageError
from mmt_jax.models.base import Encoded, Fused, Model, take
from mmt_jax.nn.heads import MATCH
from mmt_jax.nn.primitives import split
from mmt_jax.objectives import answers, corruption, embedding, pairing
from mmt_jax.objectives.readings import READINGS
from mmt_jax.typing import Array, Batch, Image, Metric, Params

Losses = dict[str, Metric]
Keys = dict[str, Any]  # by use; None switches dropout off there


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


def smooth_l1(predicted: Array, features: Array) -> Array:
    """Huber's loss with δ = 1, mean over features (LXMERT): [..., F] twice → [...] f32."""
    error = jnp.abs(predicted.astype(jnp.float32) - features)
    return jnp.mean(jnp.where(error < 1, 0.5 * error**2, error - 0.5), axis=-1)


def soft_contrast(logits: Array, image_ids: Array) -> Array:
    """Cross-entropy with what shows the same photo: every such column is as right as the others.

    Args:
      logits: [K, B, B] f32, K times B rows that look for their match among B columns.
      image_ids: [B] i32, equal where two rows show the same photo.

    Returns:
      [K, B] f32.
    """
    same = (image_ids[:, None] == image_ids[None, :]).astype(jnp.float32)
    return -(same / same.sum(-1, keepdims=True) * jax.nn.log_softmax(logits)).sum(-1)


def compute(
    model: Model, params: Params, batch: Batch, *, key: jax.Array, dropout: bool = True
) -> tuple[Array, Losses]:
    """The training loss of one batch, [] f32, and `terms`; arguments as there."""
    losses = terms(model, params, batch, key=key, dropout=dropout)
    return total(model.config.objective, losses), losses


def total(
    objective: ObjectiveConfig, losses: Losses, counts: Mapping[str, Array] | None = None
) -> Array:
    """The training loss, [] f32: the weighted means of the terms that are trained.

    Args:
      objective: of the run.
      losses: from `terms`.
      counts: by name, what to divide a term's sum by; None = by its own count. Of a batch in parts
        these are the counts of all parts, so that the parts' losses add up to that of the batch.
    """
    weights = {
        **dict.fromkeys(("itm", "attract", "repel"), 1.0),
        "mlm": objective.mlm,
        **dict.fromkeys(("mrm", "classes", "attributes", "features"), objective.mrm),
        "itc": objective.itc,
        "answers": objective.answers,
        # The mean of two means, which reaches no other parameter.
        **dict.fromkeys(("calibration_true", "calibration_wrong"), 0.5),
    }
    counts = counts or {name: metric.count for name, metric in losses.items()}
    parts = [
        weight * losses[name].sum / jnp.maximum(counts[name], 1)
        for name, weight in weights.items()
        if name in losses
    ]
    return jnp.stack(parts).sum()


def terms(
    model: Model, params: Params, batch: Batch, *, key: jax.Array, dropout: bool = True
) -> Losses:
    """What is trained and measured on one batch.

    Args:
      model: any model; its config's objective and task say which losses there are.
      params: its parameters.
      batch: B matched pairs, or records of the task.
      key: random key of pairing, corruption and dropout.
      dropout: off for evaluation.

    Returns:
      `itm`, `mlm`, `mrm`, `itc`, `answers` where they are trained (LXMERT's `mrm` in its parts, the
      loss "pairs" as `attract` and `repel`), `calibration_true` and `calibration_wrong` of
      contrastive models, `itm_accuracy` (of the two-way answer, or of caption → photo among the
      candidates) and `answers_score`.

    Raises:
      UsageError: a contrastive objective whose candidates do not divide the batch.
    """
    objective = model.config.objective
    keys: Keys = dict(zip(_KEYS, jax.random.split(key, len(_KEYS))))
    if not dropout:
        keys |= dict.fromkeys(("text", "image", "fuse", "whole", "contrast", "candidates"))
    contrasted = objective.itc and model.embeds and not model.separable
    on_pairs = objective.itm != "none" or contrasted or objective.mrm
    if model.config.task.name and not (on_pairs or objective.mlm):
        answered = answers.logits(model, params, batch, key=keys["fuse"])
        return answers.metrics(model, answered, batch.targets)
    if on_pairs or model.fuses:
        return _of_pairs(model, params, batch, keys)
    text, words, *_ = _hidden(model, batch, keys)
    states = model.encode_text(params, text, key=keys["text"]).states
    everything = jnp.ones(text.mask.shape[0], bool)
    return {"mlm": _words_loss(model, params, states, words, everything)}


_KEYS = ("words", "regions", "pairs", "text", "image", "fuse", "whole", "contrast", "candidates")


def _hidden(
    model: Model, batch: Batch, keys: Keys
) -> tuple[Any, Any, Any, Any]:  # which of them there are, data and objective say
    """Captions with what is hidden of them, and that; photos with what is, and where."""
    config, objective = model.config.model, model.config.objective
    reading = READINGS[objective.reading]
    text, words, image, regions = batch.text, None, batch.image, None
    if objective.mlm:
        text, words = reading.hide_words(
            text,
            rate=objective.mlm_rate,
            vocab_size=config.vocab_size,
            mask_id=config.mask_id,
            key=keys["words"],
        )
    if objective.mrm:
        image, regions = reading.hide_regions(
            image,
            rate=objective.mrm_rate,
            global_region=config.global_region,
            key=keys["regions"],
        )
    return text, words, image, regions


def _of_pairs(model: Model, params: Params, batch: Batch, keys: Keys) -> Losses:
    """The losses of captions that meet photos."""
    assert batch.text is not None
    assert batch.image is not None
    objective = model.config.objective
    reading, masked = READINGS[objective.reading], objective.mlm or objective.mrm
    text, words, image, regions = _hidden(model, batch, keys)
    items = (
        model.encode_text(params, text, key=keys["text"]),
        model.encode_image(params, image, key=keys["image"]),
    )
    apart, whole = bool(reading.apart and masked), items
    if apart:
        of_text, of_image = split(keys["whole"], 2)
        whole = (
            model.encode_text(params, batch.text, key=of_text),
            model.encode_image(params, batch.image, key=of_image),
        )
    losses: Losses = {}
    contrast = None
    if objective.itc and model.embeds and not model.separable:
        contrast = model.contrast(params, *whole, key=keys["contrast"])
        losses["itc"] = Metric.of(soft_contrast(contrast, batch.image_ids).mean(axis=0))
    pairs = _meet(model, batch.image_ids, contrast, keys["pairs"])
    kept = bool(masked) and not apart  # the states that the match has seen are learned from
    fused: Any = None
    if objective.itm != "none" or kept or (batch.targets is not None and not apart):
        fused = _fuse(model, params, whole, pairs, keys["fuse"], states=kept)
    if objective.itm == "classification":
        losses |= _classification(fused.logits, pairs.matched)
    elif objective.itm == "contrastive":
        candidates = _by_embeddings if _embeds_candidates(model) else _jointly
        losses |= candidates(model, params, *whole, batch.image_ids, keys["candidates"])
    if apart:
        pairs = pairing.matched(len(batch.image_ids))
        fused = _fuse(model, params, items, pairs, keys["fuse"], states=True)

    matched = jnp.take(pairs.matched, pairs.aligned)
    counted = jnp.ones_like(matched) if reading.mismatched else matched
    if objective.mlm:
        states = jnp.take(fused.text, pairs.aligned, axis=0)
        losses["mlm"] = _words_loss(model, params, states, words, counted)
    if objective.mrm:
        states = jnp.take(fused.image, pairs.aligned, axis=0)
        # The photo that a caption met is its own where they match.
        shown, chosen = batch.image, regions & counted[:, None]
        if reading.mismatched:
            met = jnp.take(pairs.image, pairs.aligned)
            shown, chosen = take(batch.image, met), jnp.take(chosen, met, axis=0)
        if reading.detector:
            losses |= _detector_losses(model, params, states, shown, chosen)
        else:
            losses["mrm"] = _regions_loss(model, params, states, shown, chosen)
    if batch.targets is not None:
        answered = model.answers(params, take(fused.pooled, pairs.aligned))
        losses |= answers.metrics(model, answered, batch.targets, matched)
    return losses


def _meet(model: Model, image_ids: Array, contrast: Any, key: jax.Array) -> pairing.Pairs:
    """Who meets whom for the match; `contrast` is None in models without one."""
    objective, batch = model.config.objective, len(image_ids)
    if objective.itm == "classification":
        if objective.negatives == "hard":
            return pairing.hard(contrast[0], image_ids, key=key)
        return pairing.mismatched(image_ids, rate=objective.mismatch, key=key)
    return pairing.matched(batch)


def _fuse(
    model: Model,
    params: Params,
    items: tuple[Encoded, Encoded],
    pairs: pairing.Pairs,
    key: jax.Array | None,
    *,
    states: bool,
) -> Fused:
    text, image = take(items[0], pairs.text), take(items[1], pairs.image)
    return model.fuse(params, text, image, key=key, states=states)


def _embeds_candidates(model: Model) -> bool:
    """Whether candidates are scored by products of embeddings; a loss a layer needs the layers."""
    return model.separable and not model.config.objective.hloss


def _by_embeddings(
    model: Model, params: Params, text: Encoded, image: Encoded, image_ids: Array, key: Any
) -> Losses:
    """Contrastive ITM of B captions and photos, by products of their embeddings."""
    del key
    objective, num = model.config.objective, model.config.objective.candidates
    embeddings = model.embed_text(params, text), model.embed_image(params, image)
    allowed = pairing.distinct(image_ids, num=num)
    groups = (x.reshape(-1, num, x.shape[-1]) for x in embeddings)
    scores = jnp.einsum("gie,gje->gij", *groups)[None]
    losses = _contrastive(scores, model.logits(params, scores), allowed)
    if objective.loss != "softmax":
        del losses["itm"]
        losses |= embedding.LOSSES[objective.loss](*embeddings, image_ids)
    return losses


def _jointly(
    model: Model,
    params: Params,
    text: Encoded,
    image: Encoded,
    image_ids: Array,
    key: jax.Array | None,
) -> Losses:
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

    def scores_of(item: tuple[Encoded, Array]) -> Array:
        """[G, rows, ...] captions → scores [L, G, rows, K]."""
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


def _classification(logits: Array, matched: Array) -> Losses:
    """Two-way answers [L, P, 2], averaged over the L layers that answer."""
    labels = jnp.where(matched, MATCH, 1 - MATCH)
    losses = cross_entropy(logits, jnp.broadcast_to(labels, logits.shape[:-1])).mean(axis=0)
    right = jnp.argmax(logits[-1], axis=-1) == labels
    return {"itm": Metric.of(losses), "itm_accuracy": Metric.of(right.astype(jnp.float32))}


def _contrastive(scores: Array, logits: Array, allowed: Array) -> Losses:
    """Scores [L, G, K, K] and their calibrated logits [L, G, K, K, 2]; `allowed` [G, K, K]."""
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
        assert image.class_probs is not None
        known = image.class_probs.sum(-1) > 0
        divergence = class_divergence(predicted[..., :classes], image.class_ids, image.class_probs)
        loss, chosen = Metric.of(divergence, chosen & known), chosen & ~known
    if model.config.model.regressed:
        loss += Metric.of(feature_error(predicted[..., classes:], image.features), chosen)
    return loss


def _detector_losses(
    model: Model, params: Params, states: Array, image: Image, chosen: Array
) -> Losses:
    """LXMERT's `classes`, `attributes` and `features` of regions [B, R], as far as it has them.

    Its code weighs labels by the detector's confidence, on all regions and not on those that are
    hidden (airsplay/lxmert, issue 41); features count where they are hidden. Each is a mean over
    all regions, divided by the rate at which they are hidden.
    """
    config, rate = model.config.model, max(model.config.objective.mrm_rate, 1e-9)
    predicted, real = model.regions(params, states), image.mask
    losses: Losses = {}
    if config.num_classes:
        logits = predicted[..., : config.num_classes]
        losses["classes"] = _confident(logits, image.class_ids, image.class_probs, real, rate)
    if config.num_attributes:
        if image.attribute_ids is None:
            raise UsageError(
                f"config.model.num_attributes is {config.num_attributes}, but the photos' regions "
                f"have no attributes; set it to 0"
            )
        logits = model.attributes(params, states)
        losses["attributes"] = _confident(
            logits, image.attribute_ids, image.attribute_probs, real, rate
        )
    if config.regressed:
        errors = smooth_l1(predicted[..., config.num_classes :], image.features)
        losses["features"] = Metric.of(jnp.where(chosen, errors, 0.0) / rate, real)
    return losses


def _confident(logits: Array, ids: Array, probs: Array, real: Array, rate: float) -> Metric:
    """The likeliest of a region's labels, weighed by how sure the detector is of it."""
    best = jnp.argmax(probs, axis=-1)[..., None]
    label = jnp.take_along_axis(ids, best, axis=-1)[..., 0]
    confidence = jnp.take_along_axis(probs, best, axis=-1)[..., 0]
    return Metric.of(confidence * cross_entropy(logits, label) / rate, real)
