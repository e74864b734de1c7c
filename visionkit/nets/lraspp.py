"""LR-ASPP on MobileNetV3-large: a light head that weighs deep features by the whole image and adds shallow ones.

Howard, Sandler, Chu et al., Searching for MobileNetV3, ICCV 2019, section 6.4 and figure 10, as torchvision has it: the
mean is over the whole map, and a ReLU follows the first normalisation.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from visionkit.nets.blocks import conv, conv_norm, image_input
from visionkit.nets.mobilenet_v3 import mobilenet_v3_features
from visionkit.nets.segmentation_heads import check_classes, resize_like, segmentation_model

__all__ = ["lraspp_mobilenet_v3_large"]

LOW_FEATURE = 4  # the first bottleneck at stride 8
CHANNELS = 128


def lraspp_mobilenet_v3_large(
    *, classes: int = 21, size_hw: tuple[int, int] | None = (520, 520), resize: bool = True
) -> keras.Model:
    """LR-ASPP, 3,221,538 parameters: `image` float32 (B, H, W, 3) RGB, normalised -> `logits` (B, H, W, classes).

    Args:
        classes: number of classes, background included.
        size_hw: height and width in pixels; None leaves them open.
        resize: enlarge to the image's size; otherwise the scores are `logits_low`, at an eighth of it.

    Raises:
        ValueError: an argument out of its range.
    """
    name = "lraspp_mobilenet_v3_large"
    check_classes(classes)
    image = image_input(name, size_hw)
    maps = mobilenet_v3_features(image, dilated=True, prefix="backbone.")
    low = _head(maps[LOW_FEATURE], maps[-1], classes)
    return segmentation_model(image, low, None, name=name, resize=resize)


def _head(low: Any, high: Any, classes: int) -> Any:
    """(B, h, w, C) of stride 8 and (B, h / 2, w / 2, D) -> (B, h, w, classes)."""
    x = conv_norm(high, CHANNELS, 1, names=("classifier.cbr.0", "classifier.cbr.1"))
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="classifier.scale.0")(high)  # (B, 1, 1, D)
    gate = conv(gate, CHANNELS, 1, name="classifier.scale.1")
    gate = layers.Activation("sigmoid", name="classifier.scale.2")(gate)
    x = layers.Multiply(name="classifier.weigh")([x, gate])
    x = resize_like(x, low, name="classifier.enlarge")
    x = conv(x, classes, 1, name="classifier.high_classifier", bias=True)
    shallow = conv(low, classes, 1, name="classifier.low_classifier", bias=True)
    return layers.Add(name="logits_low")([shallow, x])
