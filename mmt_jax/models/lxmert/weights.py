"""LXMERT's published weights: Hugging Face's three classes, and the original release's files.

These are `_LXRT.pth`, with the heads of pre-training, and `BEST.pth`, fine-tuned on VQA, GQA or
NLVR2, whose head of answers shows by its name. The config of the pre-trained model goes with both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmt_jax.configs.config import Config, DataConfig, ObjectiveConfig
from mmt_jax.configs.tasks import TaskConfig
from mmt_jax.errors import UsageError
from mmt_jax.models import checks
from mmt_jax.models import weight_fields as fields
from mmt_jax.models import weights as engine
from mmt_jax.models.bert import weights as bert
from mmt_jax.models.lxmert.config import LxmertConfig
from mmt_jax.models.weights import Arrays, Importer, Row, Table

# Captions were cut to 20 tokens, so later positions are untrained; photos had 36 regions.
TEXT_LENGTH, MAX_REGIONS = 20, 36

BARE, PRETRAINING, ANSWERING = "LxmertModel", "LxmertForPreTraining", "LxmertForQuestionAnswering"

LABELS = (
    ("num_classes", "num_object_labels"),
    ("num_attributes", "num_attr_labels"),
    ("num_answers", "num_qa_labels"),
)
SWITCHES = (
    "task_obj_predict",
    "task_qa",
    "visual_obj_loss",
    "visual_attr_loss",
    "visual_feat_loss",
)

# Our field, and `config.json`'s.
FIELDS = (
    ("width", "hidden_size"),
    ("mlp_dim", "intermediate_size"),
    ("heads", "num_attention_heads"),
    ("language_layers", "l_layers"),
    ("region_layers", "r_layers"),
    ("cross_layers", "x_layers"),
    ("segments", "type_vocab_size"),
    ("dropout", "hidden_dropout_prob"),
    ("max_positions", "max_position_embeddings"),
    ("feature_dim", "visual_feat_dim"),
    ("vocab_size", "vocab_size"),
)
FIXED = {"hidden_act": "gelu", "visual_pos_dim": 4}
TUNED = "logit_fc"  # the head of answers in the release's fine-tuned files


def config(foreign: Mapping[str, Any], arrays: Arrays) -> Config:
    """Our config of a `config.json`, and of the weights where these were fine-tuned."""
    if f"{TUNED}.3.bias" in arrays:
        return _tuned(foreign, arrays)
    # Which heads there are is told by the architecture.
    architecture = (fields.typed(foreign, "architectures", list, []) or [None])[0]
    if architecture not in (BARE, PRETRAINING, ANSWERING):
        raise UsageError(
            f'config.json has architectures=[{architecture!r}], and not "{BARE}", '
            f'"{PRETRAINING}" or "{ANSWERING}": write there which one these weights are'
        )
    on = {name: fields.typed(foreign, name, bool, True) for name in SWITCHES}
    pretraining = architecture == PRETRAINING
    regions = pretraining and on["task_obj_predict"]
    answers = architecture == ANSWERING or (pretraining and on["task_qa"])
    classes, features = on["visual_obj_loss"], on["visual_feat_loss"]
    if regions and not (classes or features):
        raise UsageError(
            "config.json has heads over regions, but neither visual_obj_loss nor visual_feat_loss; "
            "lxmert reads weights with one of them"
        )
    there = (regions and classes, regions and on["visual_attr_loss"], answers)
    labels = tuple(pair for pair, used in zip(LABELS, there, strict=True) if used)
    values = fields.read(foreign, (*FIELDS, *labels), arrays, fixed=FIXED, name="lxmert")
    absent: dict[str, Any] = {ours: 0 for ours, _ in LABELS}
    values["attention_dropout"] = fields.attention_dropout(foreign)
    return Config(
        tag="lxmert",
        model=LxmertConfig(**absent | values, unlabelled=features),
        objective=ObjectiveConfig(
            itm="classification" if pretraining else "none",
            mlm=float(pretraining),
            mrm=float(regions),
        ),
        data=_data(values),
    )


def _tuned(foreign: Mapping[str, Any], arrays: Arrays) -> Config:
    """The config of a fine-tuned file of the release; NLVR2's head reads two photos."""
    values = fields.read(foreign, FIELDS, arrays, fixed=FIXED, name="lxmert")
    values["attention_dropout"] = fields.attention_dropout(foreign)
    read = np.shape(arrays.get(f"{TUNED}.0.weight", ()))[-1:]
    answers = np.size(arrays[f"{TUNED}.3.bias"])
    return Config(
        tag="lxmert",
        model=LxmertConfig(**values, num_classes=0, num_answers=answers),
        objective=ObjectiveConfig(itm="none", mlm=0.0, mrm=0.0),
        task=TaskConfig(name="nlvr2" if read == (2 * values["width"],) else ""),
        data=_data(values),
    )


