"""GLUE's metrics and prediction file (Wang et al., 2019, arXiv 1804.07461)."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from mmt_jax.errors import UsageError
from mmt_jax.tasks import predictions
from mmt_jax.tasks.glue import TASKS, Example

Values = Sequence[int] | Sequence[float] | np.ndarray


def evaluate(task: str, examples: Sequence[Example], predicted: Values) -> dict[str, float]:
    """The metrics that the benchmark reports for a task, by name.

    Args:
      task: a name in `mmt_jax.tasks.glue.TASKS`.
      examples: with their labels.
      predicted: labels in the order of the examples: numbers of classes, or STS-B's scores.

    Raises:
      UsageError: there is not one prediction for each example, or the examples have no labels.
    """
    if len(examples) != len(predicted) or not examples:
        raise UsageError(
            f"there are {len(predicted)} predictions for {len(examples)} examples of {task}; there "
            f"must be one for each"
        )
    if any(example.label is None for example in examples):
        raise UsageError(
            f"{task}'s test table has no labels; send the predictions to the benchmark's server, "
            f"or evaluate on dev.tsv"
        )
    labels = np.array([example.label for example in examples], float)
    found = np.asarray(predicted, float)
    return {name: METRICS[name](labels, found) for name in TASKS[task].metrics}


def write(path: str | os.PathLike, task: str, predicted: Values) -> None:
    """Writes the table that the benchmark's server takes: `index` and `prediction`.

    Raises:
      UsageError: the file exists.
    """
    classes = TASKS[task].classes
    names = [classes[int(value)] if classes else f"{value:.3f}" for value in predicted]
    lines = [f"{number}\t{name}\n" for number, name in enumerate(names)]
    predictions.write(path, "index\tprediction\n" + "".join(lines))


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """The share of right labels."""
    return float(np.mean(labels == predicted))


def f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Harmonic mean of precision and recall of class 1; 0 where neither has any."""
    both = np.sum((labels == 1) & (predicted == 1))
    either = np.sum(labels == 1) + np.sum(predicted == 1)
    return float(2 * both / either) if either else 0.0


def matthews(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Matthews' correlation of two classes (1975): Pearson's, as the labels are 0 and 1."""
    return pearson(labels, predicted)


def pearson(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Pearson's correlation; 0 where one side is constant."""
    a, b = labels - labels.mean(), predicted - predicted.mean()
    spread = np.sqrt(np.sum(a * a) * np.sum(b * b))
    return float(np.sum(a * b) / spread) if spread else 0.0


def spearman(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Pearson's correlation of the ranks; equals share the mean of theirs."""
    return pearson(_ranks(labels), _ranks(predicted))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[group]


METRICS = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}
