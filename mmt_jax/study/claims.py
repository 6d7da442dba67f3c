"""What the study says, as data.

A claim is a set of comparisons, each about one metric, higher = better (`METRIC`). A comparison is
one of

* `Contrast`: a weighted sum of tags' scores lies in a range. "a beats b" is a - b > 0, "a costs at
  most m" is a - b > -m, "a equals b within m" is -m < a - b < m, "the gain of a over b is larger
  than that of c over d" is a - b - c + d > 0;
* `Spread`: one group of tags differs among itself more than another does;
* `Correlation`: properties of training corpora predict the score.

Statements and source tags are those of the study's claims C1 to C11: Q is said in the release, R is
recollection of the paper, S is said by the study without a place where we could check it. How they
are tested is in `verdicts`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from mmt_jax.configs import variants

METRIC = "image_retrieval/r@1"
MARGIN = 0.05  # of a share in 0..1: the difference that "little" and "equal" allow; our choice


@dataclasses.dataclass(frozen=True)
class Contrast:
    """low < Σ weight · score < high."""

    says: str
    weights: Mapping[str, float]  # by tag
    low: float = -math.inf
    high: float = math.inf

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags whose runs it needs."""
        return tuple(self.weights)

    def value(self, scores: Mapping[str, float]) -> float:
        """Of one seed's scores by tag."""
        return sum(weight * scores[tag] for tag, weight in self.weights.items())


@dataclasses.dataclass(frozen=True)
class Spread:
    """Standard deviation among the tags of `wide` exceeds that among the tags of `narrow`."""

    says: str
    wide: tuple[str, ...]
    narrow: tuple[str, ...]
    low: float = 0.0
    high: float = math.inf

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags whose runs it needs."""
        return tuple(dict.fromkeys(self.wide + self.narrow))

    def value(self, scores: Mapping[str, float]) -> float:
        """Of one seed's scores by tag."""
        wide, narrow = (
            np.std([scores[tag] for tag in tags], ddof=1) for tags in (self.wide, self.narrow)
        )
        return float(wide - narrow)


@dataclasses.dataclass(frozen=True)
class Correlation:
    """Corpora that properties rank as better (their ranks averaged) rank higher in score."""

    says: str
    names: tuple[str, ...]  # fields of `corpora.Properties`
    tags: tuple[str, ...]
    more: tuple[str, ...] = ()  # tags that count where they were run
    low: float = 0.0
    high: float = math.inf


Comparison = Contrast | Spread | Correlation


@dataclasses.dataclass(frozen=True)
class Claim:
    """One sentence of the study and what would bear it out."""

    id: str
    statement: str
    source: str  # Q, R or S, see the module
    comparisons: tuple[Comparison, ...]
    note: str = ""
    by_example: bool = False  # each comparison is an example, and one is enough
    not_at: str = ""  # a scale whose models are not the ones that it is about


def better(a: str, b: str, *, by: float = 0.0) -> Contrast:
    """a scores more than b, by more than `by` (negative: at most that much less)."""
    shift = f" {'+' if by > 0 else '−'} {abs(by):g}" if by else ""
    return Contrast(f"{a} > {b}{shift}", {a: 1.0, b: -1.0}, low=by)


def equal(a: str, b: str, *, within: float = MARGIN) -> Contrast:
    """a scores as b does."""
    return Contrast(f"{a} = {b} ± {within:g}", {a: 1.0, b: -1.0}, low=-within, high=within)


def gains_more(says: str, a: tuple[str, str], b: tuple[str, str]) -> Contrast:
    """The first of `a` gains more over the second of `a` than the first of `b` over its second."""
    return Contrast(says, {a[0]: 1.0, a[1]: -1.0, b[0]: -1.0, b[1]: 1.0}, low=0.0)


def rises(says: str, levels: Mapping[str, float]) -> Contrast:
    """The least-squares slope of the score over `levels` (by tag) is positive."""
    mean = sum(levels.values()) / len(levels)
    square = sum((x - mean) ** 2 for x in levels.values())
    return Contrast(says, {tag: (x - mean) / square for tag, x in levels.items()}, low=0.0)


def _a(name: str) -> str:
    return f"architecture_{name}"


_CORPORA = tuple(
    f"data_{name}" for name in ("cc", "sbu", "vg", "mscoco", "mscoco-narratives", "oi-narratives")
)
_KINDS = ("data_cc", *map(_a, ("coattention", "language-q-12", "image-q-12", "single-modality")))
_HEADS = ("data_cc", *map(_a, ("heads1-768", "heads3-256", "heads6-64", "heads18-64")))
_NO_BERT = "baseline_baseline-no-bert-transfer"

