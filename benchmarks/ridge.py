"""The closed-form reference that a trained model has to beat, for any source with human captions.

  python benchmarks/ridge.py --data=regions:FOLDER --train=train --split=dev

Ridge regression from a photo's features to the bag of words of its captions; captions and photos
are then compared by the cosine of their bags. Features: square roots, of the whole photo and of the
mean over its regions, standardised. Words: the 3,000 of most training captions, TF-IDF. λ = 10,000.
R@k are shares in 0..1, ties count against the reference.
"""

from __future__ import annotations

import argparse
import collections
import re
import sys
import time
from collections.abc import Mapping, Sequence

import numpy as np

from mmt_jax.corpus import Corpus, Photos
from mmt_jax.data import sources
from mmt_jax.data.regions import decode
from mmt_jax.errors import UsageError
from mmt_jax.infer import ranking
from mmt_jax.photo import FEATURES
from mmt_jax.text.base import prepare

WORDS = 3000
RIDGE = 1e4
BLOCK = 1024  # photos decoded at once


def photo_features(corpora: Sequence[Photos], *, regions: bool) -> np.ndarray:
    """[N, F] f32 of the whole photos, or [N, 2F] with the means over their regions behind."""
    blocks = (
        corpus.take(np.arange(start, min(start + BLOCK, len(corpus))))
        for corpus in corpora
        for start in range(0, len(corpus), BLOCK)
    )
    return np.concatenate([_features(block, regions) for block in blocks])


def _features(corpus: Corpus, regions: bool) -> np.ndarray:
    decoded = decode(corpus.rows[FEATURES])
    rows = np.sign(decoded) * np.sqrt(np.abs(decoded))
    starts, counts = corpus.offsets[:-1], np.diff(corpus.offsets)[:, None]
    whole = rows[corpus.offsets[1:] - 1]
    if not regions:
        return whole
    others = np.add.reduceat(rows, starts, axis=0) - whole
    mean = np.where(counts > 1, others / np.maximum(counts - 1, 1), whole)
    return np.concatenate([whole, mean.astype(np.float32)], axis=1)


class Bags:
    """TF-IDF bags of words over the vocabulary of some captions."""

    def __init__(self, captions: Sequence[str]):
        found = collections.Counter(word for c in captions for word in set(_words(c)))
        common = found.most_common(WORDS)
        self._index = {word: i for i, (word, _) in enumerate(common)}
        self._idf = np.log(len(captions) / np.array([n for _, n in common], np.float32))

    def __call__(self, captions: Sequence[str]) -> np.ndarray:
        """[captions, words] f32."""
        bags = np.zeros((len(captions), len(self._index)), np.float32)
        for bag, caption in zip(bags, captions, strict=True):
            for word in _words(caption):
                if word in self._index:
                    bag[self._index[word]] += 1
        return bags * self._idf


def _words(caption: str) -> list[str]:
    return re.findall(r"\w+", prepare(caption))


def fit(features: np.ndarray, bags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights [F, W] and bias [W] of ridge regression from standardised features.

    The penalty is on the weights of the standardised features; those returned take raw ones.
    """
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-6
    x, target = (features - mean) / scale, bags.mean(axis=0)
    gram = x.T @ x + RIDGE * np.eye(x.shape[1], dtype=x.dtype)
    weights = np.linalg.solve(gram, x.T @ (bags - target)) / scale[:, None]
    return weights, target - mean @ weights


def evaluate(
    train: Sequence[Photos], test: Sequence[Photos], *, regions: bool
) -> dict[str, Mapping[str, float]]:
    """Fits on `train`, ranks `test`: `ranking.summary` by direction of retrieval."""
    photos = [captions for corpus in train for captions in corpus.captions]
    bags_of = Bags([caption for captions in photos for caption in captions])
    bags = bags_of([" ".join(captions) for captions in photos])
    weights, bias = fit(photo_features(train, regions=regions), bags)

    photos = [captions for corpus in test for captions in corpus.captions]
    captions = bags_of([caption for captions in photos for caption in captions])
    predicted = photo_features(test, regions=regions) @ weights + bias
    scores = _unit(captions) @ _unit(predicted).T
    relevant = np.repeat(np.eye(len(photos), dtype=bool), [len(c) for c in photos], axis=0)
    return {
        "image_retrieval": ranking.summary(ranking.ranks(scores, relevant)),
        "text_retrieval": ranking.summary(ranking.ranks(scores.T, relevant.T)),
    }


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints both directions, with regions and without."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="SOURCE, such as regions:FOLDER or scenes/cc")
    parser.add_argument("--train", default="train", help="split to fit on")
    parser.add_argument("--split", default="dev", help="split to rank")
    parser.add_argument("--limit", type=int, default=0, help="photos to rank; 0 = all")
    args = parser.parse_args(argv)
    start = time.monotonic()
    train, test = (sources.load(args.data, split) for split in (args.train, args.split))
    test = sources.first(test, args.limit)
    for name, regions in (("global + mean region", True), ("global alone", False)):
        for way, values in evaluate(train, test, regions=regions).items():
            numbers = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
            print(f"{name:<22}{way:<17}{numbers}", flush=True)
    print(f"{time.monotonic() - start:.1f} s")


if __name__ == "__main__":
    try:
        main()
    except UsageError as error:
        sys.exit(f"ridge: {error}")
