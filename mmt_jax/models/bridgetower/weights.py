"""BridgeTower's published weights: Hugging Face's four classes, and the paper's `.ckpt`.

The latter also as it was fine-tuned on VQAv2, NLVR2 or SNLI-VE. Which heads there are is told by
the weights: a published file may have those of several classes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmt_jax.configs.config import Config, DataConfig, ObjectiveConfig
from mmt_jax.configs.models import ModelConfig
from mmt_jax.configs.tasks import TaskConfig
from mmt_jax.errors import UsageError
from mmt_jax.models import weight_fields as fields
from mmt_jax.models import weights as engine
from mmt_jax.models.bert import weights as bert
from mmt_jax.models.bridgetower.config import BridgeTowerConfig
from mmt_jax.models.clip import weights as clip
from mmt_jax.models.weights import Arrays, Importer, Row, Table, Transform

TEXT_LENGTH = 50  # tokens of a caption that the published models were trained on
IMAGE_HEAD_DIM = 64  # fixed in both releases, as is an MLP of four times the width

# Our field, and the one of `config.json` that it is read from.
FIELDS = (
    ("width", "hidden_size"),
    ("width", "text_config.hidden_size"),  # cross layers are built of the text tower's config
    ("heads", "text_config.num_attention_heads"),
    ("mlp_dim", "text_config.intermediate_size"),
    ("cross_layers", "num_hidden_layers"),
    ("tower_layers", "text_config.num_hidden_layers"),
    ("tower_layers", "vision_config.num_hidden_layers"),
    ("text_width", "text_config.hidden_size"),
    ("text_heads", "text_config.num_attention_heads"),
    ("text_mlp_dim", "text_config.intermediate_size"),
    ("image_width", "vision_config.hidden_size"),
    ("image_size", "vision_config.image_size"),
    ("patch_size", "vision_config.patch_size"),
    ("vocab_size", "text_config.vocab_size"),
    ("pad_id", "text_config.pad_token_id"),
    ("max_positions", "text_config.max_position_embeddings"),  # RoBERTa's: none up to the padding's
    ("dropout", "text_config.hidden_dropout_prob"),
    ("text_eps", "text_config.layer_norm_eps"),
    ("cross_eps", "text_config.layer_norm_eps"),
    ("image_eps", "vision_config.layer_norm_eps"),
    ("bridge_eps", "layer_norm_eps"),
    ("head_eps", "layer_norm_eps"),
)
# The same, of fields that older configs leave out, with the value that they mean.
OPTIONS = (
    ("link", "link_tower_type", "add"),
    ("shared_transforms", "share_cross_modal_transformer_layers", True),
    ("tied_words", "tie_word_embeddings", False),
)
# Fields with the one value that can be read: others mean parts that never run, or cannot.
FIXED = {
    "hidden_act": "gelu",
    "text_config.hidden_act": "gelu",
    "text_config.type_vocab_size": 1,
    "share_link_tower_layers": False,
    "vision_config.remove_last_layer": False,
    "vision_config.share_layernorm": True,
    "vision_config.num_channels": 3,
}
# The heads that answer, of the paper's code, by task.
CLASSIFIERS = {
    "vqa": "vqa_classifier",
    "nlvr2": "nlvr2_classifier",
    "snli_ve": "snli_classifier",
}


def config(foreign: Mapping[str, Any], arrays: Arrays) -> Config:
    """Our config of a `config.json` and of the weights beside it."""
    values = fields.read(foreign, FIELDS, arrays, fixed=FIXED, name="bridgetower")
    flat = fields.flatten(foreign)
    values["max_positions"] -= values["pad_id"] + 1
    values["attention_dropout"] = fields.attention_dropout(foreign, "text_config.")
    pair, single = (f"itc_{name}_head.fc.weight" for name in ("cross_modal", "text"))
    answers = {name: arrays.get(f"{head}.3.bias") for name, head in CLASSIFIERS.items()}
    task, last = next(((n, x) for n, x in answers.items() if x is not None), ("", ()))
    return Config(
        tag="bridgetower",
        model=BridgeTowerConfig(
            **values,
            **{ours: flat.get(theirs, value) for ours, theirs, value in OPTIONS},
            image_heads=values["image_width"] // IMAGE_HEAD_DIM,
            itc="huggingface" if pair in arrays else "paper" if single in arrays else "none",
            itc_dim=flat.get("contrastive_hidden_size", BridgeTowerConfig.itc_dim),
            feature_dim=3 * values["patch_size"] ** 2,
            num_classes=0,
            num_answers=np.size(last) or None,
        ),
        objective=ObjectiveConfig(
            itm="classification" if "itm_score.fc.weight" in arrays else "none",
            mlm=float("mlm_score.bias" in arrays),
            mrm=0.0,
        ),
        task=TaskConfig(name=task),
        data=DataConfig(text_length=min(TEXT_LENGTH, values["max_positions"])),
    )


def rename(key: str) -> str:
    """Hugging Face's name of a key of either release, without what stands for the bare model."""
    key = key.removeprefix("bridgetower.").replace("text_transformer.", "text_model.")
    if not key.startswith("vit_model.visual."):
        return key
    key = key.replace("vit_model.visual.", "vision_model.visual.")
    key = re.sub(r"visual\.class_embedding$", "visual.embeddings.class_embedding", key)
    key = re.sub(
        r"visual\.positional_embedding$", "visual.embeddings.position_embedding.weight", key
    )
    return key.replace("visual.conv1.weight", "visual.embeddings.patch_embedding.weight")


