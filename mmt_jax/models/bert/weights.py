"""BERT's published weights as the language stack that models of the study start from.

  mmt import --from=google-bert/bert-base-uncased --model=bert --out=work/bert
  mmt train --config=data_cc-with-bert --workdir=work/cc \
    --config.init_from=work/bert

Names of BERT's layers, which other systems' weights share, stand here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmt_jax.configs.config import Config, DataConfig, ObjectiveConfig
from mmt_jax.errors import UsageError
from mmt_jax.models import weight_fields as fields
from mmt_jax.models import weights as engine
from mmt_jax.models.mmt.config import MMTConfig
from mmt_jax.models.mmt.network import SEGMENTS
from mmt_jax.models.weights import Arrays, Importer, Row, Table, Transform


def attention(theirs: str, ours: str, *, inner: str = "self") -> Table:
    """An attention with its output and LayerNorm; `inner` holds query, key and value."""
    return (
        *engine.linears(
            f"{theirs}.{inner}.", f"{ours}/", {n: n for n in ("query", "key", "value")}
        ),
        *engine.linear(f"{theirs}.output.dense", f"{ours}/out"),
        *engine.norm(f"{theirs}.output.LayerNorm", f"{ours}/norm"),
    )


def mlp(hidden: str, out: str, ours: str) -> Table:
    """The two dense layers of a layer, and its last LayerNorm."""
    return (
        *engine.linear(f"{hidden}.dense", f"{ours}/hidden"),
        *engine.linear(f"{out}.dense", f"{ours}/out"),
        *engine.norm(f"{out}.LayerNorm", f"{ours}/norm"),
    )


def layer(theirs: str, ours: str) -> Table:
    """An `nn.layers.Layer`."""
    return (
        *attention(f"{theirs}.attention", f"{ours}/attention"),
        *mlp(f"{theirs}.intermediate", f"{theirs}.output", f"{ours}/mlp"),
    )


def transform(theirs: str, ours: str) -> Table:
    """A dense layer with an activation and a LayerNorm."""
    return (
        *engine.linear(f"{theirs}.dense", f"{ours}/dense"),
        *engine.norm(f"{theirs}.LayerNorm", f"{ours}/norm"),
    )


def text_encoder(theirs: str, ours: str) -> Table:
    """`nn.embed.TextEncoder`; `theirs` is "" where the keys have nothing in front."""
    dot = f"{theirs}." if theirs else ""
    return (
        *engine.embedding(f"{dot}embeddings.word_embeddings", f"{ours}/embed/tokens"),
        *engine.embedding(f"{dot}embeddings.position_embeddings", f"{ours}/embed/positions"),
        *engine.embedding(f"{dot}embeddings.token_type_embeddings", f"{ours}/embed/segments"),
        *engine.norm(f"{dot}embeddings.LayerNorm", f"{ours}/embed/norm"),
        *engine.skip("counts 0, 1, 2, …", f"{dot}embeddings.position_ids"),
        *engine.skip("zeros", f"{dot}embeddings.token_type_ids"),
        *layer(f"{dot}encoder.layer.{{i}}", f"{ours}/stack/layers/{{i}}"),
    )


# Our field, and `config.json`'s.
FIELDS = (
    ("width", "hidden_size"),
    ("mlp_dim", "intermediate_size"),
    ("heads", "num_attention_heads"),
    ("max_positions", "max_position_embeddings"),
    ("vocab_size", "vocab_size"),
    ("dropout", "hidden_dropout_prob"),
)
DEPTH = ("depth", "num_hidden_layers")
TUNED = "BertForSequenceClassification"
FIXED = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "position_embedding_type": "absolute"}


def config(foreign: Mapping[str, Any], arrays: Arrays) -> Config:
    """Our config of a `config.json` and the weights beside it; a head is there if they have it."""
    values = fields.read(foreign, (*FIELDS, DEPTH), arrays, fixed=FIXED, name="bert")
    depth = values.pop(DEPTH[0])
    words, answers = "cls.predictions.bias" in arrays, np.size(arrays.get("classifier.bias", ()))
    return Config(
        tag="bert",
        model=MMTConfig(
            **values,
            attention_dropout=fields.attention_dropout(foreign),
            family="bert",
            head_dim=values["width"] // values["heads"],
            layers=("text",) * depth,
            layout="cls_first",
            feature_dim=0,
            num_classes=0,
            num_answers=answers or None,
        ),
        objective=ObjectiveConfig(itm="none", mlm=float(words), mrm=0.0),
        data=DataConfig(text_length=values["max_positions"]),
    )


# The study's third segment, that of [CLS] in the release's layout, is none of BERT's.
_SEGMENTS = Transform(
    lambda x: [np.pad(x, ((0, SEGMENTS - len(x)), (0, 0)))],
    lambda x: x[: SEGMENTS - 1],
)


TABLE: Table = (
    *engine.embedding("embeddings.word_embeddings", "text/tokens"),
    *engine.embedding("embeddings.position_embeddings", "text/positions"),
    Row("embeddings.token_type_embeddings.weight", ("text/segments/embedding",), _SEGMENTS),
    *engine.norm("embeddings.LayerNorm", "text/norm"),
    *engine.skip("counts 0, 1, 2, …", "embeddings.position_ids"),
    *engine.skip("the softmax cancels it", "encoder.layer.{i}.attention.self.key.bias"),
    *layer("encoder.layer.{i}", "streams/layers/{i}/text"),
    *engine.skip_layers("not asked", "cls.seq_relationship"),
    *transform("cls.predictions.transform", "word_head"),
    Row("cls.predictions.bias", ("word_head/bias",)),
    Row("cls.predictions.decoder.bias", ("word_head/bias",), copy=True),
    Row("cls.predictions.decoder.weight", ("text/tokens/embedding",), copy=True),
)

UNPOOLED = engine.skip_layers("of whole captions, not words", "pooler.dense")


def table(config: Config) -> Table:
    """Names as Hugging Face's classes have them, without `bert.`."""
    if not config.model.num_answers:
        return (*TABLE, *UNPOOLED)
    pooler = engine.linear("pooler.dense", "answer_head/dense")
    return (*TABLE, *pooler, *engine.linear("classifier", "answer_head/out"))


