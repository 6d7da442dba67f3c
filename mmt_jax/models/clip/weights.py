"""CLIP's published weights, as Hugging Face's `CLIPModel` has them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mmt_jax.configs.config import Config, DataConfig, ObjectiveConfig
from mmt_jax.errors import UsageError
from mmt_jax.models import weight_fields as fields
from mmt_jax.models import weights as engine
from mmt_jax.models.clip.config import ClipConfig
from mmt_jax.models.weights import Arrays, Importer, Row, Table, Transform

# Our field, and the one of `config.json` that it is read from.
FIELDS = (
    ("width", "projection_dim"),
    ("text_width", "text_config.hidden_size"),
    ("text_layers", "text_config.num_hidden_layers"),
    ("text_heads", "text_config.num_attention_heads"),
    ("text_mlp_dim", "text_config.intermediate_size"),
    ("max_positions", "text_config.max_position_embeddings"),
    ("vocab_size", "text_config.vocab_size"),
    ("image_width", "vision_config.hidden_size"),
    ("image_layers", "vision_config.num_hidden_layers"),
    ("image_heads", "vision_config.num_attention_heads"),
    ("image_mlp_dim", "vision_config.intermediate_size"),
    ("image_size", "vision_config.image_size"),
    ("patch_size", "vision_config.patch_size"),
    ("activation", "text_config.hidden_act"),
    ("activation", "vision_config.hidden_act"),
    ("eps", "text_config.layer_norm_eps"),
    ("eps", "vision_config.layer_norm_eps"),
)


def config(foreign: Mapping[str, Any], arrays: Arrays) -> Config:
    """Our config of a `config.json`."""
    values = fields.read(foreign, FIELDS, arrays, fixed={}, name="clip")
    return Config(
        tag="clip",
        model=ClipConfig(**values, feature_dim=3 * values["patch_size"] ** 2, num_classes=0),
        objective=ObjectiveConfig(itm="contrastive", mlm=0.0, mrm=0.0),
        data=DataConfig(text_length=values["max_positions"]),
    )


# [D, colour, row, column] ↔ [row · column · colour, D]
PATCHES = Transform(
    lambda x: [x.transpose(2, 3, 1, 0).reshape(-1, len(x))],
    lambda x: x.reshape(*[math.isqrt(len(x) // 3)] * 2, 3, -1).transpose(3, 2, 0, 1),
)


def embeddings(theirs: str, ours: str) -> Table:
    """What an image tower begins with."""
    return (
        Row(f"{theirs}.class_embedding", (f"{ours}/cls/embedding",), engine.ADD_AXIS),
        Row(f"{theirs}.patch_embedding.weight", (f"{ours}/patches/kernel",), PATCHES),
        *engine.embedding(f"{theirs}.position_embedding", f"{ours}/positions"),
        *engine.skip("counts 0, 1, 2, …", f"{theirs}.position_ids"),
    )


def tower(theirs: str, ours: str) -> Table:
    """The layers of a tower."""
    block, layer = f"{theirs}.encoder.layers.{{i}}", f"{ours}/stack/layers/{{i}}"
    projections = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}
    return (
        *engine.linears(f"{block}.self_attn.", f"{layer}/attention/", projections),
        *engine.norm(f"{block}.layer_norm1", f"{layer}/attention/norm"),
        *engine.linear(f"{block}.mlp.fc1", f"{layer}/mlp/hidden"),
        *engine.linear(f"{block}.mlp.fc2", f"{layer}/mlp/out"),
        *engine.norm(f"{block}.layer_norm2", f"{layer}/mlp/norm"),
    )


TABLE: Table = (
    *engine.embedding("text_model.embeddings.token_embedding", "text/tokens"),
    *engine.embedding("text_model.embeddings.position_embedding", "text/positions"),
    *engine.skip("counts 0, 1, 2, …", "text_model.embeddings.position_ids"),
    *tower("text_model", "text"),
    *engine.norm("text_model.final_layer_norm", "text/last_norm"),
    *embeddings("vision_model.embeddings", "image"),
    *engine.norm("vision_model.pre_layrnorm", "image/first_norm"),  # so it is spelled
    *tower("vision_model", "image"),
    *engine.norm("vision_model.post_layernorm", "image/last_norm"),
    Row("text_projection.weight", ("project_text/kernel",), engine.TRANSPOSE),
    Row("visual_projection.weight", ("project_image/kernel",), engine.TRANSPOSE),
    Row("logit_scale", ("log_scale",)),
)


def save_config(config: Config) -> dict[str, Any]:
    """The `config.json` of a `CLIPModel`, which is no image tower alone."""
    model = config.model
    if config.objective.itm == "none":
        raise UsageError("this model is an image tower alone, and CLIPModel has two towers")
    return {
        **fields.write(model, FIELDS),
        "architectures": ["CLIPModel"],
        "text_config.model_type": "clip_text_model",
        "text_config.projection_dim": model.width,
        "text_config.eos_token_id": model.pad_id,  # the token that it pads with, too
        "text_config.pad_token_id": model.pad_id,
        "vision_config.model_type": "clip_vision_model",
        "vision_config.projection_dim": model.width,
    }


IMPORTER = Importer(
    config=config,
    table=lambda config: TABLE,
    fresh=lambda config: engine.uncalibrated(),
    save_config=save_config,
)
