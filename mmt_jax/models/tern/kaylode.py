"""TERN's other implementation: the `.pth` of kaylode/tern, and the DistilBERT in front of it.

It was trained on features that DistilBERT had made of captions, and holds no text encoder. The
folder needs both: `config.json` is its yaml file's part `model` as JSON, with
`"model_type": "tern"`; the subfolder `bert` is a published DistilBERT with its vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmt_jax.configs.config import Config, DataConfig, ObjectiveConfig
from mmt_jax.errors import UsageError
from mmt_jax.models import weight_fields as fields
from mmt_jax.models import weights as engine
from mmt_jax.models.mmt.network import SEGMENTS
from mmt_jax.models.tern.config import TernConfig
from mmt_jax.models.weights import Arrays, Row, Table, Transform
from mmt_jax.typing import Params

READING = "kaylode"
TEXT_LENGTH, MAX_REGIONS = 64, 36  # the longest of COCO's captions is shorter
FEATURES = 2048  # of a region, fixed in its code
FIELDS = (
    ("width", "model.args.d_embed"),
    ("image_width", "model.args.d_model"),
    ("text_width", "model.args.d_model"),
    ("text_width", "bert.dim"),
    ("image_mlp_dim", "model.args.d_ff"),
    ("mlp_dim", "model.args.d_ff"),
    ("image_heads", "model.args.heads"),
    ("heads", "model.args.heads"),
    ("image_layers", "model.args.N_v"),
    ("shared_layers", "model.args.N_l"),  # none, as the layers that read text
    ("dropout", "model.args.dropout"),
    ("text_layers", "bert.n_layers"),
    ("text_heads", "bert.n_heads"),
    ("text_mlp_dim", "bert.hidden_dim"),
    ("vocab_size", "bert.vocab_size"),
    ("max_positions", "bert.max_position_embeddings"),
)
FIXED = {
    "model.name": "TERN",
    "model.args.N_l": 0,
    "model.args.aggregation": "mean",
    "bert.model_type": "distilbert",
    "bert.activation": "gelu",
}


def config(foreign: Mapping[str, Any], arrays: Arrays) -> Config:
    """Our config of a `config.json`, with DistilBERT's as its part `bert`."""
    if "bert" not in foreign:
        raise UsageError(
            "kaylode/tern's weights hold no text encoder; put a published DistilBERT, the one "
            "whose features it was trained on, beside them as the folder `bert`"
        )
    values = fields.read(foreign, FIELDS, arrays, fixed=FIXED, name="tern")
    return Config(
        tag="tern",
        model=TernConfig(**values, reading=READING, feature_dim=FEATURES, num_classes=0),
        objective=ObjectiveConfig(itm="contrastive", mlm=0.0, mrm=0.0),
        data=data(values),
    )


def data(values: Mapping[str, Any]) -> DataConfig:
    """What either implementation reads."""
    length = min(TEXT_LENGTH, values["max_positions"])
    return DataConfig(text_length=length, max_regions=MAX_REGIONS)


def fresh(config: Config) -> Params:
    """DistilBERT tells segments apart by nothing."""
    table = np.zeros((SEGMENTS - 1, config.model.text_width), np.float32)
    return {"text": {"embed": {"segments": {"embedding": table}}}}


def _text_layer(theirs: str, ours: str) -> Table:
    """A layer of DistilBERT."""
    attention = {"q_lin": "query", "k_lin": "key", "v_lin": "value", "out_lin": "out"}
    return (
        *engine.linears(f"{theirs}.attention.", f"{ours}/attention/", attention),
        *engine.norm(f"{theirs}.sa_layer_norm", f"{ours}/attention/norm"),
        *engine.linears(f"{theirs}.ffn.", f"{ours}/mlp/", {"lin1": "hidden", "lin2": "out"}),
        *engine.norm(f"{theirs}.output_layer_norm", f"{ours}/mlp/norm"),
    )


def _region_layer(theirs: str, ours: str) -> Table:
    attention = {"q_linear": "query", "k_linear": "key", "v_linear": "value", "out": "out"}
    return (
        *engine.norm(f"{theirs}.norm_1", f"{ours}/attention/norm"),
        *engine.linears(f"{theirs}.attn.", f"{ours}/attention/", attention),
        *engine.norm(f"{theirs}.norm_2", f"{ours}/mlp/norm"),
        *engine.linears(f"{theirs}.ff.", f"{ours}/mlp/", {"w_1": "hidden", "w_2": "out"}),
    )


_SLOT = Transform(lambda x: [x[0]], lambda x: x[None])  # [1, 1, D] ↔ [1, D]

TABLE: Table = (
    *engine.embedding("bert.embeddings.word_embeddings", "text/embed/tokens"),
    *engine.embedding("bert.embeddings.position_embeddings", "text/embed/positions"),
    *engine.norm("bert.embeddings.LayerNorm", "text/embed/norm"),
    *engine.skip("counts 0, 1, 2, …", "bert.embeddings.position_ids"),
    *_text_layer("bert.transformer.layer.{i}", "text/stack/layers/{i}"),
    *engine.skip_layers(
        "predicts words", "bert.vocab_transform", "bert.vocab_layer_norm", "bert.vocab_projector"
    ),
    Row("encoder_v.cls_token1", ("image/embed/features_cls/embedding",), _SLOT),
    Row("encoder_v.cls_token2", ("image/embed/boxes_cls/embedding",), _SLOT),
    *engine.linear("encoder_v.feat_embed.linear", "image/embed/features"),
    *engine.linear("encoder_v.loc_embed.linear", "image/embed/boxes"),
    *_region_layer("reasoning_v.layers.{i}", "image/stack/layers/{i}"),
    *engine.norm("reasoning_v.norm", "image/stack/last_norm"),
    *engine.linears("cap_proj.model.", "project_text/mlp/", {"0": "hidden", "2": "out"}),
    *engine.linears("img_proj.model.", "project_image/mlp/", {"0": "hidden", "2": "out"}),
)
