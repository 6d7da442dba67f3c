"""What several families refuse in a config, with a UsageError that names the fields."""

from __future__ import annotations

from collections.abc import Collection

from mmt_jax.configs.config import Config
from mmt_jax.configs.models import ModelConfig
from mmt_jax.configs.tasks import PAIR, TASKS
from mmt_jax.errors import UsageError


def heads(model: ModelConfig, *parts: str) -> None:
    """Each part's width must be a multiple of its number of heads; "" is the one without a name."""
    for part in parts:
        names = (f"{part}_width", f"{part}_heads") if part else ("width", "heads")
        width, count = (getattr(model, name) for name in names)
        if width % count:
            raise UsageError(
                f"config.model.{names[0]} is {width}; it must be a multiple of "
                f"config.model.{names[1]}, {count}"
            )


def grid(model: ModelConfig) -> None:
    """The photos that positions are learned on must be cut into whole patches."""
    if model.image_size % model.patch_size:
        raise UsageError(
            f"config.model.image_size is {model.image_size}; it must be a multiple of "
            f"config.model.patch_size, {model.patch_size}"
        )


def photos(config: Config) -> int:
    """How many photos a record holds: one, but in some tasks."""
    return TASKS[config.task.name].reads.count("image") if config.task.name else 1


def asked_about(config: Config) -> int:
    """How many photos a question is about; 0 = the model answers none about photos.

    Imported weights that name no task answer as VQAv2's do.
    """
    task = TASKS[config.task.name or "vqa"]
    return task.reads.count("image") if config.model.num_answers and task.photos else 0


def task(config: Config, answers_on: Collection[tuple[str, ...]]) -> None:
    """The task must be one whose records the family answers questions on."""
    name = config.task.name
    if TASKS[name].reads not in answers_on:
        held = " or ".join(" and ".join(reads) for reads in answers_on) or "none at all"
        raise UsageError(
            f"records of {name} hold {' and '.join(TASKS[name].reads)}; the family "
            f"{config.model.family} answers questions on {held}"
        )
    if not config.model.num_answers:
        raise UsageError("config.model.num_answers is unset; take it from the task's labels")


def task_losses(config: Config, *, contrasts: bool) -> None:
    """The study's losses stand beside a task's only where a record is a sentence and a photo.

    `contrasts`: whether the model has an image–text contrast beside its score.
    """
    objective, name = config.objective, config.task.name
    on = {
        "itm": objective.itm != "none",
        "mlm": objective.mlm > 0,
        "mrm": objective.mrm > 0,
        "itc": contrasts,
    }
    beside = [loss for loss, trained in on.items() if trained]
    if beside and TASKS[name].reads != PAIR:
        off = "'none'" if beside[0] == "itm" else "0"
        raise UsageError(
            f"config.objective.{beside[0]} is a loss on a caption and a photo, and records of "
            f"{name} hold {' and '.join(TASKS[name].reads)}; set it to {off}"
        )
