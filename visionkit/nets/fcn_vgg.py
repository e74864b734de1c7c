"""FCN-32s, 16s and 8s on VGG-16 as published.

Long, Shelhamer, Darrell, Fully convolutional networks for semantic segmentation, CVPR 2015, and the authors' network
files: the image is padded so that the first convolution reaches 100 pixels beyond it, VGG-16's fully connected layers
are convolutions of 7x7 and 1x1, pooling rounds up as Caffe does.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from visionkit.nets.blocks import layer_name
from visionkit.nets.fcn import fcn
from visionkit.nets.vgg import STAGES_16, UNITS, vgg_stages

__all__ = ["fcn8s_vgg16", "fcn16s_vgg16", "fcn32s_vgg16"]

Size = tuple[int, int] | None
PADDING = 99  # and one more in the first convolution: 100 as published
DROPOUT = 0.5
AT_ONCE = (0.01, 0.0001)  # on pool4 and pool3, where one training replaces that of 32s, 16s and 8s one after the other


def fcn32s_vgg16(*, classes: int = 21, size_hw: Size = (500, 500), **options: Any) -> keras.Model:
    """FCN-32s, 136,152,917 parameters: `image` float32 (B, H, W, 3), normalised -> `logits` (B, H, W, classes).

    The published weights want BGR minus (104.00699, 116.66877, 122.67892), the preset `fcn`; VGG-16's own want theirs.

    Args:
        classes: number of classes, background included.
        size_hw: height and width in pixels; None leaves them open.
        options: `units` (4096) of the two layers that were fully connected, `trainable_upsampling` (False) and `resize`
            (True), see `visionkit.nets.fcn`.

    Raises:
        ValueError: an argument out of its range.
    """
    return _fcn("fcn32s_vgg16", 0, classes, size_hw, **options)


def fcn16s_vgg16(*, classes: int = 21, size_hw: Size = (500, 500), **options: Any) -> keras.Model:
    """FCN-16s, with the scores of pool4; see `fcn32s_vgg16`."""
    return _fcn("fcn16s_vgg16", 1, classes, size_hw, **options)


def fcn8s_vgg16(*, classes: int = 21, size_hw: Size = (500, 500), at_once: bool = False, **options: Any) -> keras.Model:
    """FCN-8s, with the scores of pool4 and pool3; see `fcn32s_vgg16`.

    Args:
        at_once: scale pool4 by 0.01 and pool3 by 0.0001 before they are scored, so that the network can be trained in
            one go.
    """
    return _fcn("fcn8s_vgg16", 2, classes, size_hw, scales=AT_ONCE if at_once else (), **options)


def _fcn(name: str, skips: int, classes: int, size_hw: Size, *, units: int = UNITS, **options: Any) -> keras.Model:
    if isinstance(units, bool) or not isinstance(units, int) or units < 1:
        raise ValueError(f"`units` must be a positive integer. Received: units={units!r}.")

    def backbone(image: Any) -> list[Any]:
        x = layers.ZeroPadding2D(PADDING, name="pad")(image)
        maps = vgg_stages(x, STAGES_16, ceil_mode=True)
        x = maps[-1]
        for layer, kernel in (("fc6", 7), ("fc7", 1)):
            x = layers.Conv2D(units, kernel, kernel_initializer="he_normal", name=layer_name(layer))(x)
            x = layers.ReLU(name=f"{layer}.relu")(x)
            x = layers.Dropout(DROPOUT, name=layer_name(f"{layer}.dropout"))(x)
        return [maps[2], maps[3], x]  # pool3, pool4

    return fcn(backbone, skips=skips, classes=classes, size_hw=size_hw, name=name, **options)
