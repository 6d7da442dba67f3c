"""What a corpus's captions are like, and how close their language is to a target's.

Closeness is the perplexity of the corpus's captions under a language model of the target's training
captions: low where a corpus says what the target says, in its words and order. Noise of the web,
another domain and another genre all raise it. Choosing training text by a model of the target is
due to Gao et al. (2002, ACM TALIP 1(1)); Moore and Lewis (2010, ACL) compare such measures.

The model is an interpolated trigram with Witten and Bell's smoothing (1991, IEEE Transactions on
Information Theory 37(4), method C; in this form Chen and Goodman, 1999, section 2.5). It has
nothing to estimate beside counts, so it is defined for targets of any size.
"""

from __future__ import annotations

import array
import collections
import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Sequence

import numpy as np

from mmt_jax.corpus import Outline
from mmt_jax.errors import UsageError
from mmt_jax.text.base import prepare

END, UNKNOWN = "</s>", "<unk>"  # no word is spelled like them
_START = "<s>"


def words(caption: str) -> list[str]:
    """Runs of letters and digits, after the text preparation that models read."""
    return re.findall(r"\w+", prepare(caption))


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a corpus holds; means are over captions, or photos."""

    photos: int
    captions: int
    words: int  # running words of all captions
    vocabulary: int  # different words
    words_per_caption: float
    longest_caption: int  # words
    regions_per_photo: float  # the whole photo not counted
    most_regions: int


def summary(corpora: Sequence[Outline]) -> Summary:
    """Counts; nothing but word types and lengths is kept in memory."""
    types: set[str] = set()
    lengths = array.array("l")
    for caption in itertools.chain.from_iterable(c.all_captions() for c in corpora):
        said = words(caption)
        types.update(said)
        lengths.append(len(said))
    regions = np.concatenate([corpus.regions for corpus in corpora])
    return Summary(
        photos=len(regions),
        captions=len(lengths),
        words=sum(lengths),
        vocabulary=len(types),
        words_per_caption=sum(lengths) / max(len(lengths), 1),
        longest_caption=max(lengths, default=0),
        regions_per_photo=float(regions.mean()),
        most_regions=int(regions.max()),
    )


class NGram:
    """Interpolated Witten–Bell language model over whole captions.

    P(w | h) = (c(h w) + t(h) P(w | h')) / (c(h) + t(h)), where c counts, t(h) is the number of
    different words seen after h, and h' is h without its first word. Below the unigrams lies the
    uniform distribution over the vocabulary: the words seen, `END`, and `UNKNOWN`, which stands for
    every other word. A context never seen is shortened.
    """

    def __init__(self, captions: Iterable[str], *, order: int = 3):
        """Counts.

        Raises:
          UsageError: there is no word.
        """
        self._order = order
        self._after: dict[tuple[str, ...], collections.Counter[str]] = collections.defaultdict(
            collections.Counter
        )
        for caption in captions:
            for context, word in self._events(words(caption)):
                for start in range(order):
                    self._after[context[start:]][word] += 1
        self.vocabulary = frozenset(self._after.get((), ())) | {END, UNKNOWN}
        if len(self.vocabulary) == 2:
            raise UsageError("the target has no caption with a word in it; name another split")
        self._totals = {context: seen.total() for context, seen in self._after.items()}

    def _events(self, said: Sequence[str]) -> Iterable[tuple[tuple[str, ...], str]]:
        """Each word of a caption, and its end, with the order - 1 words before it."""
        padded = [_START] * (self._order - 1) + [*said, END]
        for place in range(self._order - 1, len(padded)):
            yield tuple(padded[place - self._order + 1 : place]), padded[place]

    def probability(self, word: str, context: tuple[str, ...] = ()) -> float:
        """P(word | context), the context as long as the order asks, or shorter.

        Over the vocabulary it sums to 1, whatever the context.
        """
        if word not in self.vocabulary:
            word = UNKNOWN
        p = 1 / len(self.vocabulary)
        for start in range(len(context), -1, -1):
            history = context[start:]
            if total := self._totals.get(history, 0):
                seen = self._after[history]
                p = (seen[word] + len(seen) * p) / (total + len(seen))
        return p

    def perplexity(self, captions: Iterable[str]) -> float:
        """2 to the mean bits of a token: the words of each caption, and its end.

        Raises:
          UsageError: there is no caption.
        """
        bits, tokens = 0.0, 0
        for caption in captions:
            said = [word if word in self.vocabulary else UNKNOWN for word in words(caption)]
            for context, word in self._events(said):
                bits -= math.log2(self.probability(word, context))
                tokens += 1
        if not tokens:
            raise UsageError("a perplexity needs captions, and there is none")
        return 2 ** (bits / tokens)


@dataclasses.dataclass(frozen=True)
class Similarity:
    """A corpus's captions beside a target's.

    Its perplexity is that under `NGram` of the target: lower = closer. An unknown word counts as
    one of its tokens, at the probability of `UNKNOWN`.
    """

    perplexity: float
    unknown_words: float  # share of the corpus's running words that the target's captions lack
    covered_types: float  # share of the target's different words that the corpus has
    covered_words: float  # share of the target's running words that the corpus has
    jaccard: float  # different words of both, divided by those of either


class Target:
    """The captions that corpora are compared with, counted once."""

    def __init__(self, captions: Sequence[str]):
        """Counts words and n-grams.

        Raises:
          UsageError: there is no word.
        """
        self._model, self._words = NGram(captions), _counts(captions)

    def similarity(self, captions: Sequence[str]) -> Similarity:
        """How close a corpus's captions are.

        Raises:
          UsageError: there is no word.
        """
        ours, theirs = _counts(captions), self._words
        if not ours:
            raise UsageError("the corpus has no caption with a word in it; name another split")
        shared = ours.keys() & theirs.keys()
        return Similarity(
            perplexity=self._model.perplexity(captions),
            unknown_words=1 - sum(ours[word] for word in shared) / ours.total(),
            covered_types=len(shared) / len(theirs),
            covered_words=sum(theirs[word] for word in shared) / theirs.total(),
            jaccard=len(shared) / len(ours.keys() | theirs.keys()),
        )


def _counts(captions: Iterable[str]) -> collections.Counter[str]:
    return collections.Counter(word for caption in captions for word in words(caption))