NEGATIVE_LOG = Transform(lambda x: [-np.log(x)], lambda x: np.exp(-x))


def vision(theirs: str, ours: str) -> Table:
    """CLIP's vision transformer, as OpenAI names its parts."""
    block, layer = f"{theirs}.transformer.resblocks.{{i}}", f"{ours}/stack/layers/{{i}}"
    return (
        *clip.embeddings(f"{theirs}.embeddings", ours),
        *engine.norm(f"{theirs}.ln_pre", f"{ours}/first_norm"),
        *engine.norm(f"{theirs}.ln_post", f"{ours}/last_norm"),
        *engine.multihead(f"{block}.attn", f"{layer}/attention"),
        *engine.norm(f"{block}.ln_1", f"{layer}/attention/norm"),
        *engine.linear(f"{block}.mlp.c_fc", f"{layer}/mlp/hidden"),
        *engine.linear(f"{block}.mlp.c_proj", f"{layer}/mlp/out"),
        *engine.norm(f"{block}.ln_2", f"{layer}/mlp/norm"),
    )


def stream(name: str, model: ModelConfig) -> Table:
    """One modality's half of the cross-modal encoder."""
    theirs, ours = f"cross_modal_{name}", f"{name}_cross"
    layer, link = f"{theirs}_layers.{{i}}", f"{theirs}_link_tower.{{i}}"
    transform = ("", "/0") if model.shared_transforms else (".{i}", "/{i}")
    weight = {"scaled_add": "scaled_factor", "interpolate": "beta"}.get(model.link)
    return (
        *engine.linear(f"{theirs}_transform{transform[0]}", f"{ours}/transforms{transform[1]}"),
        *engine.norm(f"{theirs}_layernorm", f"{ours}/first_norm"),
        *engine.norm(f"{link}.LayerNorm", f"{ours}/bridges/{{i}}/norm"),
        *((Row(f"{link}.{weight}", (f"{ours}/bridges/{{i}}/weight",)),) if weight else ()),
        *bert.layer(layer, f"{ours}/layers/{{i}}"),
        *bert.attention(f"{layer}.crossattention", f"{ours}/layers/{{i}}/cross"),
        *engine.linear(f"{theirs}_pooler.dense", f"{ours}/pooler"),
    )