def zeros(config: Config) -> dict[str, np.ndarray]:
    """Biases of keys, which the softmax cancels: ours has none, and theirs must have some."""
    model = config.model
    name = "encoder.layer.{}.attention.self.key.bias"
    return {name.format(i): np.zeros(model.width, np.float32) for i in range(len(model.layers))}


def save_config(config: Config) -> dict[str, Any]:
    """The `config.json` of a `BertForMaskedLM`, or of a BERT that answers; it has one head."""
    model, words = config.model, bool(config.objective.mlm)
    architecture = TUNED if model.num_answers else "BertForMaskedLM"
    for wrong, what in (
        (not words and not model.num_answers, "no head over words"),
        (words and model.num_answers, "a head over words beside the one that answers"),
        (model.heads * model.head_dim != model.width, "heads that are not as wide as the model"),
        (model.layout != "cls_first", "[CLS] as the last token, with a segment of its own"),
    ):
        if wrong:
            raise UsageError(
                f"this model has {what}, which {architecture} cannot hold; export one that was "
                f"imported, or trained on hidden words with config.model.layout=cls_first"
            )
    return {
        **fields.write(model, FIELDS),
        **FIXED,
        DEPTH[1]: len(model.layers),
        "architectures": [architecture],
        "attention_probs_dropout_prob": model.attention_rate,
        "pad_token_id": model.pad_id,
        "type_vocab_size": SEGMENTS - 1,
    }


IMPORTER = Importer(
    config=config,
    table=table,
    rename=lambda key: key.removeprefix("bert."),
    zeros=zeros,
    heads=("cls.", "classifier."),
    save_config=save_config,
)
