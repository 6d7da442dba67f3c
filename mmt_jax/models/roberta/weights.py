"""RoBERTa's published weights: bare, with Hugging Face's head over words, or one that answers.

With CLIP's they are what BridgeTower was begun with:

  mmt import --from=FacebookAI/roberta-base --model=roberta --out=work/roberta
  mmt import --from=openai/clip-vit-base-patch16 --model=clip --out=work/clip
  mmt train --config=bridgetower:base --workdir=work/bridgetower \\
    --config.init_from=work/roberta,work/clip --config.model.image_size=224
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmt_jax.configs.config import Config, DataConfig, ObjectiveConfig
from mmt_jax.errors import UsageError
from mmt_jax.models import weight_fields as fields
from mmt_jax.models import weights as engine
from mmt_jax.models.bert import weights as bert
from mmt_jax.models.roberta.config import RobertaConfig
from mmt_jax.models.weights import Arrays, Importer, Row, Table

# Our field, and `config.json`'s.
FIELDS = (
    ("width", "hidden_size"),
    ("mlp_dim", "intermediate_size"),
    ("heads", "num_attention_heads"),
    ("text_layers", "num_hidden_layers"),
    ("segments", "type_vocab_size"),
    ("max_positions", "max_position_embeddings"),  # theirs: none up to the padding's
    ("vocab_size", "vocab_size"),
    ("pad_id", "pad_token_id"),
    ("eps", "layer_norm_eps"),
    ("dropout", "hidden_dropout_prob"),
)
FIXED = {"hidden_act": "gelu", "position_embedding_type": "absolute"}


TUNED = "RobertaForSequenceClassification"


def config(foreign: Mapping[str, Any], arrays: Arrays) -> Config:
    """Our config of a `config.json` and the weights beside it; a head is there if they have it."""
    values = fields.read(foreign, FIELDS, arrays, fixed=FIXED, name="roberta")
    words, answers = "lm_head.bias" in arrays, np.size(arrays.get("classifier.out_proj.bias", ()))
    values["max_positions"] -= values["pad_id"] + 1
    values["attention_dropout"] = fields.attention_dropout(foreign)
    return Config(
        tag="roberta",
        model=RobertaConfig(**values, feature_dim=0, num_classes=0, num_answers=answers or None),
        objective=ObjectiveConfig(itm="none", mlm=float(words), mrm=0.0),
        data=DataConfig(text_length=values["max_positions"]),
    )


TABLE: Table = (
    *bert.text_encoder("", "text"),
    *bert.UNPOOLED,
    *engine.linear("lm_head.dense", "word_head/dense"),
    *engine.norm("lm_head.layer_norm", "word_head/norm"),
    Row("lm_head.bias", ("word_head/bias",)),
    Row("lm_head.decoder.bias", ("word_head/bias",), copy=True),
    Row("lm_head.decoder.weight", ("text/embed/tokens/embedding",), copy=True),
    *engine.linear("classifier.dense", "answer_head/dense"),
    *engine.linear("classifier.out_proj", "answer_head/out"),
)


def save_config(config: Config) -> dict[str, Any]:
    """The `config.json` of a `RobertaForMaskedLM`, or of a RoBERTa that answers: of one head."""
    model, words = config.model, bool(config.objective.mlm)
    if words == bool(model.num_answers):
        raise UsageError(
            f"this model has {'two heads' if words else 'no head'}; export one that was trained "
            f"either on hidden words, for RobertaForMaskedLM, or on a task, for {TUNED}"
        )
    positions = model.max_positions + model.pad_id + 1
    return {
        **fields.write(dataclasses.replace(model, max_positions=positions), FIELDS),
        **FIXED,
        "architectures": ["RobertaForMaskedLM" if words else TUNED],
        "attention_probs_dropout_prob": model.attention_rate,
    }


IMPORTER = Importer(
    config=config,
    table=lambda config: TABLE,
    rename=lambda key: key.removeprefix("roberta."),
    heads=("lm_head.", "classifier."),
    save_config=save_config,
)
