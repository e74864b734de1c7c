"""Faster R-CNN on feature pyramids: ResNet-50 (two editions) and MobileNetV3-large, as torchvision has them.

Ren, He, Girshick, Sun, Faster R-CNN, NIPS 2015, on the pyramid of Lin et al., CVPR 2017. Each network takes `image`
float32 (B, H, W, 3) RGB, normalised, the picture at the top left and zeros beside and below it, and `valid_hw`
float32 (B, 2), its height and width there. Each gives `boxes` float32 (B, K, 4) xyxy in pixels of the input, `scores`
(B, K), `class_id` int32 (B, K), best first, and `count` int32 (B,); all is 0 behind the first `count`. For the parts
between which boxes are selected and pooled see `rcnn_parts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from visionkit.geometry.detection_rules import RCNNRule
from visionkit.nets.rcnn import RCNNPlan, rcnn

__all__ = [
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
]

Size = tuple[int, int]
Rule = RCNNRule | Mapping[str, Any] | None


def fasterrcnn_resnet50_fpn(
    *, classes: int = 91, size_hw: Size = (800, 1344), norm_eps: float = 1e-5, rule: Rule = None
) -> keras.Model:
    """Faster R-CNN on ResNet-50 and a pyramid, 41,808,406 trainable parameters.

    Args:
        classes: number of classes, background included.
        size_hw: of the input, multiples of 32.
        norm_eps: epsilon of all batch normalisations; torchvision's COCO_V1 wants 0.
        rule: anchors, thresholds and counts, or those in which they differ from the network's own.

    Raises:
        ValueError: an argument out of its range.
    """
    plan = RCNNPlan("fasterrcnn_resnet50_fpn")
    return rcnn(plan, classes=classes, size_hw=size_hw, norm_eps=norm_eps, rule=rule)


def fasterrcnn_resnet50_fpn_v2(
    *, classes: int = 91, size_hw: Size = (800, 1344), norm_eps: float = 1e-5, rule: Rule = None
) -> keras.Model:
    """The same with deeper, normalised heads and pyramid, 43,712,278 trainable parameters.

    Li et al., Benchmarking detection transfer learning with vision transformers, 2021; arguments and errors as of
    `fasterrcnn_resnet50_fpn`.
    """
    plan = RCNNPlan("fasterrcnn_resnet50_fpn_v2", modern=True)
    return rcnn(plan, classes=classes, size_hw=size_hw, norm_eps=norm_eps, rule=rule)


def fasterrcnn_mobilenet_v3_large_fpn(
    *, classes: int = 91, size_hw: Size = (800, 1344), norm_eps: float = 1e-5, rule: Rule = None
) -> keras.Model:
    """Faster R-CNN on MobileNetV3-large and a pyramid, 19,410,754 trainable parameters.

    Both maps of the backbone have stride 32, and boxes are pooled from the first; arguments and errors as of
    `fasterrcnn_resnet50_fpn`.
    """
    plan = RCNNPlan("fasterrcnn_mobilenet_v3_large_fpn", "mobilenet_v3_large")
    return rcnn(plan, classes=classes, size_hw=size_hw, norm_eps=norm_eps, rule=rule)


def fasterrcnn_mobilenet_v3_large_320_fpn(
    *, classes: int = 91, size_hw: Size = (320, 448), norm_eps: float = 1e-5, rule: Rule = None
) -> keras.Model:
    """The same for small inputs, with 150 proposals; arguments and errors as of `fasterrcnn_resnet50_fpn`."""
    plan = RCNNPlan("fasterrcnn_mobilenet_v3_large_320_fpn", "mobilenet_v3_large")
    return rcnn(plan, classes=classes, size_hw=size_hw, norm_eps=norm_eps, rule=rule)
