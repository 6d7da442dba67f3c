"""Retrieval in both directions, of all photos at once or within folds.

Image retrieval: a caption finds its photo. Text retrieval: a photo finds any of its captions. R@k
is a share in 0..1 and ties count against the model (`ranking`).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmt_jax import progress as progress_lib
from mmt_jax.configs.config import Config
from mmt_jax.data import schema, sources
from mmt_jax.data.pipeline import Examples
from mmt_jax.errors import UsageError
from mmt_jax.files import check_new, whole
from mmt_jax.infer import querybank, ranking, relevance
from mmt_jax.infer.inputs import Inputs
from mmt_jax.infer.pairs import Items
from mmt_jax.infer.predict import Predictor
from mmt_jax.models.base import Model
from mmt_jax.text.base import Tokenizer
from mmt_jax.typing import Params, Text

if TYPE_CHECKING:  # its libraries take a third of a second, and training needs none
    from mmt_jax.infer.scorer import Scorer

NDCG = "ndcg@25"

Score = Callable[
    [np.ndarray, np.ndarray], np.ndarray
]  # numbers of captions, and of photos → [M, N]
Seen = Callable[[np.ndarray, int], None]


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """Ranks of M captions and N photos, each among those of its fold; 1 is best."""

    image_ranks: np.ndarray  # [M] i64: of its photo, for each caption
    text_ranks: np.ndarray  # [N] i64: of its best caption, for each photo
    caption_to_image: np.ndarray  # [M] i64
    image_ids: np.ndarray  # [N] i64
    image_precision: np.ndarray  # [M] f64: average precision, for each caption
    text_precision: np.ndarray  # [N] f64: likewise, for each photo
    image_shares: np.ndarray  # [M, 3] f64: of its photos among the first 1, 5 and 10
    text_shares: np.ndarray  # [N, 3] f64: of its captions likewise
    ndcg: np.ndarray | None = None  # [M] f64 of each caption, see `relevance`; None = not asked

    @classmethod
    def of(
        cls, scores: np.ndarray, examples: Examples, *, first: int = 0, ndcg: bool = False
    ) -> Retrieval:
        """Ranks scores [M, N], no NaN, of N photos from number `first` on and their M captions."""
        start = int(np.searchsorted(examples.caption_to_image, first))
        captions = slice(start, start + scores.shape[0])
        photos = slice(first, first + scores.shape[1])
        caption_to_image = examples.caption_to_image[captions]
        image_ids = examples.image_ids[photos]
        relevant = examples.image_ids[caption_to_image][:, None] == image_ids
        image_precision, image_shares = ranking.precision(scores, relevant)
        text_precision, text_shares = ranking.precision(scores.T, relevant.T)
        return cls(
            image_precision=image_precision,
            text_precision=text_precision,
            image_shares=image_shares,
            text_shares=text_shares,
            image_ranks=ranking.ranks(scores, relevant),
            text_ranks=ranking.ranks(scores.T, relevant.T),
            caption_to_image=caption_to_image,
            image_ids=image_ids,
            ndcg=_ndcg(scores, examples.captions[captions], caption_to_image) if ndcg else None,
        )

    @classmethod
    def join(cls, folds: Sequence[Retrieval]) -> Retrieval:
        """All folds as one, each query ranked as it is in its fold."""
        parts = [vars(fold) for fold in folds]
        names = [name for name, value in parts[0].items() if value is not None]
        return cls(**{name: np.concatenate([part[name] for part in parts]) for name in names})

    @property
    def metrics(self) -> dict[str, Any]:
        """By direction what `ranking.summary` says, and means of `ranking.precision`; and `rsum`.

        r@k counts a query that finds any of its items, `share@k` the share of them that it finds;
        `map` is the mean average precision. Where it was asked for, `image_retrieval` has
        `ndcg@25` too. There are `num_images` and `num_captions`.
        """
        graded = {} if self.ndcg is None else {NDCG: float(self.ndcg.mean())}
        image, text = ranking.summary(self.image_ranks), ranking.summary(self.text_ranks)
        return {
            "image_retrieval": {
                **image,
                **_found(self.image_precision, self.image_shares),
                **graded,
            },
            "text_retrieval": {**text, **_found(self.text_precision, self.text_shares)},
            ranking.RSUM: sum(way[f"r@{k}"] for way in (image, text) for k in ranking.RECALLS),
            "num_images": len(self.image_ids),
            "num_captions": len(self.caption_to_image),
        }

    def flat(self) -> dict[str, float]:
        """The metrics by path, such as `image_retrieval/r@1`, and `rsum`; no `share@k`."""
        found = self.metrics
        return {
            f"{way}/{name}": value
            for way in ("image_retrieval", "text_retrieval")
            for name, value in found[way].items()
            if not name.startswith("share@")
        } | {ranking.RSUM: found[ranking.RSUM]}

    def write(self, path: str | os.PathLike) -> None:
        """Writes the metrics to `NAME.json` and these fields to `NAME.ranks.npz` beside it."""
        numbers, ranks = output_paths(path)
        arrays = {name: array for name, array in vars(self).items() if array is not None}
        with whole(ranks) as part, open(part, "wb") as file:
            np.savez_compressed(file, **arrays)
        with whole(numbers) as part:
            part.write_text(json.dumps(self.metrics, indent=2) + "\n")


def _found(precision: np.ndarray, shares: np.ndarray) -> dict[str, float]:
    means = zip(ranking.RECALLS, shares.mean(axis=0).tolist(), strict=True)
    return {"map": float(precision.mean()), **{f"share@{k}": mean for k, mean in means}}


def answers(
    scores: np.ndarray, examples: Examples, first: int, top: int
) -> Iterator[dict[str, Any]]:
    """Each query of a score matrix with what it found, for people and programs to read.

    Arguments are those of `Retrieval.of`, and how many are told of each query.

    `caption` or `image_id`: the query. `found`: the best, each with `score` and whether it is
    `right`. `right`: `image_ids` or captions that were to be found.
    """
    start = int(np.searchsorted(examples.caption_to_image, first))
    captions = examples.captions[start : start + scores.shape[0]]
    ids = examples.image_ids[first : first + scores.shape[1]].tolist()
    owners = examples.image_ids[examples.caption_to_image[start : start + len(captions)]].tolist()

    def best(row: np.ndarray) -> list[tuple[int, float]]:
        order = np.argsort(-row, kind="stable")[:top].tolist()
        return [(item, float(row[item])) for item in order if np.isfinite(row[item])]

    for caption, owner, row in zip(captions, owners, scores, strict=True):
        found = [
            {"image_id": ids[item], "score": score, "right": ids[item] == owner}
            for item, score in best(row)
        ]
        yield {"caption": caption, "found": found, "right": [owner]}
    said: dict[Any, list[str]] = {}
    for caption, owner in zip(captions, owners):
        said.setdefault(owner, []).append(caption)
    for image_id, row in zip(ids, scores.T, strict=True):
        found = [
            {"caption": captions[item], "score": score, "right": owners[item] == image_id}
            for item, score in best(row)
        ]
        yield {"image_id": image_id, "found": found, "right": said.get(image_id, [])}


def output_paths(path: str | os.PathLike) -> tuple[pathlib.Path, pathlib.Path]:
    """The two files that `Retrieval.write` makes of `path`, which ends in .json; both are new."""
    numbers = pathlib.Path(path)
    if numbers.suffix != ".json":
        raise UsageError(f"{numbers} must end in .json; the ranks go to a .ranks.npz beside it")
    return check_new(numbers), check_new(numbers.with_suffix(".ranks.npz"))


def evaluate(
    model: Model,
    params: Params,
    examples: Examples,
    *,
    fold: int = 0,
    rerank: int = 0,
    by: Score | None = None,
    weight: float = 0.0,
    bank: querybank.Bank | None = None,
    ndcg: bool = False,
    seen: Seen | None = None,
    pairs: int = 1024,
    progress: bool = False,
) -> Retrieval:
    """Ranks photos for captions and captions for photos, which are read when their turn comes.

    Args:
      model, params: what scores pairs.
      examples: photos and captions, tokenised with the model's vocabulary.
      fold: as of `ranked`.
      rerank: `top` of `Predictor.score`; a match that is not scored ranks last.
      by: what the pairs to rerank are chosen by, such as `similarity`; None = own embeddings.
      weight: so many times what `by` says is added to the scores of these pairs.
      bank: what products of own embeddings are normalised by, be they scores or what pairs to
        rerank are chosen by; those of `by` are normalised where it is made.
      ndcg, seen: as of `ranked`.
      pairs: how many are fused at once, about.
      progress: show a line on stderr while it takes more than a few seconds.

    Raises:
      UsageError: the model scores no pairs and has no embeddings, or lacks one of both to rerank;
        `weight` without `by`, or `by` without `rerank`; a `bank` where no own embeddings are
        compared, or scores to rerank are products themselves; and as `ranked`.
    """
    config, joint = model.config, model.config.objective.itm != "none"
    check_scores(model)
    name = config.tag or "this model"
    if rerank < 0:
        raise UsageError(f"rerank is {rerank}; give a number of pairs, or 0 to score all of them")
    if not math.isfinite(weight):
        raise UsageError(f"weight is {weight}; give a number that scores can be added to")
    if (by is None and weight) or (by is not None and not rerank):
        raise UsageError(
            "another model chooses pairs with --by=WORKDIR and --rerank=K, both of them"
        )
    if rerank and not (joint and (by or model.embeds)):
        lacks = "no embeddings to choose pairs by" if joint else "no head that scores pairs jointly"
        raise UsageError(f"{name} has {lacks}; leave rerank out, and all pairs are scored")
    if bank is not None:
        if model.separable and rerank:
            raise UsageError(
                f"the scores of {name} are products; leave rerank or the querybank out"
            )
        if by is not None:
            raise UsageError("bank normalises own embeddings; give another model's to similarity")
        if joint and not model.separable and not rerank:
            raise UsageError(
                f"{name} scores pairs jointly, and a querybank normalises products of embeddings; "
                f"leave it out, or give --rerank=K for pairs to be chosen by them"
            )
        by = similarity(model, params, examples, bank)
    predictor = Predictor(model, params)

    def score(captions: np.ndarray, photos: np.ndarray) -> np.ndarray:
        items = _items(examples, captions, photos)
        similar = by(captions, photos) if by else None
        how = {"pairs": pairs, "progress": progress}
        scores = predictor.score(*items, top=rerank, similar=similar, **how)
        return scores if similar is None else scores + np.float32(weight) * similar

    return ranked(score, examples, fold=fold, ndcg=ndcg, seen=seen)


def similarity(
    model: Model, params: Params, examples: Examples, bank: querybank.Bank | None = None
) -> Score:
    """Inner products of a model's embeddings; `examples` are as it reads them.

    They are normalised by the captions of a `bank`, if there is one.

    Raises:
      UsageError: it has none.
    """
    if not model.embeds:
        name = model.config.tag or "this model"
        raise UsageError(f"{name} has no embeddings to choose pairs by; give one that has, by --by")
    predictor = Predictor(model, params)

    def score(captions: np.ndarray, photos: np.ndarray) -> np.ndarray:
        texts, images = _items(examples, captions, photos)
        embedded = predictor.embed(images)
        products = predictor.embed(texts) @ embedded.T
        return products if bank is None else products - querybank.offsets(bank.embed(), embedded)

    return score


def _items(examples: Examples, captions: np.ndarray, photos: np.ndarray) -> tuple[Text, Items]:
    """Captions and photos by number, the photos read when their turn comes."""
    images = Items(examples.masks[photos], lambda rows: examples.images(photos[rows]))
    return examples.texts(captions), images


def ranked(
    score: Score,
    examples: Examples,
    *,
    fold: int = 0,
    ndcg: bool = False,
    seen: Seen | None = None,
) -> Retrieval:
    """Ranks photos and captions by whatever scores them.

    Args:
      score: numbers of M captions and of N photos → [M, N] float, higher = better match.
      examples: these.
      fold: rank within folds of so many consecutive photos, as COCO's "1k" does with five folds of
        1,000 (Karpathy and Fei-Fei, 2015, arXiv 1412.2306); 0 = one fold of all, its "5k".
      ndcg: also grade photos by what their captions have in common with the query (`relevance`).
      seen: is called with the scores of each fold and the number of its first photo.

    Raises:
      UsageError: there are no such folds, or a score is NaN.
    """
    count = len(examples)
    fold = fold or count
    if fold < 0 or count % fold:
        raise UsageError(f"{count} photos cannot be cut into folds of {fold}; give a divisor")
    folds = []
    progress_lib.stage(
        f"evaluating {count:,} photos × {len(examples.caption_to_image):,} captions"
        + (f" in folds of {fold:,}" if fold < count else "")
    )
    for first in range(0, count, fold):
        captions = np.flatnonzero(examples.caption_to_image // fold == first // fold)
        scores = score(captions, np.arange(first, first + fold))
        if seen:
            seen(scores, first)
        folds.append(Retrieval.of(scores, examples, first=first, ndcg=ndcg))
    return Retrieval.join(folds)


def scores_of(scorer: Scorer, examples: Examples) -> Score:
    """The `score` of `ranked` by log odds; exported models cut the patches of photos themselves."""

    def score(captions: np.ndarray, photos: np.ndarray) -> np.ndarray:
        def fetch(rows: np.ndarray) -> Inputs:
            if scorer.config.model.pixels:
                return {schema.PIXELS: examples.pixels(photos[rows])}
            return schema.from_image(examples.images(photos[rows]))

        texts = schema.from_text(examples.texts(captions))
        return scorer.log_odds(texts, Items(examples.masks[photos], fetch), progress=True)

    return score


def _ndcg(scores: np.ndarray, captions: Sequence[str], photos: np.ndarray) -> np.ndarray:
    """NDCG@25 of each of the captions, of which number m is of photo `photos[m]`; ascending."""
    starts = np.searchsorted(photos, np.arange(photos[0], photos[0] + scores.shape[1] + 1))
    by_photo = [captions[a:b] for a, b in itertools.pairwise(starts)]
    return relevance.ndcg(scores, relevance.rouge_l(captions, by_photo))


def evaluator(
    config: Config,
    tokenizer: Tokenizer,
    labels: Sequence[str] | None = None,
    *,
    progress: bool = True,
) -> Callable[[Model, Params], dict[str, float]] | None:
    """What a training run calls to evaluate: model and parameters → `Retrieval.flat`.

    None where the model scores no pairs. `config.eval` says which data, how much of it, and how;
    labels are a task's, and none are needed. UsageError: the data is not there, or does not fit the
    training data; or `config.eval.best` is nothing to choose a checkpoint by.
    """
    del labels
    if config.objective.itm == "none":
        return None
    ranking.check_best(config.eval.best)
    source, split = sources.eval_source(config)
    corpora = sources.load(source, split, pixels=config.model.pixels)
    corpora = sources.first(corpora, config.eval.limit)
    examples = Examples.of(config, corpora, tokenizer, cache=config.data.cache)

    def evaluation(model: Model, params: Params) -> dict[str, float]:
        return evaluate(model, params, examples, pairs=config.eval.pairs, progress=progress).flat()

    return evaluation


def check_scores(model: Model) -> None:
    """Refuses a model that neither scores pairs nor has embeddings."""
    config = model.config
    if config.objective.itm == "none" and not model.embeds:
        how = ", or ask this one its questions with --task" if config.model.num_answers else ""
        raise UsageError(
            f"{config.tag or 'this model'} scores no pairs of image and text; evaluate a model "
            f"that was trained with an ITM loss{how}"
        )
