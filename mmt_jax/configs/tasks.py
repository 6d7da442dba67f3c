"""What is asked of records beside whether caption and photo match, as rows of data.

A task is what a record holds and in which way its answers are learned, which is all that models,
trainer and exporter know of it. Its files, labels and metric are in the module of `mmt_jax.tasks`
that has its name up to the slash.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

from mmt_jax.configs.fields import Checked, Choice, Count

PAIR, PAIR_OF_PHOTOS, SENTENCE, PHOTO = (
    ("text", "image"),
    ("text", "image", "image"),
    ("text",),
    ("image",),
)


@dataclasses.dataclass(frozen=True)
class Task:
    """A row."""

    reads: tuple[str, ...]  # what a record holds, in order
    loss: str = "label"  # a name in `mmt_jax.objectives.answers.LOSSES`
    metric: str = "accuracy"  # chooses the best checkpoint; "" = of pre-training, without any
    least: int = 9  # how often an answer is given where it is one of the field's usual classes

    @property
    def photos(self) -> bool:
        """Whether it asks about photos of `data.source`; those of others come with the task."""
        return {"text", "image"} <= {*self.reads}


TASKS: dict[str, Task] = {
    "vqa": Task(PAIR, "soft"),
    "gqa": Task(PAIR, "soft", least=1),
    "nlvr2": Task(PAIR_OF_PHOTOS),
    "snli_ve": Task(PAIR),
    "cifar": Task(PHOTO, least=1),
    "glue/CoLA": Task(SENTENCE, metric="matthews"),
    "glue/SST-2": Task(SENTENCE),
    "glue/MRPC": Task(SENTENCE, metric="f1"),
    "glue/STS-B": Task(SENTENCE, "value", metric="spearman"),
    "glue/QQP": Task(SENTENCE, metric="f1"),
    "glue/MNLI": Task(SENTENCE),
    "glue/QNLI": Task(SENTENCE),
    "glue/RTE": Task(SENTENCE),
    "glue/WNLI": Task(SENTENCE),
    # Captions, and questions of several tasks that some of them answer.
    "lxmert": Task(PAIR, metric=""),
}


@dataclasses.dataclass(frozen=True)
class TaskConfig(Checked):
    """A task and its files. `data.source` and `data.split` say where its photos are."""

    name: Annotated[str, Choice(*TASKS, "")] = ""  # "" = whether captions and photos match
    questions: str | None = None  # the published file (GLUE: table, CIFAR: folder)
    annotations: str | None = None  # of VQAv2, whose answers are in a file of their own
    eval_questions: str | None = None  # of a split to evaluate on as `config.eval` says
    eval_annotations: str | None = None
    labels: str | None = None  # a JSON list of answers by number; None = the frequent ones
    least: Count = 9  # how often an answer must be given to be one of these

    path: ClassVar[str] = "config.task"
