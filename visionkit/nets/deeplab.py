"""DeepLabV3 and the plain fully convolutional network on ResNets and MobileNetV3, as torchvision has them.

Chen, Papandreou, Schroff, Adam, Rethinking atrous convolution for semantic image segmentation, 2017; Long, Shelhamer,
Darrell, Fully convolutional networks for semantic segmentation, CVPR 2015. The backbones do not halve their last maps
but spread their windows: stride 8 for the ResNets, 16 for MobileNetV3. Names are torchvision's, so that its checkpoints
(COCO images, the classes of VOC) fit; their second head is needed for training only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from visionkit.nets.blocks import image_input
from visionkit.nets.mobilenet_v3 import mobilenet_v3_features
from visionkit.nets.resnet import resnet_stages
from visionkit.nets.segmentation_heads import (
    atrous_pyramid,
    check_classes,
    fully_convolutional_head,
    segmentation_model,
)

__all__ = [
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "fcn_resnet50",
    "fcn_resnet101",
]

Size = tuple[int, int] | None
AUX_FEATURE = 4  # of MobileNetV3: the first bottleneck at stride 8


def fcn_resnet50(
    *, classes: int = 21, size_hw: Size = (520, 520), aux: bool = False, resize: bool = True
) -> keras.Model:
    """FCN on a dilated ResNet-50, 32,957,013 parameters: `image` float32 (B, H, W, 3) -> `logits` (B, H, W, classes).

    Args:
        classes: number of classes, background included.
        size_hw: height and width in pixels; None leaves them open.
        aux: a second head on the third stage, for training: `{"logits": …, "aux": …}`.
        resize: enlarge to the image's size; otherwise the scores are `logits_low`, at an eighth of it.

    Raises:
        ValueError: an argument out of its range.
    """
    return _on_resnet("fcn_resnet50", "resnet50", _plain, classes, size_hw, aux=aux, resize=resize)


def fcn_resnet101(
    *, classes: int = 21, size_hw: Size = (520, 520), aux: bool = False, resize: bool = True
) -> keras.Model:
    """FCN on a dilated ResNet-101, 51,949,141 parameters; see `fcn_resnet50`."""
    return _on_resnet("fcn_resnet101", "resnet101", _plain, classes, size_hw, aux=aux, resize=resize)


def deeplabv3_resnet50(
    *, classes: int = 21, size_hw: Size = (520, 520), aux: bool = False, resize: bool = True
) -> keras.Model:
    """DeepLabV3 on a dilated ResNet-50, 39,638,869 parameters; see `fcn_resnet50`."""
    return _on_resnet("deeplabv3_resnet50", "resnet50", atrous_pyramid, classes, size_hw, aux=aux, resize=resize)


def deeplabv3_resnet101(
    *, classes: int = 21, size_hw: Size = (520, 520), aux: bool = False, resize: bool = True
) -> keras.Model:
    """DeepLabV3 on a dilated ResNet-101, 58,630,997 parameters; see `fcn_resnet50`."""
    return _on_resnet("deeplabv3_resnet101", "resnet101", atrous_pyramid, classes, size_hw, aux=aux, resize=resize)


def deeplabv3_mobilenet_v3_large(
    *, classes: int = 21, size_hw: Size = (520, 520), aux: bool = False, resize: bool = True
) -> keras.Model:
    """DeepLabV3 on a dilated MobileNetV3-large, 11,025,477 parameters; see `fcn_resnet50`.

    Its scores are at a sixteenth of the image's size, the second head is on the first bottleneck at an eighth.
    """
    name = "deeplabv3_mobilenet_v3_large"
    check_classes(classes)
    image = image_input(name, size_hw)
    maps = mobilenet_v3_features(image, dilated=True, prefix="backbone.")
    second = _second(maps[AUX_FEATURE], classes) if aux else None
    return segmentation_model(image, atrous_pyramid(maps[-1], classes), second, name=name, resize=resize)


def _on_resnet(
    name: str,
    backbone: str,
    head: Callable[[Any, int], Any],
    classes: int,
    size_hw: Size,
    *,
    aux: bool,
    resize: bool,
) -> keras.Model:
    check_classes(classes)
    image = image_input(name, size_hw)
    maps = resnet_stages(image, backbone, dilated=(False, False, True, True), prefix="backbone.")
    second = _second(maps[2], classes) if aux else None
    return segmentation_model(image, head(maps[3], classes), second, name=name, resize=resize)


def _plain(x: Any, classes: int) -> Any:
    return fully_convolutional_head(x, classes, prefix="classifier", name="logits_low")


def _second(x: Any, classes: int) -> Any:
    return fully_convolutional_head(x, classes, prefix="aux_classifier", name="aux_low")
