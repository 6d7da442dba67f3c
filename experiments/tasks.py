"""Any model on a task: VQAv2, GQA, NLVR2, SNLI-VE, GLUE or CIFAR, on published files.

  mmt train --config=tasks:vqa,model=lxmert --workdir=work/vqa \
    --config.init_from=work/lxmert --config.data.source=regions:FOLDER \
    --config.task.questions=v2_OpenEnded_mscoco_train2014_questions.json \
    --config.task.annotations=v2_mscoco_train2014_annotations.json
  mmt train --config=tasks:nlvr2,model=data_cc,scale=tiny --workdir=work/nlvr2 \
    --config.data.source=regions:FOLDER --config.task.questions=train.json
  mmt train --config=tasks:glue/RTE,model=roberta --workdir=work/rte \
    --config.init_from=work/roberta --config.task.questions=RTE/train.tsv

model is lxmert, bridgetower, roberta, bert, clip, or a tag of `mmt list`; scale=full has the
published sizes and takes imported weights with --config.init_from, and the head starts fresh.
Learning rates, batches and epochs are those that LXMERT and BridgeTower publish; steps are epochs
over their data.
Vision and language tasks are for models that read both, GLUE for bert and roberta, CIFAR for clip,
which is BridgeTower's vision tower too (--config.model.image_size=288 where it starts from one).
"""

import dataclasses
import pathlib
import runpy
from typing import Any

from ml_collections import ConfigDict

from mmt_jax.configs import variants
from mmt_jax.configs.config import (
    Config,
    DataConfig,
    EvalConfig,
    ObjectiveConfig,
    OptimConfig,
    resolve,
    to_config_dict,
)
from mmt_jax.configs.models import ClipConfig, RobertaConfig
from mmt_jax.configs.tasks import PHOTO, SENTENCE, TASKS, TaskConfig
from mmt_jax.errors import UsageError

FILES = {"lxmert": "base", "bridgetower": "base"}  # beside this one, and the config meant
TOWERS = {
    "roberta": RobertaConfig(),
    "clip": ClipConfig(patch_size=16),  # BridgeTower base's
}
BERT_ADAM: dict[str, Any] = {"name": "bert_adam", "schedule": "warmup_linear"}
NAMES = [name for name, row in TASKS.items() if row.metric]
CONFIGS = [f"{name},model=NAME" for name in NAMES]

# Steps, batch, learning rate, warm-up and weight decay of BridgeTower's fine-tuning; steps are its
# epochs over the training examples. Where none is published, as of GQA, they are VQAv2's.
BRIDGETOWER = {
    "vqa": (12_800, 512, 1e-5, 0.06, 0.05),
    "nlvr2": (13_500, 64, 5e-6, 0.1, 0.008),
    "snli_ve": (41_400, 64, 3e-6, 0.06, 0.01),
}
# The same of LXMERT's, which decays every parameter and clips at 5; without SNLI-VE.
LXMERT = {
    "vqa": (79_000, 32, 5e-5, 0.1, 0.01),
    "gqa": (134_000, 32, 1e-5, 0.1, 0.01),
    "nlvr2": (10_800, 32, 5e-5, 0.1, 0.01),
}


def get_config(arg: str = "vqa,model=lxmert") -> ConfigDict:
    """The config of `TASK,model=NAME[,scale=tiny]`, locked: an unknown field is an error."""
    task, *options = arg.split(",")
    values = {name: value for name, _, value in (option.partition("=") for option in options)}
    model, scale = values.pop("model", ""), values.pop("scale", "full")
    if task not in NAMES or not model or values:
        raise UsageError(
            f"{arg!r} is no config of a task; write TASK,model=NAME[,scale=tiny] with a task of "
            f"{', '.join(NAMES)}, and a model of {', '.join((*FILES, *TOWERS))}, bert or `mmt list`"
        )
    config = _model(model, scale)
    config = dataclasses.replace(
        config,
        tag=f"{config.tag}_{task.replace('/', '-')}",
        pretrained="",
        objective=ObjectiveConfig(itm="none", mlm=0.0, mrm=0.0),
        task=TaskConfig(name=task, least=TASKS[task].least),
        eval=EvalConfig(best=TASKS[task].metric),
    )
    return to_config_dict(_recipe(config, task) if scale == "full" else config)


def _model(name: str, scale: str) -> Config:
    if name in FILES:
        path = pathlib.Path(__file__).with_name(f"{name}.py")
        return resolve(runpy.run_path(str(path))["get_config"](f"{FILES[name]},scale={scale}"))
    if name not in TOWERS:
        return variants.parse(f"{name},scale={scale}")
    if scale not in ("full", "tiny"):
        raise UsageError(f"{name} has no scale {scale!r}; write scale=full or scale=tiny")
    model = TOWERS[name]
    if scale == "full":
        return Config(tag=name, scale=scale, model=model)
    sizes = {
        field: value // (8 if field.endswith(("width", "mlp_dim")) else 3)
        for field, value in dataclasses.asdict(model).items()
        if field.endswith(("width", "mlp_dim", "layers"))
    }
    model = dataclasses.replace(model, **sizes, dropout=0.0)
    if name == "clip":
        model = dataclasses.replace(model, image_size=32, patch_size=8)
    return Config(tag=name, scale=scale, model=model, optim=OptimConfig(lr=1e-3))


def _recipe(config: Config, task: str) -> Config:
    """The published way of fine-tuning."""
    reads = TASKS[task].reads
    if reads == SENTENCE:
        # GLUE's tables differ in size by a factor of 600: the steps are the user's.
        return _with(config, 10_000, 32, 2e-5, 0.06, 0.1, data=DataConfig(text_length=128))
    if reads == PHOTO:
        return _with(config, 10 * 50_000 // 512, 512, 2e-5, 0.06, 0.01, b2=0.98)
    if config.model.family == "bridgetower":
        # The published config's own table, with the head before it.
        rate = 50.0 if TASKS[task].loss == "soft" else 10.0
        table = ((r"answer_head/.*", rate), *config.optim.lr_table)
        # LayerNorm in its heads decays too.
        decays = ((r"answer_head/norm/scale", 1.0), *config.optim.decay_table)
        rows: dict[str, Any] = {"lr_table": table, "decay_table": decays, "b2": 0.98, "eps": 1e-8}
        return _with(config, *BRIDGETOWER.get(task, BRIDGETOWER["vqa"]), **rows)
    steps, batch, lr, warmup, decay = LXMERT.get(task, LXMERT["vqa"])
    table = () if config.model.family == "lxmert" else OptimConfig().decay_table
    return _with(
        config,
        steps,
        batch,
        lr,
        warmup,
        decay,
        clip_norm=5.0,
        decay_table=table,
        **BERT_ADAM if config.model.family == "lxmert" else {},
    )


def _with(
    config: Config,
    steps: int,
    batch: int,
    lr: float,
    warmup: float,
    decay: float,
    *,
    data: DataConfig | None = None,
    **optim: Any,
) -> Config:
    return dataclasses.replace(
        config,
        steps=steps,
        batch_size=batch,
        data=data or config.data,
        optim=OptimConfig(lr=lr, warmup_steps=int(warmup * steps), weight_decay=decay, **optim),
    )
