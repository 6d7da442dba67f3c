"""Lets torchvision load beside a torch that its compiled operators were not built for.

Wheels of the package index are built for CUDA, and their operators do not load beside the CPU's
torch. The one that a Faster R-CNN cannot do without is declared here.
"""

import torch

_LIBRARIES = []  # operators last as long as these


def load():
    """Imports torchvision, with a stand-in for its operators where its own do not load."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.impl("nms", nms, "CPU")
        _LIBRARIES.append(library)
        from torchvision import extension

        extension._has_ops = lambda: True
        torch.compiler.set_stance("force_eager")  # what replaces RoIAlign would be compiled


def nms(boxes, scores, threshold):
    """Greedy: the best box stays, those that overlap it by more than `threshold` go."""
    from torchvision.ops import box_iou

    order, kept = scores.argsort(descending=True), []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[box_iou(boxes[best][None], boxes[order])[0] <= threshold]
    return torch.stack(kept) if kept else torch.zeros(0, dtype=torch.long)
