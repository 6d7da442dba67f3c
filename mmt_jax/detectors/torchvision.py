"""Faster R-CNN of torchvision: features of its box head, and distributions over its classes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmt_jax import photo as photos
from mmt_jax.detectors import base
from mmt_jax.detectors.base import Detections, Detector
from mmt_jax.errors import UsageError, trying

MODEL = "a Faster R-CNN of torchvision, by its builder's name"


def _detector(model: Any, labels: Mapping[int, str]) -> Detector:
    """The model's own boxes, read once more by its box head."""
    classes = model.eval().roi_heads.box_predictor.cls_score.out_features
    return Detector(functools.partial(_detect, model), classes, labels)


def _detect(model: Any, picture: np.ndarray) -> Detections:
    import torch

    heads = model.roi_heads
    with torch.inference_mode():
        pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255
        images, _ = model.transform([pixels])
        maps = model.backbone(images.tensors)
        if isinstance(maps, torch.Tensor):  # of a backbone with a single level
            maps = {"0": maps}
        proposals, _ = model.rpn(images, maps)
        (found,), _ = heads(maps, proposals, images.image_sizes)
        boxes = found["boxes"]
        pooled = heads.box_roi_pool(maps, [boxes], images.image_sizes)
        features = heads.box_head(pooled)
        classes, _ = heads.box_predictor(features)
        best = torch.argsort(found["scores"], descending=True, stable=True)[: base.MAX_REGIONS]
        ids, probs = photos.top(classes.softmax(-1)[best].numpy())
        height, width = images.image_sizes[0]
        corners = boxes[best][:, [1, 0, 3, 2]].numpy() / [height, width, height, width]
        return Detections(
            np.clip(corners, 0, 1).astype(np.float32),
            features[best].numpy(),
            found["scores"][best].numpy(),
            ids,
            probs,
        )


def load(model: str, *, weights: str = "", labels: str = "") -> Detector:
    """Builds a Faster R-CNN.

    Args:
      model: name of a builder in torchvision.models.detection, such as fasterrcnn_resnet50_fpn_v2.
      weights: file of a state_dict; "" = those that torchvision publishes, which it downloads.
      labels: file of the classes' names; the published weights have their own.

    Raises:
      UsageError: torchvision does not load, there is no such builder, or the weights do not fit or
        cannot be downloaded.
    """
    remedy = "; see https://pytorch.org/get-started/locally/"
    with trying("this detector needs torch and a torchvision built for it", remedy):
        import torch
        import torchvision.models as models
    build = getattr(models.detection, model, None)
    if not inspect.isfunction(build) or not model.startswith("fasterrcnn"):
        known = ", ".join(name for name in dir(models.detection) if name.startswith("fasterrcnn_"))
        raise UsageError(f"torchvision has no Faster R-CNN {model!r}; there are {known}")
    if not weights:
        remedy = "; give the file of a state_dict as weights=…"
        with trying(f"the weights of {model} cannot be downloaded", remedy):
            published = models.get_model_weights(model).DEFAULT
            network = build(weights=published)
        names = base.labels(labels) or dict(enumerate(published.meta["categories"]))
        return _detector(network, names)
    base.existing(weights, "file of weights")
    with trying(f"{weights} does not hold the weights of {model}"):
        state = torch.load(weights, weights_only=True)
        classes = len(state["roi_heads.box_predictor.cls_score.bias"])
        network = build(weights=None, weights_backbone=None, num_classes=classes)
        network.load_state_dict(state)
    return _detector(network, base.labels(labels))