def table(config: Config) -> Table:
    """Names as Hugging Face's classes have them, without `bridgetower.`."""
    model = config.model
    temperature = Row("temperature", skip="of a contrast that these weights have no heads for")
    if model.itc == "paper":
        temperature = Row("temperature", ("contrast_head/log_scale",), NEGATIVE_LOG)
    return (
        *bert.text_encoder("text_model", "text"),
        *engine.skip_layers("never called", "text_model.pooler.dense"),
        *vision("vision_model.visual", "image"),
        *engine.skip("of CLIP's text tower", "vit_model.positional_embedding"),
        *engine.skip_layers("of CLIP's text tower", "vit_model.ln_final"),
        *engine.embedding("token_type_embeddings", "types"),
        *stream("text", model),
        *stream("image", model),
        *bert.transform("mlm_score.transform", "word_head"),
        Row("mlm_score.bias", ("word_head/bias",)),
        Row("mlm_score.decoder.weight", ("text/embed/tokens/embedding",), copy=True)
        if model.tied_words
        else Row("mlm_score.decoder.weight", ("word_head/decoder/kernel",), engine.TRANSPOSE),
        # Theirs says "matches" with the second of two logits, ours with the first.
        Row("itm_score.fc.weight", ("match/kernel",), engine.FLIP_TRANSPOSE),
        Row("itm_score.fc.bias", ("match/bias",), engine.FLIP),
        *engine.linear("itc_text_head.fc", "contrast_head/text"),
        *engine.linear("itc_image_head.fc", "contrast_head/image"),
        *engine.linear("itc_cross_modal_head.fc", "contrast_head/pair"),
        temperature,
        Row("logit_scale", ("contrast_head/log_scale",)),
        *engine.skip_layers("of a fine-tuned ranking", "rank_output"),
        *(row for head in CLASSIFIERS.values() for row in _classifier(head)),
    )


def _classifier(theirs: str) -> Table:
    """A head that answers, of two layers."""
    return (
        *engine.linear(f"{theirs}.0", "answer_head/dense"),
        *engine.norm(f"{theirs}.1", "answer_head/norm"),
        *engine.linear(f"{theirs}.3", "answer_head/out"),
    )


def save_config(config: Config) -> dict[str, Any]:
    """The `config.json` of a model whose parts and sizes Hugging Face's classes have, too."""
    model, objective = config.model, config.objective
    for wrong, what in (
        (objective.itm == "contrastive", "a match head of one number"),
        (objective.mrm > 0, "a head over regions"),
        (model.itc == "paper", "the contrast of the paper's code"),
        (model.num_answers, "a head that answers questions"),
    ):
        if wrong:
            raise UsageError(f"this model has {what}, which Hugging Face's BridgeTower has not")
    if model.image_width != IMAGE_HEAD_DIM * model.image_heads:
        raise UsageError(
            f"Hugging Face's BridgeTower has image heads of {IMAGE_HEAD_DIM}, so "
            f"config.model.image_heads={model.image_heads} does not fit "
            f"config.model.image_width={model.image_width}"
        )
    positions = model.max_positions + model.pad_id + 1
    contrast = {"contrastive_hidden_size": model.itc_dim, "logit_scale_init_value": 2.6592}
    return {
        **fields.write(dataclasses.replace(model, max_positions=positions), FIELDS),
        **{theirs: getattr(model, ours) for ours, theirs, _ in OPTIONS},
        **FIXED,
        "architectures": [architecture(config)],
        "num_attention_heads": model.heads,
        "text_config.attention_probs_dropout_prob": model.attention_rate,
        "text_config.model_type": "bridgetower_text_model",
        "vision_config.model_type": "bridgetower_vision_model",
        **(contrast if model.itc == "huggingface" else {}),
    }


def architecture(config: Config) -> str:
    """The class of Hugging Face's that reads the heads; with several, that of the first."""
    if config.objective.itm != "none":
        return "BridgeTowerForImageAndTextRetrieval"
    if config.objective.mlm:
        return "BridgeTowerForMaskedLM"
    contrast = config.model.itc != "none"
    return "BridgeTowerForContrastiveLearning" if contrast else "BridgeTowerModel"


IMPORTER = Importer(
    config=config,
    table=table,
    rename=rename,
    heads=("mlm_score.", "itm_score.", "itc_", "logit_scale"),
    save_config=save_config,
)
