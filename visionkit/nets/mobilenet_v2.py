"""MobileNetV2: inverted residuals with linear bottlenecks, with torchvision's names for every layer with weights.

Sandler, Howard, Zhu, Zhmoginov, Chen, MobileNetV2: inverted residuals and linear bottlenecks, CVPR 2018, table 2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import layers

from visionkit.nets.blocks import Classes, classifier_head, conv_norm, image_input, layer_name

__all__ = ["divisible", "mobilenet_v2"]


class _Stage(NamedTuple):
    """One row of table 2: the first of its blocks strides."""

    expansion: int
    channels: int
    blocks: int
    stride: int


STAGES = (
    _Stage(1, 16, 1, 1),
    _Stage(6, 24, 2, 2),
    _Stage(6, 32, 3, 2),
    _Stage(6, 64, 4, 2),
    _Stage(6, 96, 3, 1),
    _Stage(6, 160, 3, 2),
    _Stage(6, 320, 1, 1),
)
STEM = 32
LAST = 1280


def divisible(channels: float) -> int:
    """The multiple of 8 nearest to `channels`, at least 8, one more where that would lose over a tenth."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def mobilenet_v2(
    *,
    classes: Classes = 1000,
    size_hw: tuple[int, int] | None = (224, 224),
    width_multiplier: float = 1.0,
    dropout: float = 0.2,
) -> keras.Model:
    """MobileNetV2, 3,504,872 parameters: `image` float32 (B, H, W, 3) RGB, normalised -> `logits` (B, classes).

    Args:
        classes: number of classes; a mapping head -> number for several heads, None for the last map (B, h, w, C).
        size_hw: height and width in pixels; None leaves them open.
        width_multiplier: factor on all channels, rounded to multiples of 8; the last layer is never thinner.
        dropout: rate before the logits.

    Raises:
        ValueError: a size or a factor that is not positive.
    """
    if not width_multiplier > 0:
        raise ValueError(f"`width_multiplier` must be positive. Received: width_multiplier={width_multiplier}.")
    image = image_input("mobilenet_v2", size_hw)
    names = ("features.0.0", "features.0.1")
    x = conv_norm(image, divisible(STEM * width_multiplier), 3, names=names, stride=2, padding=1, activation="relu6")
    index = 1
    for stage in STAGES:
        for i in range(stage.blocks):
            row = stage._replace(channels=divisible(stage.channels * width_multiplier), stride=1 if i else stage.stride)
            x = _block(x, row, f"features.{index}")
            index += 1
    names = (f"features.{index}.0", f"features.{index}.1")
    x = conv_norm(x, divisible(LAST * max(1.0, width_multiplier)), 1, names=names, activation="relu6")
    if classes is not None:
        x = layers.GlobalAveragePooling2D(name="avgpool")(x)
        x = layers.Dropout(dropout, name=layer_name("classifier.0"))(x)
    return keras.Model(image, classifier_head(x, classes), name="mobilenet_v2")


def _block(x: Any, row: _Stage, name: str) -> Any:
    """1x1 expansion, 3x3 depthwise, linear 1x1: (B, H, W, C) -> (B, H / stride, W / stride, channels)."""
    y, part, hidden = x, 0, x.shape[-1] * row.expansion
    if row.expansion != 1:
        y = conv_norm(y, hidden, 1, names=(f"{name}.conv.0.0", f"{name}.conv.0.1"), activation="relu6")
        part = 1
    names = (f"{name}.conv.{part}.0", f"{name}.conv.{part}.1")
    y = conv_norm(y, hidden, 3, names=names, stride=row.stride, padding=1, groups=hidden, activation="relu6")
    names = (f"{name}.conv.{part + 1}", f"{name}.conv.{part + 2}")
    y = conv_norm(y, row.channels, 1, names=names, activation=None)
    if row.stride == 1 and x.shape[-1] == row.channels:
        y = layers.Add(name=f"{name}.add")([x, y])
    return y
