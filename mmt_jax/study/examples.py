"""Queries of a run and the photos that it finds for them, where photos can be drawn again.

Of the test queries, ordered by the rank of their photo and then by number: the first, the one a
quarter of the way down, the median, that at three quarters, and the last.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from mmt_jax.data import sources
from mmt_jax.errors import UsageError
from mmt_jax.study.results import Result, Run, Test, write_json
from mmt_jax.train.workdir import has_checkpoint

FILE = "examples.json"
WHICH = ("easiest query", "first quartile", "median query", "third quartile", "hardest query")
TOP = 5  # photos


@dataclasses.dataclass(frozen=True)
class Example:
    """One query."""

    which: str  # of WHICH
    caption: str
    photo: str | int  # what people call its photo; its place in the split where that alone is kept
    rank: int  # of that photo; 1 = best
    found: tuple[str | int, ...]  # the photos that score highest, best first; and `photo`
    scores: tuple[float, ...]  # of these


def chosen(ranks: np.ndarray) -> list[int]:
    """[Q] ranks → the numbers of the queries that WHICH names."""
    order = np.argsort(ranks, kind="stable")
    steps = len(WHICH) - 1
    return [int(order[(len(order) - 1) * step // steps]) for step in range(steps + 1)]


def complete(result: Result) -> None:
    """Keeps a run's examples in its folder, where it has checkpoints and photos can be drawn."""
    run = result.run
    if not run.test or not has_checkpoint(run.folder) or (run.folder / FILE).exists():
        return
    if drawing(run.test.source, run.test.split):
        ranks, _ = result.ranks("image_retrieval")
        found = _found(run, run.test, chosen(ranks), ranks)
        write_json(run.folder / FILE, [dataclasses.asdict(example) for example in found])


def drawing(source: str, split: str) -> Callable[[str | int], np.ndarray] | None:
    """What gives the picture [H, W, 3] u8 of a photo of a split, named as in an `Example`.

    It raises KeyError where that has gone since. None where there are no pictures: of regions that
    do not remember their photos, of a mixture, or of photos of which none is left.
    """
    try:
        photos, *others = sources.load(source, split, pixels=True)
        photos.picture(0)
    except UsageError:
        return None
    places = {photos.photo_name(index): index for index in range(len(photos))}

    def picture(photo: str | int) -> np.ndarray:
        return photos.picture(photo if isinstance(photo, int) else places[photo])

    return None if others else picture


def read(folder: pathlib.Path) -> list[Example]:
    """What a run's folder holds; nothing where it has no examples."""
    if not (folder / FILE).exists():
        return []
    entries = json.loads((folder / FILE).read_text())
    return [
        Example(**entry | {name: tuple(entry[name]) for name in ("found", "scores")})
        for entry in entries
    ]


def _found(run: Run, test: Test, queries: Sequence[int], ranks: np.ndarray) -> list[Example]:
    from mmt_jax.infer import api
    from mmt_jax.infer.pairs import Items

    scorer = api.load(run.folder)
    assert scorer.predictor
    data = test.examples(scorer.config, scorer.tokenizer)
    scores = scorer.predictor.score(
        data.texts(np.array(queries)), Items(data.masks, data.images), pairs=test.pairs
    )
    examples, names = [], data.photo_names
    for which, query, row in zip(WHICH, queries, scores):
        photo = int(data.caption_to_image[query])
        found = np.argsort(-row, kind="stable")[:TOP].tolist()
        found += [] if photo in found else [photo]
        said = tuple(round(float(row[number]), 4) for number in found)
        rank, shown = int(ranks[query]), tuple(names[number] for number in found)
        examples.append(Example(which, data.captions[query], names[photo], rank, shown, said))
    return examples
