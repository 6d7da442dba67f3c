"""The detector of MMT's release: a frozen graph of the TensorFlow Object Detection API.

Assembled as its notebook does: features averaged over their spatial axes, regions sorted by the
best score that is not the background's, at most 100. What becomes of the global region is told when
records are made (`mmt_jax.data.regions`, reading "release").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmt_jax import photo as photos
from mmt_jax.detectors import base
from mmt_jax.detectors.base import Detections, Detector
from mmt_jax.errors import UsageError, optional, trying
from mmt_jax.ingest import boxes as boxes_lib

MODEL = "a frozen graph of the TF Object Detection API, as MMT's release uses one"

INPUT = "image_tensor"
BOXES, FEATURES, COUNT = "detection_boxes", "detection_features", "num_detections"
SCORES, CLASS_SCORES = "detection_scores", "detection_multiclass_scores"

# Of one picture [1, H, W, 3] uint8 → the API's outputs by name.
Outputs = Callable[[np.ndarray], Mapping[str, np.ndarray]]


def detector(outputs: Outputs, labels: str, num_classes: int) -> Detector:
    """A detector whose outputs are the API's; `labels` is the file of the classes' names, or ""."""
    return Detector(
        lambda picture: assemble(outputs(picture[None])), num_classes, base.labels(labels)
    )


def assemble(outputs: Mapping[str, np.ndarray]) -> Detections:
    """Regions of one picture from a graph's outputs.

    Args:
      outputs: `detection_boxes` [1, m, 4], `detection_features` [1, m, F] or [1, m, h, w, F],
        `num_detections` [1] where only the first of the m are real, and
        `detection_multiclass_scores` [1, m, C], class 0 the background, or `detection_scores`
        [1, m].

    Raises:
      UsageError: shapes that do not fit, or boxes outside the picture.
    """
    count = int(outputs[COUNT].ravel()[0]) if COUNT in outputs else outputs[BOXES].shape[1]
    boxes, features = (outputs[name][0, :count].astype(np.float32) for name in (BOXES, FEATURES))
    if features.ndim not in (2, 4) or len(features) != len(boxes) or boxes.shape[1:] != (4,):
        raise UsageError(
            f"the detector returns boxes {boxes.shape} and features {features.shape}; they must be "
            f"[n, 4] and [n, F] or [n, h, w, F]"
        )
    boxes = boxes_lib.placed(boxes, "yxyx 0..1", None, "the detector").corners
    if features.ndim == 4:
        features = features.mean(axis=(1, 2))
    columns = [boxes, features]
    if CLASS_SCORES in outputs:
        classes = outputs[CLASS_SCORES][0, :count].astype(np.float32)
        scores = classes[:, 1:].max(axis=1, initial=0)
        total = classes.sum(axis=1, keepdims=True)
        columns += [scores, *photos.top(classes / np.maximum(total, 1))]  # sigmoids sum to anything
    else:
        columns.append(scores := outputs[SCORES][0, :count].astype(np.float32))
    best = np.argsort(-scores, kind="stable")[: base.MAX_REGIONS]
    return Detections(*(column[best] for column in columns))


def count_classes(outputs: Outputs) -> int:
    """How many classes a graph tells apart, as one run of it shows."""
    with trying("the detector fails on a black picture of 640 × 640 pixels"):
        return outputs(np.zeros((1, 640, 640, 3), np.uint8))[CLASS_SCORES].shape[-1]


def tensorflow() -> Any:
    """TensorFlow, if it is installed."""
    with optional("this detector needs TensorFlow", "tf"):
        import tensorflow as tf
    return tf


def load(model: str, *, labels: str = "") -> Detector:
    """Reads a file such as frozen_inference_graph.pb; `labels` is that of a label map.

    Raises:
      UsageError: no such file, no graph in it, or one that lacks an input or output.
    """
    base.existing(model, "frozen graph")
    tf = tensorflow()
    graph_def = tf.compat.v1.GraphDef()
    with trying(f"{model} is no frozen graph", "; give the .pb file"), open(model, "rb") as file:
        graph_def.ParseFromString(file.read())
    wanted = (BOXES, FEATURES, CLASS_SCORES, COUNT)
    names = {node.name for node in graph_def.node}
    if lacking := [name for name in (INPUT, *wanted) if name not in names]:
        raise UsageError(
            f"{model} has no node {', '.join(lacking)}; the detector of MMT's release has "
            f"{INPUT}, {', '.join(wanted)}"
        )

    def imported() -> None:
        tf.graph_util.import_graph_def(graph_def, name="")

    graph = tf.compat.v1.wrap_function(imported, []).prune(
        f"{INPUT}:0", {name: f"{name}:0" for name in wanted}
    )

    def outputs(pictures: np.ndarray) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in graph(tf.constant(pictures)).items()}

    classes = graph.structured_outputs[CLASS_SCORES].shape[-1]
    return detector(outputs, labels, classes or count_classes(outputs))
