"""VQAv2 and GQA: one example a photo, with all that is asked about it.

Answers are one list a photo: `answer/questions` says to which question each belongs.
"""

from __future__ import annotations

from mmt_jax.ingest.corpora import base, coco_captions, visual_genome
from mmt_jax.tasks import gqa, vqa
from mmt_jax.tasks.base import Entry

_FIELDS = {
    "question/ids": "texts",
    "question/texts": "texts",
    "question/kinds": "texts",
    "answer/questions": "ints",
    "answer/texts": "texts",
    "answer/scores": "floats",
}

# Files of VQAv2; split → part of their names, whether answers are published, folder of the photos.
_QUESTIONS = "v2_OpenEnded_mscoco_{part}_questions.json"
_ANSWERS = "v2_mscoco_{part}_annotations.json"
_VQA = {
    "train": ("train2014", True, "train2014"),
    "val": ("val2014", True, "val2014"),
    "testdev": ("test-dev2015", False, "test2015"),
    "test": ("test2015", False, "test2015"),
}
_GQA = {split: f"{split}_balanced_questions.json" for split in ("train", "val", "testdev", "test")}


def _item(photo: base.Picture, questions: list[Entry]) -> base.Item:
    """An example; what is wrong with its photo is told of its first question."""
    answers = [
        (number, text, score)
        for number, question in enumerate(questions)
        for text, score in (question.worth or {}).items()
    ]
    fields = {
        "question/ids": [str(question.key) for question in questions],
        "question/texts": [question.sentences[0] for question in questions],
        "question/kinds": [question.kind for question in questions],
        "answer/questions": [number for number, _, _ in answers],
        "answer/texts": [text for _, text, _ in answers],
        "answer/scores": [score for _, _, score in answers],
    }
    return base.Item(photo.id, questions[0].where, (photo,), fields)


def _read_vqa(raw: base.Raw, split: str) -> base.Entries:
    part, answered, folder = _VQA[split]
    path = raw.need(_QUESTIONS.format(part=part))
    answers = raw.need(_ANSWERS.format(part=part)) if answered else None
    for number, questions in base.by_photo(vqa.read(path, answers)).items():
        folders = (folder, folder.replace("2014", "2017"))
        yield _item(coco_captions.picture(int(number), folders), questions)


def _read_gqa(raw: base.Raw, split: str) -> base.Entries:
    for name, questions in base.by_photo(gqa.read(raw.need(_GQA[split]))).items():
        yield _item(visual_genome.picture(name), questions)


CORPORA = (
    base.Corpus(
        name="vqav2",
        title="VQAv2 (Goyal et al., 2017, arXiv 1612.00837)",
        wants=(
            "v2_OpenEnded_mscoco_{train2014,val2014,test-dev2015,test2015}_questions.json, "
            "v2_mscoco_{train,val}2014_annotations.json; photos in train2014/, val2014/, test2015/"
        ),
        fields=_FIELDS,
        splits=base.splits(
            {
                split: (_QUESTIONS.format(part=part), *[_ANSWERS.format(part=part)] * answered)
                for split, (part, answered, _) in _VQA.items()
            }
        ),
        read=_read_vqa,
        counts="question/ids",
        large=True,
    ),
    base.Corpus(
        name="gqa",
        title="GQA, its balanced questions (Hudson and Manning, 2019, arXiv 1902.09506)",
        wants="{train,val,testdev,test}_balanced_questions.json; photos in images/",
        fields=_FIELDS,
        splits=base.splits(_GQA),
        read=_read_gqa,
        counts="question/ids",
        large=True,
    ),
)
