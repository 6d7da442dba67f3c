"""Accuracy by kind of mistake: how often a model scores a true caption above a wrong one.

What is asked stands in `scenes.probe`. A tie counts as wrong, so chance is a half.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import typing
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

import numpy as np

from mmt_jax import progress
from mmt_jax.data import sources
from mmt_jax.data.generated import Scenes
from mmt_jax.errors import UsageError
from mmt_jax.files import whole
from mmt_jax.scenes import probe as scenes_probe
from mmt_jax.scenes.probe import KINDS, PHOTOS, Question
from mmt_jax.study import stats
from mmt_jax.study.results import Result, Run
from mmt_jax.train.workdir import has_checkpoint

if typing.TYPE_CHECKING:
    from mmt_jax.infer.scorer import Scorer

FILE = "probe.npz"
CHANCE = 0.5


@dataclasses.dataclass(frozen=True)
class Probe:
    """What one model answered."""

    questions: Sequence[Question]  # Q of them
    margins: np.ndarray  # [Q] f32, the score of the true caption minus that of the foil

    def answers(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Of a kind: [q] bool whether each was right, and [q] i64 the photo that it is about."""
        rows = [i for i, question in enumerate(self.questions) if question.kind == kind]
        photos = [self.questions[i].photo for i in rows]
        return self.margins[rows] > 0, np.array(photos, np.int64)

    def accuracy(self, kind: str) -> stats.Interval:
        """Share of right answers, and its interval over photos."""
        return stats.bootstrap_interval(*self.answers(kind))

    def flat(self) -> dict[str, float]:
        """Accuracies by path, such as `probe/colour`."""
        return {f"probe/{kind}": float(self.answers(kind)[0].mean()) for kind in KINDS}

    def store(self, folder: pathlib.Path) -> None:
        """Writes `FILE`: the fields of the questions, column by column, and the margins."""
        columns = {name: np.array(x) for name, x in zip(Question._fields, zip(*self.questions))}
        with whole(folder / FILE) as part, open(part, "wb") as file:
            np.savez_compressed(file, **columns, margins=self.margins)  # pyright: ignore[reportArgumentType]

    @classmethod
    def read(cls, folder: pathlib.Path) -> Self | None:
        """What a run's folder holds, or None."""
        if not (folder / FILE).exists():
            return None
        with np.load(folder / FILE) as arrays:
            columns = [arrays[name].tolist() for name in Question._fields]
            return cls(list(map(Question._make, zip(*columns))), arrays["margins"])


def generated(source: str) -> Scenes | None:
    """The corpus of generated scenes that a source is; None where it is anything else."""
    part, *others = sources.parse(source)
    return part if isinstance(part, Scenes) and not others else None


def ask(scorer: Scorer, source: str, split: str, *, photos: int = PHOTOS) -> Probe:
    """Asks a model of a workdir about the first photos of a split, or all that there are.

    UsageError: the source is no such corpus, or has no such split or nothing to ask about; or the
    model scores no pairs, or reads other features.
    """
    from mmt_jax.infer import retrieval

    corpus = generated(source)
    if corpus is None:
        raise UsageError(
            f"{source} is no corpus of generated scenes, whose mistakes are known; give scenes, "
            f"scenes@LEVEL, scenes/NAME or scenes@LEVEL/NAME"
        )
    assert scorer.predictor
    retrieval.check_scores(scorer.predictor.model)
    (built,) = sources.load(source, split, pixels=scorer.config.model.pixels)
    built = built.head(min(photos, len(built)))
    asked = scenes_probe.questions(corpus.name, split, level=corpus.level, photos=len(built))
    if not asked:
        raise UsageError(
            f"none of the first {len(built)} photos of {source} {split} has two objects that all "
            f"kinds of mistakes can be made about; ask about more"
        )
    # Each caption once: the true one is that of all questions about its photo.
    said: dict[int, dict[str, None]] = collections.defaultdict(dict)
    for question in asked:
        said[question.photo].update(dict.fromkeys((question.true, question.foil)))
    captions = tuple(tuple(said[photo]) for photo in range(len(built)))
    told = dataclasses.replace(built, captions=captions)
    examples = scorer.examples([told], bare=True)
    rows = examples.caption_to_image
    texts = examples.texts(np.arange(len(rows)))
    scores = scorer.predictor.matches(texts, examples.images(rows))
    score = dict(zip(zip(rows.tolist(), examples.captions), scores.tolist()))
    margins = [score[q.photo, q.true] - score[q.photo, q.foil] for q in asked]
    return Probe(asked, np.array(margins, np.float32))


def complete(runs: Iterable[Run]) -> None:
    """Asks what has not been asked: runs that are tested on generated scenes and have checkpoints.

    What a run's best checkpoint answers is kept in its folder. Seeds of a variant share what was
    compiled for the first of them.
    """
    from mmt_jax.infer import api

    left = [
        run
        for run in runs
        if run.test
        and generated(run.test.source)
        and not (run.folder / FILE).exists()
        and has_checkpoint(run.folder)
    ]
    for run in progress.track(left, "runs asked by kind of mistake"):
        assert run.test
        try:
            found = ask(api.load(run.folder), run.test.source, run.test.split)
        except UsageError as error:  # a study of long ago is still reported
            progress.say(f"{run.tag} seed {run.seed} is not asked by kind of mistake: {error}")
        else:
            found.store(run.folder)


def answered(results: Iterable[Result]) -> list[Probe]:
    """The probes that runs have."""
    found = [Probe.read(result.run.folder) for result in results]
    return [probe for probe in found if probe]


class Confusion(NamedTuple):
    """Two colours or shapes, how often they were told apart, and how often they were not."""

    one: str
    other: str
    asked: int
    wrong: int


def confusions(probes: Iterable[Probe], kind: str, *, least: int = 5) -> list[Confusion]:
    """Pairs of names of a kind, "colour" or "shape", that are taken for one another, most first.

    A pair must have been asked `least` times to be listed.
    """
    answers: dict[tuple[str, str], list[bool]] = collections.defaultdict(list)
    for probe in probes:
        for question, margin in zip(probe.questions, probe.margins):
            if question.kind == kind:
                one, other = sorted((question.said, question.instead))
                answers[one, other].append(bool(margin > 0))
    listed = [
        Confusion(one, other, len(right), len(right) - sum(right))
        for (one, other), right in answers.items()
        if len(right) >= least
    ]
    return sorted(listed, key=lambda c: (-c.wrong / c.asked, -c.asked, c.one, c.other))