CLAIMS: dict[str, Claim] = {
    claim.id: claim
    for claim in (
        Claim(
            "C1",
            "Corpus noise and language similarity to the target predict zero-shot retrieval.",
            "Q",
            (
                Correlation(
                    "few wrong captions and close language go with a high score",
                    ("wrong", "perplexity"),
                    _CORPORA,
                    tuple(variants.parse(row).tag for row in variants.DIALLED),
                ),
            ),
            "The unit is the corpus. Six of them with four free of noise can never decide on noise "
            "alone, so the two properties are judged together; both are in the table of corpora. "
            "One corpus with its noise and its language turned step by step counts with them where "
            "it was run. "
            "Closeness is the perplexity of the corpus's captions under a trigram model of the "
            "target's.",
        ),
        Claim(
            "C2",
            "Corpus size alone does not predict it.",
            "S",
            (better("data_mscoco", "data_oi-narratives"), better("data_cc", "data_oi-narratives")),
            "No correlation can show an absence over six corpora; one smaller corpus that beats "
            "the largest can. Conceptual Captions' stand-in is the smaller in photos and captions.",
            by_example=True,
        ),
        Claim(
            "C3",
            "BERT initialisation is not needed.",
            "S",
            (
                better("data_cc", "data_cc-with-bert", by=-MARGIN),
                better(_NO_BERT, "baseline_baseline", by=-MARGIN),
            ),
            "Where no BERT is given, it is the same language stack trained on the captions alone.",
        ),
        Claim(
            "C4",
            "Long narratives trail plain captions.",
            "S",
            (
                better("data_mscoco", "data_mscoco-narratives"),
                better("data_mscoco", "data_oi-narratives"),
            ),
        ),
        Claim(
            "C5",
            "Multimodal attention beats deeper modality-specific attention.",
            "Q",
            (
                better("data_cc", _a("single-modality")),
                better(_a("vilbert-1block"), _a("single-modality")),
            ),
            "The second compares one multimodal layer with six modality-specific ones (two at "
            "scale=pilot).",
        ),
        Claim(
            "C6",
            "Coattention equals merged attention; both beat asymmetric, which beats single "
            "modality.",
            "R",
            (
                equal(_a("coattention"), "data_cc"),
                better("data_cc", _a("language-q-12")),
                better("data_cc", _a("image-q-12")),
                better(_a("coattention"), _a("language-q-12")),
                better(_a("coattention"), _a("image-q-12")),
                better(_a("language-q-12"), _a("single-modality")),
                better(_a("image-q-12"), _a("single-modality")),
            ),
        ),
        Claim(
            "C7",
            "Depth helps up to about six multimodal layers; one at the end is not enough.",
            "R",
            (
                rises(
                    "the score rises with 1, 2, 4, 6 multimodal layers",
                    {
                        _a("vilbert-1block"): 1,
                        _a("vilbert-2block"): 2,
                        _a("vilbert-4block"): 4,
                        "data_cc": 6,
                    },
                ),
                better("data_cc", _a("vilbert-12block"), by=-MARGIN),
                better("data_cc", _a("mixed-modality")),
            ),
            "The value of the first is R@1 a layer.",
            not_at="pilot",
        ),
        Claim(
            "C8",
            "The number of heads matters less than the kind of attention.",
            "R",
            (
                Spread(
                    "five kinds of attention differ more than five numbers of heads", _KINDS, _HEADS
                ),
            ),
        ),
        Claim(
            "C9",
            "MRM can be dropped at little cost, MLM cannot.",
            "R",
            (
                better("loss_itm_mlm", "data_cc", by=-MARGIN),
                better("data_cc", "loss_itm_mrm", by=MARGIN),
            ),
        ),
        Claim(
            "C10",
            "Contrastive ITM does not bring multimodal models the gain that it brings "
            "single-modality models and baselines; 1024 candidates beat 32.",
            "Q; 1024 against 32: R",
            (
                gains_more(
                    "contrastive ITM gains more for single modality than for one merged layer",
                    ("loss_single-modality-contrastive32", _a("single-modality")),
                    ("loss_v1-contrastive32", _a("vilbert-1block")),
                ),
                gains_more(
                    "contrastive ITM gains more for the two-tower baseline than for one merged "
                    "layer",
                    (_NO_BERT, "baseline_baseline-cls"),
                    ("loss_v1-contrastive32", _a("vilbert-1block")),
                ),
                better(
                    "loss_single-modality-contrastive1024", "loss_single-modality-contrastive32"
                ),
            ),
            "No run has more candidates than its batch has pairs: the config of a run says how "
            "many it had.",
        ),
        Claim(
            "C11",
            "The two-tower baseline on the same data is the reference: multimodal transformers "
            "are worth their cost where they beat it.",
            "Q",
            (better("data_cc", _NO_BERT), better(_a("coattention"), _NO_BERT)),
            "The baseline without BERT, since the two others start from fresh weights too.",
        ),
    )
}
