"""What training corpora are like: the properties that claims C1 and C2 are about."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping

from mmt_jax.configs.config import Config
from mmt_jax.data import sources
from mmt_jax.data.generated import Scenes
from mmt_jax.text.statistics import Target

PHOTOS = 2000  # of a corpus, whose captions are read for its language


@dataclasses.dataclass(frozen=True)
class Properties:
    """One training corpus."""

    photos: int
    wrong: float  # share of captions that are of another photo, as the corpus was made
    perplexity: float  # of its captions under a model of the target's: see `text.statistics`


def properties(configs: Mapping[str, Config], *, target: str, split: str) -> dict[str, Properties]:
    """The properties of each run's corpus, where it is a single generated one; others are left out.

    Language is compared with captions of `target`, whose split is not the test split, for nothing
    may be chosen by that.
    """
    rows = {}
    for tag, config in configs.items():
        part, *others = sources.parse(config.data.source)
        if not others and isinstance(part, Scenes):
            rows[tag] = part.recipe()
    if not rows:
        return {}
    spoken = Target(captions(target, split))
    return {
        tag: Properties(
            photos=configs[tag].data.size or row.train,
            wrong=row.wrong,
            perplexity=spoken.similarity(
                captions(configs[tag].data.source, configs[tag].data.split)
            ).perplexity,
        )
        for tag, row in rows.items()
    }


def captions(source: str, split: str) -> list[str]:
    """The captions of a source's first photos."""
    generated = all(part.generated for part in sources.parse(source))
    outlines = sources.outlines(source, split, size=PHOTOS if generated else None)
    photos = itertools.chain.from_iterable(outline.captions for outline in outlines)
    return [caption for photo in itertools.islice(photos, PHOTOS) for caption in photo]
