"""Losses on the embeddings of captions and photos, for models that have them.

Row b of the text embeddings is a caption of row b of the image embeddings. `labels` [B] are equal
where two rows show the same photo, so that no caption is pushed away from a photo that it
describes. The implementations cited know no such rows: a running number as labels is their reading.

Losses of pairs and triplets are 0 where there is no such pair or triplet; `mean` is their mean over
those that are left.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Float32, Int

from mmt_jax.nn.primitives import unit
from mmt_jax.typing import Array, Metric, Metrics

Embeddings = Float[Array, "B E"]

_TINY = 1e-12  # below it, a squared distance counts as 0 and gets no gradient


def mean(losses: Float[Array, "*b"]) -> Metric:
    """The mean over entries that are not 0, as pytorch-metric-learning reduces by default."""
    return Metric.of(losses, losses > 0)


def hinge(
    scores: Float[Array, "B B"],
    labels: Int[Array, " B"],
    *,
    margin: float = 0.2,
    hardest: bool = True,
) -> tuple[Float32[Array, " B"], Float32[Array, " B"]]:
    """How far mismatched pairs come within `margin` of the true one.

    max(0, margin + s(i, j) - s(i, i)), for the hardest j (VSE++, Faghri et al., 2018, arXiv
    1707.05612; TERN, Messina et al., 2020, arXiv 2004.09144) or summed over all j (Kiros et al.,
    2014, arXiv 1411.2539). The margin, in units of the scores, is VSE++'s for cosines. Of captions
    (rows) → photos, and of photos → captions.
    """
    scores = scores.astype(jnp.float32)
    true = jnp.diagonal(scores)
    wrong = labels[:, None] != labels[None, :]
    of_captions = jnp.where(wrong, jax.nn.relu(margin + scores - true[:, None]), 0.0)
    of_photos = jnp.where(wrong, jax.nn.relu(margin + scores - true[None, :]), 0.0)
    if hardest:
        return of_captions.max(axis=1), of_photos.max(axis=0)
    return of_captions.sum(axis=1), of_photos.sum(axis=0)


def triplet(
    text: Embeddings,
    image: Embeddings,
    labels: Int[Array, " B"],
    *,
    margin: float = 0.05,
    distance: str = "euclidean",
    miner: str = "all",
) -> Float32[Array, "2*B 2*B 2*B"]:
    """max(0, d(a, p) - d(a, n) + margin) by anchor, positive, negative (Schroff et al., 2015).

    Captions and photos stand in one list, so that negatives are of both modalities, as kaylode/tern
    trains with pytorch-metric-learning's TripletMarginLoss, whose margin is the default here. It is
    in units of the `distance` of unit vectors, see `DISTANCES`. The `miner` says which triplets
    count: "all"; "hard" ones, whose negative is no farther than the positive; "semihard" ones,
    whose negative is farther, but by less than the margin.
    """
    distances, positive, negative = _joined(text, image, labels, distance)
    farther = distances[:, None, :] - distances[:, :, None]  # negatives than positives
    mined = {"all": True, "hard": farther <= 0, "semihard": farther > 0}[miner]
    counted = positive[:, :, None] & negative[:, None, :] & mined
    return jnp.where(counted, jax.nn.relu(margin - farther), 0.0)


def contrastive(
    text: Embeddings,
    image: Embeddings,
    labels: Int[Array, " B"],
    *,
    positive_margin: float = 0.0,
    negative_margin: float = 1.0,
    distance: str = "euclidean",
) -> tuple[Float32[Array, "2*B 2*B"], Float32[Array, "2*B 2*B"]]:
    """Matching pairs attract, others repel, each up to a margin (Hadsell et al., 2006).

    Captions and photos stand in one list, as in `triplet`. As kaylode/tern trains by default with
    pytorch-metric-learning's ContrastiveLoss: distances (see `DISTANCES`) are not squared. Below
    `positive_margin` matching pairs no longer attract, above `negative_margin` others no longer
    repel. What attracts and what repels; the loss is the sum of their `mean`s.
    """
    distances, positive, negative = _joined(text, image, labels, distance)
    attract = jnp.where(positive, jax.nn.relu(distances - positive_margin), 0.0)
    return attract, jnp.where(negative, jax.nn.relu(negative_margin - distances), 0.0)


def nt_xent(
    text: Embeddings, image: Embeddings, labels: Int[Array, " B"], *, temperature: float = 0.07
) -> Float32[Array, "2*B 2*B"]:
    """-log of a positive's share among itself and all negatives (SimCLR, Chen et al., 2020).

    Captions and photos stand in one list, as in `triplet`. Other positives of an anchor do not
    count, as in pytorch-metric-learning's NTXentLoss, whose temperature is the default here. By
    anchor and positive.
    """
    everything = unit(jnp.concatenate([text, image]))
    positive, negative = _relations(labels)
    logits = everything @ everything.T / temperature
    against = jax.nn.logsumexp(logits, axis=1, keepdims=True, where=negative)
    return jnp.where(positive, jax.nn.softplus(against - logits), 0.0)


def convirt(
    text: Embeddings,
    image: Embeddings,
    labels: Int[Array, " B"],
    *,
    temperature: float = 1.0,
    weight: float = 0.5,
) -> Float32[Array, " B"]:
    """Softmax cross-entropy of the true pair in both directions (ConVIRT, arXiv 2010.00747).

    Zhang et al. (2020), eq. 2 to 4; the defaults are those of kaylode/tern's `custom_nxtent`.
    `weight` is of photo → captions, and the rest of caption → photos.
    """
    logits = unit(text) @ unit(image).T / temperature
    allowed = (labels[:, None] != labels[None, :]) | jnp.eye(len(labels), dtype=bool)
    true = jnp.diagonal(logits)
    to_photos = jax.nn.logsumexp(logits, axis=1, where=allowed) - true
    to_captions = jax.nn.logsumexp(logits, axis=0, where=allowed) - true
    return weight * to_captions + (1 - weight) * to_photos


def _hinge(
    text: Embeddings, image: Embeddings, labels: Int[Array, " B"], **settings: Any
) -> Metrics:
    """Of the model's own scores, which are cosines where its embeddings are unit vectors."""
    of_captions, of_photos = hinge(text @ image.T, labels, **settings)
    return {"itm": Metric.of(of_captions + of_photos)}


