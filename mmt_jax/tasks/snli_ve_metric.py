"""SNLI-VE's accuracy (Xie et al., 2019, arXiv 1901.06706)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmt_jax.tasks import predictions
from mmt_jax.tasks.snli_ve import LABELS, Hypothesis


def evaluate(hypotheses: Sequence[Hypothesis], labels: Mapping[str, int]) -> dict[str, float]:
    """Shares of right labels in 0..1: `accuracy` of all, and of each label of `LABELS`.

    Args:
      hypotheses: with their labels.
      labels: pair_id → index into `LABELS`.

    Raises:
      UsageError: labels are missing or too many.
    """
    predictions.check([hypothesis.pair_id for hypothesis in hypotheses], labels)
    return predictions.means(
        (LABELS[hypothesis.label], float(labels[hypothesis.pair_id] == hypothesis.label))
        for hypothesis in hypotheses
    )
