"""A TensorFlow Lite classifier over a grid of boxes; quantised ones too."""

from __future__ import annotations

import difflib
import warnings

import numpy as np

from mmt_jax.detectors import base, frozen_graph, proposals
from mmt_jax.errors import UsageError, trying

MODEL = "a .tflite classifier, over a grid of boxes at several scales"


def load(
    model: str,
    *,
    features: str,
    scores: str = "",
    colours: str = "",
    scales: str = proposals.SCALES,
    labels: str = "",
) -> base.Detector:
    """Reads a classifier of one picture [1, S, S, 3] from a .tflite file.

    Options as `proposals` has them.

    Raises:
      UsageError: no such file, no such tensor, or an input of another kind.
    """
    base.existing(model, "model")
    tf = frozen_graph.tensorflow()
    with (
        trying(f"{model} cannot be read as a TensorFlow Lite model"),
        warnings.catch_warnings(),  # that it will move to a package of its own
    ):
        warnings.simplefilter("ignore")
        network = tf.lite.Interpreter(model, num_threads=1, experimental_preserve_all_tensors=True)
        network.allocate_tensors()
    source, *others = network.get_input_details()
    if others or len(source["shape"]) != 4 or source["shape"][0] != 1 or source["shape"][3] != 3:
        raise UsageError(f"{model} does not take one picture [1, height, width, 3]")
    tensors = {detail["name"]: detail for detail in network.get_tensor_details()}
    for name in filter(None, (features, scores)):
        if name not in tensors:
            near = difflib.get_close_matches(name, tensors, n=4, cutoff=0)
            raise UsageError(f"{model} has no tensor {name!r}; the nearest are {', '.join(near)}")
    wanted = tensors[features], tensors[scores] if scores else network.get_output_details()[0]
    encode = proposals.encoder(source["dtype"], colours)

    def run(crop: np.ndarray) -> list[np.ndarray]:
        network.set_tensor(source["index"], crop)
        network.invoke()
        return [_decoded(network.get_tensor(detail["index"]), detail) for detail in wanted]

    def classify(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One crop after another: a batch's size may be written into the model."""
        rows = [run(crop[None]) for crop in encode(crops)]
        found, classes = (np.concatenate(part) for part in zip(*rows, strict=True))
        return found, classes.reshape(len(crops), -1)

    height, width = (int(n) for n in source["shape"][1:3])
    number = int(wanted[1]["shape"][-1])
    return proposals.detector(classify, (height, width), scales, labels, number)


def _decoded(values: np.ndarray, detail: dict) -> np.ndarray:
    """(value - zero point) · scale, of tensors that are quantised."""
    scale, zero = detail["quantization"]
    values = values.astype(np.float32)
    return (values - zero) * np.float32(scale) if scale else values
