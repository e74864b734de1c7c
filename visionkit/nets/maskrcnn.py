"""Mask R-CNN on ResNet-50 and a feature pyramid, two editions, as torchvision has them.

He, Gkioxari, Dollar, Girshick, Mask R-CNN, ICCV 2017. Inputs, outputs and arguments are those of
`visionkit.nets.fasterrcnn`, and one more output: `masks` float32 (B, K, 28, 28), for each box the probability of its
own class over a grid on it; `visionkit.geometry.mask_paste` puts it into the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from visionkit.geometry.detection_rules import RCNNRule
from visionkit.nets.rcnn import RCNNPlan, rcnn

__all__ = ["maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"]

Size = tuple[int, int]
Rule = RCNNRule | Mapping[str, Any] | None


def maskrcnn_resnet50_fpn(
    *, classes: int = 91, size_hw: Size = (800, 1344), norm_eps: float = 1e-5, rule: Rule = None
) -> keras.Model:
    """Mask R-CNN on ResNet-50 and a pyramid, 44,454,513 trainable parameters.

    Args:
        classes: number of classes, background included.
        size_hw: of the input, multiples of 32.
        norm_eps: epsilon of all batch normalisations; torchvision's COCO_V1 wants 0.
        rule: anchors, thresholds and counts, or those in which they differ from the network's own.

    Raises:
        ValueError: an argument out of its range.
    """
    plan = RCNNPlan("maskrcnn_resnet50_fpn", masks=True)
    return rcnn(plan, classes=classes, size_hw=size_hw, norm_eps=norm_eps, rule=rule)


def maskrcnn_resnet50_fpn_v2(
    *, classes: int = 91, size_hw: Size = (800, 1344), norm_eps: float = 1e-5, rule: Rule = None
) -> keras.Model:
    """The same with deeper, normalised heads and pyramid, 46,359,409 trainable parameters.

    Li et al., Benchmarking detection transfer learning with vision transformers, 2021; arguments and errors as of
    `maskrcnn_resnet50_fpn`.
    """
    plan = RCNNPlan("maskrcnn_resnet50_fpn_v2", modern=True, masks=True)
    return rcnn(plan, classes=classes, size_hw=size_hw, norm_eps=norm_eps, rule=rule)
