"""What training corpora are like: the properties that claims C1 and C2 are about."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Iterable, Mapping

from mmt_jax.config import Config
from mmt_jax.data import sources
from mmt_jax.data.text import prepare

PHOTOS = 2000  # of a corpus, whose captions are read for its language


@dataclasses.dataclass(frozen=True)
class Properties:
    """One training corpus."""

    photos: int
    wrong: float  # share of captions that are of another photo, as the corpus was made
    cross_entropy: float  # bits a word of the target's captions; less = closer in language


def properties(configs: Mapping[str, Config], *, target: str, split: str) -> dict[str, Properties]:
    """The properties of each run's corpus, where it is a single generated one; others are left out.

    Args:
      configs: by tag.
      target: source of the captions that language is compared with.
      split: of the target; not the test split, for nothing may be chosen by that.
    """
    from mmt_jax.data.scenes import RECIPES

    names = {}
    for tag, config in configs.items():
        parts = sources.parse(config.data.source)
        if len(parts) == 1 and parts[0].generated:
            names[tag] = parts[0].name
    if not names:
        return {}
    spoken = {
        tag: words(captions(configs[tag].data.source, configs[tag].data.split)) for tag in names
    }
    wanted = words(captions(target, split))
    vocabulary = len(set(wanted).union(*spoken.values()))
    return {
        tag: Properties(
            photos=configs[tag].data.size or RECIPES[name].train,
            wrong=RECIPES[name].wrong,
            cross_entropy=cross_entropy(wanted, spoken[tag], vocabulary),
        )
        for tag, name in names.items()
    }


def captions(source: str, split: str) -> list[str]:
    """The captions of a source's first photos."""
    generated = all(part.generated for part in sources.parse(source))
    corpora = sources.load(source, split, size=PHOTOS if generated else None)
    return [
        caption
        for corpus in sources.first(corpora, PHOTOS)
        for photo in corpus.captions
        for caption in photo
    ]


def words(captions: Iterable[str]) -> collections.Counter[str]:
    """How often each word occurs, after the text preparation that models read."""
    return collections.Counter(
        word for caption in captions for word in re.findall(r"\w+", prepare(caption))
    )


def cross_entropy(
    target: collections.Counter[str], corpus: collections.Counter[str], vocabulary: int
) -> float:
    """Bits a word of `target` costs a unigram model of `corpus` with one added to every count.

    Cross-entropy under a model of the corpus is how Moore and Lewis (2010, ACL) measure closeness
    of domain; adding one is Laplace's rule.

    Args:
      target: words that are coded.
      corpus: words that the model has seen.
      vocabulary: number of different words that could occur, the same for all that are compared.
    """
    seen = corpus.total() + vocabulary
    bits = sum(n * -math.log2((corpus[word] + 1) / seen) for word, n in target.items())
    return bits / target.total()
