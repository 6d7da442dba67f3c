"""A TensorFlow Lite classifier over a grid of boxes; quantised ones too."""

from __future__ import annotations

import difflib
import warnings
from typing import Any

import numpy as np

from mmt_jax.detectors import base, frozen_graph, proposals
from mmt_jax.errors import UsageError


def load(
    model: str,
    *,
    features: str,
    scores: str = "",
    colours: str = "",
    scales: str = proposals.SCALES,
    labels: str = "",
) -> proposals.CropDetector:
    """Reads a classifier of one picture [1, S, S, 3].

    Args:
      model: the .tflite file.
      features: tensor that becomes a region's feature, of any layer: a vector, or a map, of which
        the mean is taken.
      scores: tensor of the class scores; "" = the first output.
      colours: what the input's values mean (`proposals.COLOURS`); quantised inputs need none.
      scales: of the boxes; see `proposals.boxes`.
      labels: file of the classes' names.

    Raises:
      UsageError: no such file, no such tensor, or an input of another kind.
    """
    base.existing(model, "model")
    tf = frozen_graph.tensorflow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # that the interpreter will move to a package of its own
            network = tf.lite.Interpreter(
                model, num_threads=1, experimental_preserve_all_tensors=True
            )
        network.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise UsageError(
            f"{model} cannot be read as a TensorFlow Lite model ({base.told(error)})"
        ) from None
    source, *others = network.get_input_details()
    if others or len(source["shape"]) != 4 or source["shape"][0] != 1 or source["shape"][3] != 3:
        raise UsageError(f"{model} does not take one picture [1, height, width, 3]")
    tensors = {detail["name"]: detail for detail in network.get_tensor_details()}
    for name in filter(None, (features, scores)):
        if name not in tensors:
            near = difflib.get_close_matches(name, tensors, n=4, cutoff=0)
            raise UsageError(f"{model} has no tensor {name!r}; the nearest are {', '.join(near)}")
    wanted = tensors[features], tensors[scores] if scores else network.get_output_details()[0]
    if not np.issubdtype(source["dtype"], np.integer):
        proposals.normalised(np.zeros((1, 1, 1, 3), np.uint8), colours)  # that it can be

    def classify(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One crop after another: a batch's size may be written into the model."""
        rows = [_run(network, source, crop[None], colours, wanted) for crop in crops]
        found, classes = (np.concatenate(part) for part in zip(*rows, strict=True))
        return proposals.pooled(found), classes.reshape(len(crops), -1)

    height, width = (int(n) for n in source["shape"][1:3])
    return proposals.CropDetector(
        classify,
        size=(height, width),
        scales=scales,
        labels=base.labels(labels),
        num_classes=int(wanted[1]["shape"][-1]),
    )


def _run(network: Any, source: dict, crop: np.ndarray, colours: str, wanted: tuple) -> list:
    network.set_tensor(source["index"], _encoded(crop, source["dtype"], colours))
    network.invoke()
    return [_decoded(network.get_tensor(detail["index"]), detail) for detail in wanted]


def _encoded(crop: np.ndarray, dtype: type, colours: str) -> np.ndarray:
    """A crop as the input holds it; integers are the colours themselves, signed ones minus 128."""
    if dtype == np.uint8:
        return crop
    if dtype == np.int8:
        return (crop.astype(np.int16) - 128).astype(np.int8)
    return proposals.normalised(crop, colours).astype(dtype)


def _decoded(values: np.ndarray, detail: dict) -> np.ndarray:
    """(value - zero point) · scale, of tensors that are quantised."""
    scale, zero = detail["quantization"]
    values = values.astype(np.float32)
    return (values - zero) * np.float32(scale) if scale else values