def _contrastive(*pairs: Array, **settings: Any) -> Metrics:
    attract, repel = contrastive(*pairs, **settings)
    return {"attract": mean(attract), "repel": mean(repel)}


# By name: embeddings [B, E] of captions and photos, labels, settings by name → terms, whose means
# are added.
LOSSES: dict[str, Callable[..., Metrics]] = {
    "hinge": _hinge,
    "hinge_sum": functools.partial(_hinge, hardest=False),
    "triplet": lambda *pairs, **settings: {"itm": mean(triplet(*pairs, **settings))},
    "pairs": _contrastive,
    "nt_xent": lambda *pairs, **settings: {"itm": mean(nt_xent(*pairs, **settings))},
    "convirt": lambda *pairs, **settings: {"itm": Metric.of(convirt(*pairs, **settings))},
}


def _euclidean(cosines: Float[Array, "*b"]) -> Float[Array, "*b"]:
    squared = 2.0 - 2.0 * cosines
    apart = squared > _TINY  # the root has no gradient at 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)


# By name: cosines → distances of unit vectors. With 1 - cosine, pairs and triplets have the losses
# of pytorch-metric-learning's CosineSimilarity, of which a margin m is 1 - m here where it is one
# of similarity.
DISTANCES = {"euclidean": _euclidean, "cosine": lambda cosines: 1.0 - cosines}


def _relations(labels: Int[Array, " B"]) -> tuple[Bool[Array, "2*B 2*B"], Bool[Array, "2*B 2*B"]]:
    """Which of 2B captions and photos match which others, and which do not."""
    labels = jnp.concatenate([labels, labels])
    same = labels[:, None] == labels[None, :]
    return same & ~jnp.eye(len(labels), dtype=bool), ~same


def _joined(
    text: Embeddings, image: Embeddings, labels: Int[Array, " B"], distance: str
) -> tuple[Float32[Array, "2*B 2*B"], Bool[Array, "2*B 2*B"], Bool[Array, "2*B 2*B"]]:
    """Distances of 2B captions and photos, and their `_relations`."""
    everything = unit(jnp.concatenate([text, image]))
    return DISTANCES[distance](everything @ everything.T), *_relations(labels)
