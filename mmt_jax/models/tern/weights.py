"""TERN's published weights: the `.pth` of the original (mesnico/TERN), or of kaylode/tern.

Of the latter see `kaylode`. What stands here is the original's.
Beside it, `config.json` holds what TERN keeps in its yaml file (`text-model`, `image-model`,
`model`), `"model_type": "tern"`, and under `bert` the config of the BERT that the yaml file names;
`vocab.txt` is that BERT's too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mmt_jax.configs.config import Config, ObjectiveConfig
from mmt_jax.models import weight_fields as fields
from mmt_jax.models import weights as engine
from mmt_jax.models.bert import weights as bert
from mmt_jax.models.tern import kaylode
from mmt_jax.models.tern.config import TernConfig
from mmt_jax.models.weights import Arrays, Importer, Table
from mmt_jax.typing import Params

# Our field, and the one of `config.json`.
FIELDS = (
    ("width", "model.embed-size"),
    ("shared_layers", "model.layers"),
    ("dropout", "model.dropout"),
    ("text_layers", "text-model.extraction-hidden-layer"),
    ("text_width", "text-model.word-dim"),
    ("text_heads", "bert.num_attention_heads"),
    ("text_mlp_dim", "bert.intermediate_size"),
    ("vocab_size", "bert.vocab_size"),
    ("max_positions", "bert.max_position_embeddings"),
    ("image_layers", "image-model.transformer-layers"),
    ("image_width", "image-model.feat-dim"),
    ("feature_dim", "image-model.feat-dim"),
)
# Fields with the one value that can be read.
FIXED = {
    "text-model.name": "bert",
    "text-model.pre-extracted": False,
    "text-model.layers": 0,
    "image-model.name": "bottomup",
    "image-model.pos-encoding": "concat-and-process",
    "model.shared-transformer": True,
    "model.text-aggregation": "first",
    "model.image-aggregation": "first",
    "training.measure": "dot",
    "bert.hidden_act": "gelu",
    "bert.layer_norm_eps": 1e-12,
}


def config(foreign: Mapping[str, Any], arrays: Arrays) -> Config:
    """Our config of a `config.json`."""
    if "args" in fields.typed(foreign, "model", Mapping, {}):
        return kaylode.config(foreign, arrays)
    remedy = "write TERN's yaml file as JSON, and the config of its BERT as `bert`"
    values = fields.read(foreign, FIELDS, arrays, fixed=FIXED, name="tern", remedy=remedy)
    return Config(
        tag="tern",
        model=TernConfig(**values, num_classes=0),
        objective=ObjectiveConfig(itm="contrastive", mlm=0.0, mrm=0.0),
        data=kaylode.data(values),
    )


def rename(key: str) -> str:
    """Without what stands in front of every key."""
    key = re.sub(r"^(module\.)?(img_txt_enc\.)?", "", key)
    return key.replace("bert.distilbert.", "bert.", 1) if key.startswith("bert.") else key


def fresh(config: Config) -> Params:
    """What either implementation lacks."""
    more = kaylode.fresh(config) if config.model.reading == kaylode.READING else {}
    return engine.uncalibrated() | more


def layer(theirs: str, ours: str) -> Table:
    """A `torch.nn.TransformerEncoderLayer`."""
    return (
        *engine.multihead(f"{theirs}.self_attn", f"{ours}/attention"),
        *engine.norm(f"{theirs}.norm1", f"{ours}/attention/norm"),
        *engine.linear(f"{theirs}.linear1", f"{ours}/mlp/hidden"),
        *engine.linear(f"{theirs}.linear2", f"{ours}/mlp/out"),
        *engine.norm(f"{theirs}.norm2", f"{ours}/mlp/norm"),
    )


TABLE: Table = (
    *bert.text_encoder("txt_enc.bert_model", "text"),
    *engine.skip_layers(
        "no output depends on it", "txt_enc.bert_model.pooler.dense", "txt_enc.map", "img_enc.fc"
    ),
    *engine.linear("img_enc.pos_encoding_image.map.0", "image/embed/mlp/hidden"),
    *engine.linear("img_enc.pos_encoding_image.map.2", "image/embed/mlp/out"),
    *layer("img_enc.transformer_encoder.layers.{i}", "image/stack/layers/{i}"),
    *engine.linear("cap_proj", "project_text"),
    *engine.linear("img_proj", "project_image"),
    *layer("transformer_encoder_1.layers.{i}", "shared/layers/{i}"),
)


def table(config: Config) -> Table:
    """Of either implementation."""
    return kaylode.TABLE if config.model.reading == kaylode.READING else TABLE


IMPORTER = Importer(
    config=config,
    table=table,
    part="bert",
    fresh=fresh,
    rename=rename,
)
