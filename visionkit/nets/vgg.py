"""VGG: Simonyan, Zisserman, Very deep convolutional networks for large-scale image recognition, ICLR 2015, table 1."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from visionkit.layers.pooling import AdaptiveAveragePooling2D, CeilMaxPooling2D
from visionkit.nets.blocks import Classes, classifier_head, conv, dense, image_input, layer_name

__all__ = ["vgg16", "vgg19", "vgg_stages"]

# (convolutions, channels) of each stage; a pooling follows each
STAGES_16 = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
STAGES_19 = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
UNITS = 4096


def vgg16(*, classes: Classes = 1000, size_hw: tuple[int, int] | None = (224, 224), **options: Any) -> keras.Model:
    """VGG-16 (D): `image` float32 (B, H, W, 3) RGB -> `logits` (B, classes); 138,357,544 parameters.

    Args:
        classes: classes, or a mapping head -> classes, or None for the last feature map of 512 channels.
        size_hw: height and width, at least 32, or None for any. Sizes other than 224 go through torchvision's
            adaptive pooling to 7 x 7.
        options: `ceil_mode` (Caffe's pooling, for odd maps; default False) and `dropout` (0.5).

    Raises:
        ValueError: an argument is out of range.
    """
    return _vgg("vgg16", STAGES_16, classes, size_hw, **options)


def vgg19(*, classes: Classes = 1000, size_hw: tuple[int, int] | None = (224, 224), **options: Any) -> keras.Model:
    """VGG-19 (E), 143,667,240 parameters; see `vgg16`."""
    return _vgg("vgg19", STAGES_19, classes, size_hw, **options)


def _vgg(
    name: str,
    stages: tuple[tuple[int, int], ...],
    classes: Classes,
    size_hw: tuple[int, int] | None,
    *,
    ceil_mode: bool = False,
    dropout: float = 0.5,
) -> keras.Model:
    image = image_input(name, size_hw, minimum=32)
    x = vgg_stages(image, stages, ceil_mode=ceil_mode)[-1]
    if classes is None:
        return keras.Model(image, x, name=name)
    x = AdaptiveAveragePooling2D(7, name="avgpool")(x)
    x = layers.Flatten(name="flatten")(x)
    for layer in ("classifier.0", "classifier.3"):
        x = dense(x, UNITS, name=layer)
        x = layers.Dropout(dropout, name=layer_name(f"{layer}.dropout"))(x)
    return keras.Model(image, classifier_head(x, classes), name=name)


def vgg_stages(
    x: Any, stages: tuple[tuple[int, int], ...], *, ceil_mode: bool = False, last_pooling: bool = True
) -> list[Any]:
    """The map behind each stage's pooling, `pool1` to `pool5`; `stages` is `STAGES_16` or `STAGES_19`.

    Without `last_pooling` the last map is that of the last convolution.
    """
    maps = []
    pooling = CeilMaxPooling2D if ceil_mode else layers.MaxPooling2D
    index = 0  # torchvision counts convolutions, ReLUs and poolings
    for stage, (convolutions, channels) in enumerate(stages, 1):
        for _ in range(convolutions):
            x = conv(x, channels, 3, padding=1, bias=True, name=f"features.{index}")
            x = layers.ReLU(name=f"features.{index}.relu")(x)
            index += 2
        if last_pooling or stage < len(stages):
            x = pooling(2, 2, name=f"pool{stage}")(x)
        maps.append(x)
        index += 1
    return maps
