"""Who meets whom: which captions of a batch are fused with which of its photos.

`image_ids` are equal where two rows show the same photo.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from mmt_jax.errors import UsageError
from mmt_jax.typing import Array, record


@record
class Pairs:
    """P pairs of a batch of B captions and photos, row p: caption text[p] meets photo image[p]."""

    text: Int[Array, " P"]
    image: Int[Array, " P"]
    matched: Bool[Array, " P"]
    aligned: Int[Array, " B"]  # the pair in which caption b stands, with its own photo if matched


def mismatched(image_ids: Int[Array, " B"], *, rate: float, key: jax.Array) -> Pairs:
    """B pairs, of which round(rate · B) get a photo that is not theirs.

    A caption that finds no other photo in the batch keeps its own and stays matched.
    """
    pick, draw = jax.random.split(key)
    batch = image_ids.shape[0]
    rows = jnp.arange(batch)
    wrong = jax.random.permutation(pick, batch) < round(rate * batch)
    differs = image_ids[:, None] != image_ids[None, :]
    draws = jnp.where(differs, jax.random.uniform(draw, (batch, batch)), -1.0)
    wrong &= differs.any(axis=1)
    image = jnp.where(wrong, jnp.argmax(draws, axis=1), rows)
    return Pairs(rows, image, ~wrong, rows)


def hard(logits: Float[Array, "B B"], image_ids: Int[Array, " B"], *, key: jax.Array) -> Pairs:
    """B matched pairs, then each caption with a wrong photo, then each photo with a wrong caption.

    What is wrong is drawn by how well it seems to fit, as ALBEF does (Li et al., 2021, arXiv
    2107.07651): by the softmax of the contrast over what shows another photo. A row to which
    nothing in the batch is wrong stays matched. `logits` are of captions (rows) with photos.
    """
    batch = image_ids.shape[0]
    rows = jnp.arange(batch)
    differs = image_ids[:, None] != image_ids[None, :]
    found = differs.any(axis=1)

    def draw(logits: Float[Array, "B B"], key: jax.Array) -> Int[Array, " B"]:
        logits = jax.lax.stop_gradient(jnp.where(differs, logits, -jnp.inf))
        return jnp.where(found, jax.random.categorical(key, logits), rows)

    of_text, of_image = jax.random.split(key)
    text = jnp.concatenate([rows, rows, draw(logits.T, of_image)])
    image = jnp.concatenate([rows, draw(logits, of_text), rows])
    matched = jnp.concatenate([jnp.ones(batch, bool), ~found, ~found])
    return Pairs(text, image, matched, rows)


def matched(batch: int) -> Pairs:
    """Each caption with its own photo."""
    rows = jnp.arange(batch)
    return Pairs(rows, rows, jnp.ones(batch, bool), rows)


def distinct(image_ids: Int[Array, " B"], *, num: int) -> Bool[Array, "G {num} {num}"]:
    """Whether a caption may count a photo of its group as a candidate.

    False where the photo is the caption's own under another row: another caption of one photo is
    no mismatch. UsageError: the batch cannot be cut into groups of `num`.
    """
    if num < 2 or len(image_ids) % num:
        raise UsageError(
            f"contrastive ITM with config.objective.candidates={num} needs at least 2 candidates "
            f"and a batch that is a multiple of them; here a batch (or the part of it that "
            f"gradient accumulation sees) has {len(image_ids)} pairs"
        )
    groups = image_ids.reshape(-1, num)
    differs = groups[:, :, None] != groups[:, None, :]
    return differs | jnp.eye(num, dtype=bool)[None]
