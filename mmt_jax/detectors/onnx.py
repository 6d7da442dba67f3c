"""An ONNX classifier over a grid of boxes."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmt_jax.detectors import base, proposals
from mmt_jax.errors import UsageError, optional, trying

MODEL = "an .onnx classifier, over a grid of boxes at several scales"

_BATCH = 16  # crops at once; the last batch is filled up, so that all are computed alike


def load(
    model: str,
    *,
    features: str,
    scores: str = "",
    colours: str = "",
    size: str = "",
    scales: str = proposals.SCALES,
    labels: str = "",
) -> base.Detector:
    """Reads a classifier of pictures [n, 3, S, S] or [n, S, S, 3] from an .onnx file.

    Options as `proposals` has them; a map of features has the layout of the input, and `size` is
    S, where the model leaves it free.

    Raises:
      UsageError: no such file, no such tensor, or an input of another kind.
    """
    base.existing(model, "model")
    session = _session(model, features, scores)
    source = session.get_inputs()[0]
    shape = source.shape
    if len(session.get_inputs()) > 1 or len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise UsageError(f"{model} does not take pictures [n, 3, S, S] or [n, S, S, 3]: {shape}")
    first = shape[1] == 3  # colours come before rows and columns
    sides = shape[2:] if first else shape[1:3]
    height, width = (n if isinstance(n, int) else proposals.side(size) for n in sides)
    encode = proposals.encoder(np.uint8 if source.type == "tensor(uint8)" else np.float32, colours)
    batch = shape[0] if isinstance(shape[0], int) else _BATCH
    names = [features, scores or session.get_outputs()[0].name]

    def classify(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        filled = np.zeros((-(-len(crops) // batch) * batch, *crops.shape[1:]), np.uint8)
        filled[: len(crops)] = crops
        values = encode(filled).transpose(0, 3, 1, 2) if first else encode(filled)
        parts = [
            session.run(names, {source.name: np.ascontiguousarray(values[i : i + batch])})
            for i in range(0, len(values), batch)
        ]
        found, classes = (np.concatenate(part)[: len(crops)] for part in zip(*parts, strict=True))
        found = np.moveaxis(found, 1, -1) if first and found.ndim == 4 else found
        return found.astype(np.float32), classes.reshape(len(crops), -1).astype(np.float32)

    with trying(f"the detector fails on a black picture of {height} × {width} pixels"):
        _, black = classify(np.zeros((1, height, width, 3), np.uint8))
    return proposals.detector(classify, (height, width), scales, labels, black.shape[1])


def _session(model: str, *names: str) -> Any:
    """The model with `names` among its outputs, wherever in it they are."""
    with optional("this detector needs onnx and onnxruntime", "photos"):
        import onnx
        import onnxruntime
    with trying(f"{model} cannot be read as an ONNX model"):
        graph = onnx.load(model)
    made = [name for node in graph.graph.node for name in node.output]
    outputs = {output.name for output in graph.graph.output}
    for name in filter(None, names):
        if name not in made:
            raise UsageError(f"{model} has no tensor {name!r}; the last are {made[-8:]}")
        if name not in outputs:
            graph.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with trying(f"{model} cannot be run"):
        return onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
