"""Any TensorFlow detector that returns boxes, scores and features, by the names of its outputs."""

from __future__ import annotations

import numpy as np

from mmt_jax.detectors import base, frozen_graph
from mmt_jax.detectors.frozen_graph import BOXES, CLASS_SCORES, COUNT, FEATURES, SCORES
from mmt_jax.errors import UsageError, trying

MODEL = "a SavedModel that returns boxes, scores and features"


def load(
    model: str,
    *,
    signature: str = "serving_default",
    boxes: str = BOXES,
    scores: str = SCORES,
    features: str = FEATURES,
    class_scores: str = CLASS_SCORES,
    count: str = COUNT,
    labels: str = "",
) -> base.Detector:
    """Reads a SavedModel whose signature takes one picture [1, H, W, 3], uint8 or float in 0..255.

    Args:
      boxes: output [1, n, 4]: ymin, xmin, ymax, xmax in 0..1.
      scores: output [1, n]; needed where there are no class scores.
      features: output [1, n, F] or [1, n, h, w, F].
      class_scores: output [1, n, C], class 0 the background, where there is one of this name.
      count: output [1], how many of the n are real, where there is one of this name.

    Raises:
      UsageError: no such folder, or a signature or output is not in it.
    """
    base.existing(model, "SavedModel")
    tf = frozen_graph.tensorflow()
    with trying(f"{model} cannot be read as a SavedModel"):
        module = tf.saved_model.load(model)
    if signature not in module.signatures:
        known = ", ".join(module.signatures) or "none"
        raise UsageError(f"{model} has no signature {signature!r}; it has {known}")
    function = module.signatures[signature]
    names = {BOXES: boxes, FEATURES: features, SCORES: scores}
    names |= {CLASS_SCORES: class_scores, COUNT: count}
    there = {ours: name for ours, name in names.items() if name in function.structured_outputs}
    lacking = [names[ours] for ours in (BOXES, FEATURES) if ours not in there]
    if not {CLASS_SCORES, SCORES} & there.keys():
        lacking.append(scores)
    inputs = function.structured_input_signature[1]
    if lacking or len(inputs) != 1:
        raise UsageError(
            f"{model} has no output {', '.join(lacking) or 'of one picture'}; it takes "
            f"{', '.join(inputs)} and returns {', '.join(function.structured_outputs)}: name them "
            f"by boxes=…, scores=…, features=…"
        )
    ((key, spec),) = inputs.items()

    def outputs(pictures: np.ndarray) -> dict[str, np.ndarray]:
        found = function(**{key: tf.cast(pictures, spec.dtype)})
        return {ours: found[name].numpy() for ours, name in there.items()}

    classes = frozen_graph.count_classes(outputs) if CLASS_SCORES in there else 0
    return frozen_graph.detector(outputs, labels, classes)
