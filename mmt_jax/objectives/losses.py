"""What is trained on a batch: the study's losses, a system's own, a task's; and their sum.

MLM and MRM count on matched pairs alone, for what a wrong caption says of a photo teaches nothing;
LXMERT's count on all (`readings`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Float32, Int

from mmt_jax.configs.config import ObjectiveConfig
from mmt_jax.models.base import Encoded, Fused, Model, take
from mmt_jax.nn.primitives import split
from mmt_jax.objectives import answers, corruption, matching, pairing
from mmt_jax.objectives.per_example import (
    class_divergence,
    cross_entropy,
    feature_error,
    smooth_l1,
    soft_contrast,
)
from mmt_jax.objectives.readings import READINGS
from mmt_jax.typing import Array, Batch, Image, Key, Metric, Metrics, Params

Keys = dict[str, Any]  # by use; None switches dropout off there


def compute(
    model: Model, params: Params, batch: Batch, *, key: jax.Array, dropout: bool = True
) -> tuple[Float32[Array, ""], Metrics]:
    """The training loss of one batch, and `terms`; arguments as there."""
    losses = terms(model, params, batch, key=key, dropout=dropout)
    return total(model.config.objective, losses), losses


def total(
    objective: ObjectiveConfig, losses: Metrics, counts: Mapping[str, Array] | None = None
) -> Float32[Array, ""]:
    """The training loss: the weighted means of the terms that are trained.

    A term's sum is divided by its own count, or by `counts`: of a batch in parts the counts of all
    parts, so that the parts' losses add up to that of the batch.
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
    return sum(parts[1:], start=parts[0])


def terms(
    model: Model, params: Params, batch: Batch, *, key: jax.Array, dropout: bool = True
) -> Metrics:
    """What is trained and measured on one batch.

    The config's objective and task say which losses there are. `key` is of pairing, corruption and,
    but for evaluation, dropout. UsageError: a contrastive objective whose candidates do not divide
    the batch.

    There are `itm`, `mlm`, `mrm`, `itc`, `answers` where they are trained (LXMERT's `mrm` in its
    parts, the loss "pairs" as `attract` and `repel`), `calibration_true` and `calibration_wrong` of
    contrastive models, `itm_accuracy` (of the two-way answer, or of caption → photo among the
    candidates) and `answers_score`.
    """
    objective = model.config.objective
    keys: Keys = dict(zip(_KEYS, jax.random.split(key, len(_KEYS))))
    if not dropout:
        keys |= dict.fromkeys(("text", "image", "fuse", "whole", "contrast", "candidates"))
    contrasted = objective.itc and model.embeds and not model.separable
    on_pairs = objective.itm != "none" or contrasted or objective.mrm
    if model.config.task.name and not (on_pairs or objective.mlm):
        assert batch.targets is not None
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


def _of_pairs(model: Model, params: Params, batch: Batch, keys: Keys) -> Metrics:
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
    apart, whole, of_pairs = bool(reading.apart and masked), items, keys["fuse"]
    if apart:
        of_text, of_image, of_pairs = split(keys["whole"], 3)
        whole = (
            model.encode_text(params, batch.text, key=of_text),
            model.encode_image(params, batch.image, key=of_image),
        )
    losses: Metrics = {}
    contrast = None
    if objective.itc and model.embeds and not model.separable:
        contrast = model.contrast(params, *whole, key=keys["contrast"])
        losses["itc"] = Metric.of(soft_contrast(contrast, batch.image_ids).mean(axis=0))
    pairs = matching.meet(model, batch.image_ids, contrast, keys["pairs"])
    kept = bool(masked) and not apart  # the states that the match has seen are learned from
    fused: Any = None
    if objective.itm != "none" or kept or (batch.targets is not None and not apart):
        fused = _fuse(model, params, whole, pairs, of_pairs, states=kept)
    if objective.itm == "classification":
        losses |= matching.classification(fused.logits, pairs.matched)
    elif objective.itm == "contrastive":
        losses |= matching.candidates(model, params, *whole, batch.image_ids, keys["candidates"])
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


def _fuse(
    model: Model,
    params: Params,
    items: tuple[Encoded, Encoded],
    pairs: pairing.Pairs,
    key: Key,
    *,
    states: bool,
) -> Fused:
    text, image = take(items[0], pairs.text), take(items[1], pairs.image)
    return model.fuse(params, text, image, key=key, states=states)


def _words_loss(
    model: Model,
    params: Params,
    states: Float[Array, "B T D"],
    words: corruption.WordTargets,
    matched: Bool[Array, " B"],
) -> Metric:
    """MLM on text states of aligned pairs."""
    hidden = jnp.take_along_axis(states, words.positions[..., None], axis=1)
    losses = cross_entropy(model.words(params, hidden), words.token_ids)
    return Metric.of(losses, words.mask & matched[:, None])


def _regions_loss(
    model: Model,
    params: Params,
    states: Float[Array, "B R D"],
    image: Image,
    chosen: Bool[Array, "B R"],
) -> Metric:
    """MRM on region states of aligned pairs where `chosen` is True.

    A region whose class distribution is known has to be classified, any other regressed.
    """
    predicted, classes = model.regions(params, states), model.config.model.num_classes
    loss = Metric.of(jnp.zeros(()), jnp.zeros((), bool))
    if classes:
        assert image.class_ids is not None
        assert image.class_probs is not None
        known = image.class_probs.sum(-1) > 0
        divergence = class_divergence(predicted[..., :classes], image.class_ids, image.class_probs)
        loss, chosen = Metric.of(divergence, chosen & known), chosen & ~known
    if model.config.model.regressed:
        loss += Metric.of(feature_error(predicted[..., classes:], image.features), chosen)
    return loss


def _detector_losses(
    model: Model,
    params: Params,
    states: Float[Array, "B R D"],
    image: Image,
    chosen: Bool[Array, "B R"],
) -> Metrics:
    """LXMERT's `classes`, `attributes` and `features` of regions, as far as it has them.

    Its code weighs labels by the detector's confidence, on all regions and not on those that are
    hidden (airsplay/lxmert, issue 41); features count where they are hidden. Each is a mean over
    all regions, divided by the rate at which they are hidden.
    """
    config, rate = model.config.model, max(model.config.objective.mrm_rate, 1e-9)
    predicted, real = model.regions(params, states), image.mask
    losses: Metrics = {}
    if config.num_classes:
        logits = predicted[..., : config.num_classes]
        losses["classes"] = _confident(logits, image.class_ids, image.class_probs, real, rate)
    if config.num_attributes:
        assert image.attribute_ids is not None
        logits = model.attributes(params, states)
        losses["attributes"] = _confident(
            logits, image.attribute_ids, image.attribute_probs, real, rate
        )
    if config.regressed:
        errors = smooth_l1(predicted[..., config.num_classes :], image.features)
        losses["features"] = Metric.of(jnp.where(chosen, errors, 0.0) / rate, real)
    return losses


def _confident(
    logits: Float32[Array, "B R C"],
    ids: Int[Array, "B R k"] | None,
    probs: Float[Array, "B R k"] | None,
    real: Bool[Array, "B R"],
    rate: float,
) -> Metric:
    """The likeliest of a region's labels, weighed by how sure the detector is of it."""
    assert ids is not None
    assert probs is not None
    best = jnp.argmax(probs, axis=-1)[..., None]
    label = jnp.take_along_axis(ids, best, axis=-1)[..., 0]
    confidence = jnp.take_along_axis(probs, best, axis=-1)[..., 0]
    return Metric.of(confidence * cross_entropy(logits, label) / rate, real)