def _data(values: Mapping[str, Any]) -> DataConfig:
    return DataConfig(
        text_length=min(TEXT_LENGTH, values["max_positions"]), max_regions=MAX_REGIONS
    )


def architecture(config: Config) -> str:
    """The class of Hugging Face's that has this model's heads."""
    if config.objective.itm != "none":
        return PRETRAINING
    return ANSWERING if config.model.num_answers else BARE


def save_config(config: Config) -> dict[str, Any]:
    """The `config.json` of a model whose heads are those of a class of Hugging Face's."""
    model, objective = config.model, config.objective
    if objective.itm == "contrastive":
        raise UsageError(
            "a contrastive match head scores with one number, and LXMERT's with two; export a "
            "model that was trained with config.objective.itm=classification"
        )
    if checks.photos(config) > 1:
        raise UsageError(
            f"{ANSWERING} reads one photo, and {config.task.name} has two; export a model of "
            f"another task"
        )
    matches = objective.itm != "none"
    if (objective.mlm > 0) != matches or (objective.mrm > 0 and not matches):
        raise UsageError(
            f"{PRETRAINING} has a head for words and one for the match, and this model one of them;"
            f" export a model that was trained with both config.objective.mlm and itm"
        )
    return {
        **fields.write(model, FIELDS),
        **FIXED,
        "architectures": [architecture(config)],
        "attention_probs_dropout_prob": model.attention_rate,
        # Numbers of what the model does not have must stand there and say nothing.
        **{theirs: getattr(model, ours) or 1 for ours, theirs in LABELS},
        "task_matched": True,
        "task_mask_lm": objective.mlm > 0,
        "task_obj_predict": objective.mrm > 0,
        "task_qa": bool(model.num_answers),
        "visual_obj_loss": model.num_classes > 0,
        "visual_attr_loss": bool(model.num_attributes),
        "visual_feat_loss": model.regressed > 0,
    }


def rename(key: str) -> str:
    """Without what releases put in front: `module.` (several GPUs), `bert.` (the original)."""
    return re.sub(r"^(lxrt_encoder\.model\.)?(module\.)?(bert\.|lxmert\.)?", "", key)


def cross_stream(theirs: str, name: str, ours: str) -> Table:
    """What a cross-modal layer has for one modality alone."""
    return (
        *bert.attention(f"{theirs}.{name}_self_att", f"{ours}/attention"),
        *bert.mlp(f"{theirs}.{name}_inter", f"{theirs}.{name}_output", f"{ours}/mlp"),
    )


TABLE: Table = (
    *bert.text_encoder("", "text"),
    *engine.linear("encoder.visn_fc.visn_fc", "image/embed/features"),
    *engine.norm("encoder.visn_fc.visn_layer_norm", "image/embed/features_norm"),
    *engine.linear("encoder.visn_fc.box_fc", "image/embed/boxes"),
    *engine.norm("encoder.visn_fc.box_layer_norm", "image/embed/boxes_norm"),
    *bert.layer("encoder.r_layers.{i}", "image/stack/layers/{i}"),
    *bert.attention("encoder.x_layers.{i}.visual_attention", "layers/{i}/cross", inner="att"),
    *cross_stream("encoder.x_layers.{i}", "lang", "layers/{i}/text"),
    *cross_stream("encoder.x_layers.{i}", "visn", "layers/{i}/image"),
    *engine.linear("pooler.dense", "pooler"),
    *bert.transform("cls.predictions.transform", "word_head"),
    Row("cls.predictions.bias", ("word_head/bias",)),
    Row("cls.predictions.decoder.weight", ("text/embed/tokens/embedding",), copy=True),
    # Theirs says "matches" with the second of two logits, ours with the first.
    Row("cls.seq_relationship.weight", ("match/kernel",), engine.FLIP_TRANSPOSE),
    Row("cls.seq_relationship.bias", ("match/bias",), engine.FLIP),
    *bert.transform("obj_predict_head.transform", "region_head"),
    *engine.linear("obj_predict_head.decoder_dict.obj", "region_head/outs/classes"),
    *engine.linear("obj_predict_head.decoder_dict.attr", "region_head/outs/attributes"),
    *engine.linear("obj_predict_head.decoder_dict.feat", "region_head/outs/features"),
    *engine.linear("answer_head.logit_fc.0", "answer_head/dense"),
    *engine.norm("answer_head.logit_fc.2", "answer_head/norm"),
    *engine.linear("answer_head.logit_fc.3", "answer_head/out"),
    *engine.linear(f"{TUNED}.0", "answer_head/dense"),
    *engine.norm(f"{TUNED}.2", "answer_head/norm"),
    *engine.linear(f"{TUNED}.3", "answer_head/out"),
)

IMPORTER = Importer(
    config=config,
    table=lambda config: TABLE,
    rename=rename,
    heads=("cls.", "obj_predict_head.", "answer_head."),
    save_config=save_config,
)
