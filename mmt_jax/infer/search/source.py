"""The photos of an index, where its source still has them: to be shown, and to be scored."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from mmt_jax.corpus import starts
from mmt_jax.data import schema, sources
from mmt_jax.errors import UsageError
from mmt_jax.infer.scorer import Scorer
from mmt_jax.infer.search.index import Hit, Index
from mmt_jax.typing import Image, Text


class Source:
    """What an index was built of."""

    def __init__(self, index: Index):
        """UsageError: it cannot be read, or has other photos now."""
        about = index.about
        self._corpora = sources.load(about.source, about.split, pixels=True, bare=True)
        ids = [photo for corpus in self._corpora for photo in corpus.image_ids.tolist()]
        self._places = {photo: place for place, photo in enumerate(ids)}
        if not self._places.keys() >= set(index.image_ids):
            raise UsageError(f"{about.source} has other photos than when it was indexed")

    def picture(self, image_id: int) -> np.ndarray:
        """As `Photos.picture`."""
        place, ends = self._places[image_id], starts([len(corpus) for corpus in self._corpora])
        part = int(np.searchsorted(ends, place, side="right")) - 1
        return self._corpora[part].picture(place - int(ends[part]))

    def images(self, scorer: Scorer, image_ids: Sequence[int]) -> Image:
        """Photos as a model reads them."""
        bare = [corpus.bare() for corpus in self._corpora]
        examples = scorer.examples(bare, bare=True)
        return examples.images(np.array([self._places[image_id] for image_id in image_ids]))


def judged(
    index: Index, scorer: Scorer, items: Text | Image, hits: Sequence[Sequence[Hit]]
) -> list[list[Hit]]:
    """Hits with the probability of a match, by a `fitted` model that embeds and scores jointly.

    `items` were looked for: captions or, in an index of captions, photos; `hits` found for each.
    UsageError: the index's photos are needed, and are no longer where they were.
    """
    pairs = [(query, hit.place) for query, row in enumerate(hits) for hit in row]
    if not pairs:
        return [[] for _ in hits]
    queries, places = map(list, zip(*pairs))
    asked = jax.tree.map(lambda leaf: leaf[queries], items)
    if isinstance(asked, Text):
        image_ids = [index.image_ids[place] for place in places]
        read = asked, Source(index).images(scorer, image_ids)
    else:
        found = [index.captions[place][0] for place in places]
        read = schema.to_text(scorer.texts(found, truncate=True)), asked
    chances = scorer.own.probabilities(scorer.own.matches(*read))
    assert chances is not None  # who asks knows that the model is `fitted`
    told = iter(chances.tolist())
    return [[hit._replace(probability=next(told)) for hit in row] for row in hits]
