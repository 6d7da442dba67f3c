"""States, attention and heads of captions and photos, by name: what `Scorer.trace` shows."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxtyping import Float32

from mmt_jax.configs.tasks import TASKS
from mmt_jax.models.base import Encoded, Fused, Model
from mmt_jax.nn import trace as recording
from mmt_jax.nn.trace import Trace
from mmt_jax.typing import Array, Image, Params, Text


def attention(
    model: Model, params: Params, texts: Text, images: Image
) -> list[Float32[Array, "P N T R"]]:
    """With which weights words read regions, in each layer in which they do.

    Where a layer's words read words too, those of its regions sum to less than 1.
    """
    found, *_ = _looked_at(model, params, texts, images)
    regions = images.mask.shape[1]  # they are read last
    return [
        weights[..., -regions:]
        for reader, read, weights in found.attention
        if reader == "text" and "image" in read
    ]


def trace(model: Model, params: Params, texts: Text | None, images: Image | None) -> dict[str, Any]:
    """What `Scorer.trace` tells, of P pairs, or of captions or photos alone; P comes first."""
    found, alone, fused = _looked_at(model, params, texts, images)
    shown: dict[str, Any] = dict(found.states)
    for reader, read, weights in found.attention:
        name = f"{reader}_to_{'all' if len(read) > 1 else ''.join(read)}"
        name = f"{reader}_attention" if read == (reader,) else name
        shown.setdefault(name, []).append(weights)
    shown |= {f"{stream}_pooled": vectors for stream, vectors in found.pooled.items()}
    if model.embeds:
        for stream, item in alone.items():
            of = model.embed_text if stream == "text" else model.embed_image
            shown[f"{stream}_embedding"] = of(params, item)
    states, pooled = None, None
    if fused is not None:
        states, pooled = fused.text, fused.pooled
        if len(fused.logits):
            shown["logits"] = fused.logits[-1]
    elif not model.fuses:
        states = alone["text"].states
    if states is not None and model.config.objective.mlm:
        shown["words"] = model.words(params, states)
    asked = TASKS[model.config.task.name or "vqa"].reads
    if model.config.model.num_answers and asked == (*alone,):
        pooled = model.pool(params, *alone.values()) if fused is None else pooled
        shown["answers"] = model.answers(params, pooled)
    return shown if pooled is None else shown | {"pooled": pooled}


def _looked_at(
    model: Model, params: Params, texts: Text | None, images: Image | None
) -> tuple[Trace, dict[str, Encoded], Fused | None]:
    """What layers compute, what each stream says alone and, of two, what they say together."""
    model = dataclasses.replace(model, config=dataclasses.replace(model.config, remat="none"))
    alone, fused = {}, None
    with recording.recorded() as found:
        if texts is not None:
            encode = recording.of(model.encode_text, "text", "text")
            alone["text"] = encode(params, texts)
        if images is not None:
            encode = recording.of(model.encode_image, "image", "image")
            alone["image"] = encode(params, images)
        if len(alone) == 2:
            fused = model.fuse(params, alone["text"], alone["image"])
    return found, alone, fused
