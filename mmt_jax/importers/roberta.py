"""RoBERTa's published weights, as Hugging Face's `RobertaForMaskedLM` has them.

With CLIP's they are what BridgeTower was begun with:

  mmt import --from=FacebookAI/roberta-base --model=roberta --out=work/roberta
  mmt import --from=openai/clip-vit-base-patch16 --model=clip --out=work/clip
  mmt train --config=experiments/bridgetower.py:base --workdir=work/bridgetower \\
    --config.init_from=work/roberta,work/clip --config.model.image_size=224
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from mmt_jax.config import Config, DataConfig, ObjectiveConfig, UsageError
from mmt_jax.importers import Importer, bert, engine, fields
from mmt_jax.importers.engine import Row, Table
from mmt_jax.model_config import RobertaConfig

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


def config(foreign: Mapping[str, Any], keys: Collection[str]) -> Config:
    """Our config of a `config.json` and of the names of the weights beside it.

    Raises:
      UsageError: a field is missing or has a value that cannot be read, or the weights have no word
        head.
    """
    values = fields.read(foreign, FIELDS, fixed=FIXED, name="roberta")
    if "lm_head.bias" not in keys:
        raise UsageError("the weights have no head over words; take those of RobertaForMaskedLM")
    values["max_positions"] -= values["pad_id"] + 1
    return Config(
        tag="roberta",
        model=RobertaConfig(**values, feature_dim=0, num_classes=0),
        objective=ObjectiveConfig(itm="none", mlm=1.0, mrm=0.0),
        data=DataConfig(text_length=values["max_positions"]),
    )


def rename(key: str) -> str:
    """Without what classes with heads put in front."""
    return key.removeprefix("roberta.")


TABLE: Table = (
    *bert.text_encoder("", "text"),
    *engine.skip("of whole captions, not words", "pooler.dense.weight", "pooler.dense.bias"),
    *engine.linear("lm_head.dense", "word_head/dense"),
    *engine.norm("lm_head.layer_norm", "word_head/norm"),
    Row("lm_head.bias", ("word_head/bias",)),
    Row("lm_head.decoder.bias", ("word_head/bias",), copy=True),
    Row("lm_head.decoder.weight", ("text/embed/tokens/embedding",), copy=True),
)


def save_config(config: Config) -> dict[str, Any]:
    """The `config.json` of a `RobertaForMaskedLM`.

    Raises:
      UsageError: the model has no word head.
    """
    model = config.model
    if not config.objective.mlm:
        raise UsageError(
            "this model has no head over words, and RobertaForMaskedLM has; export one that was "
            "trained with config.objective.mlm"
        )
    positions = model.max_positions + model.pad_id + 1
    return {
        **fields.write(dataclasses.replace(model, max_positions=positions), FIELDS),
        **FIXED,
        "architectures": ["RobertaForMaskedLM"],
        "model_type": "roberta",
        "attention_probs_dropout_prob": model.dropout,
    }


def save_name(config: Config, key: str) -> str:
    """With what Hugging Face's class puts in front."""
    del config
    return key if key.startswith("lm_head.") else f"roberta.{key}"


IMPORTER = Importer(
    model_types=("roberta",),
    config=config,
    table=lambda config: TABLE,
    rename=rename,
    save_config=save_config,
    save_name=save_name,
)
