"""AlexNet: torchvision's single-column variant, and the network of 2012.

Krizhevsky, Sutskever, Hinton, ImageNet classification with deep convolutional neural networks, NIPS 2012; the variant
is of Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014, as torchvision has it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import layers

from visionkit.layers.normalization import LocalResponseNormalization
from visionkit.layers.pooling import AdaptiveAveragePooling2D, CeilMaxPooling2D
from visionkit.nets.blocks import Classes, classifier_head, conv, dense, image_input, layer_name

__all__ = ["alexnet", "alexnet_2012"]

UNITS = 4096


class _Conv(NamedTuple):
    """One convolution with its ReLU, and the normalisation and overlapping pooling behind it."""

    name: str
    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    grouped: bool = False
    normalize: bool = False
    pool: bool = False


TORCHVISION = (
    _Conv("features.0", 64, 11, 4, 2, pool=True),
    _Conv("features.3", 192, 5, padding=2, pool=True),
    _Conv("features.6", 384),
    _Conv("features.8", 256),
    _Conv("features.10", 256, pool=True),
)
PAPER = (
    _Conv("conv1", 96, 11, 4, 0, normalize=True, pool=True),
    _Conv("conv2", 256, 5, padding=2, grouped=True, normalize=True, pool=True),
    _Conv("conv3", 384),
    _Conv("conv4", 384, grouped=True),
    _Conv("conv5", 256, grouped=True, pool=True),
)


def alexnet(
    *, classes: Classes = 1000, size_hw: tuple[int, int] | None = (224, 224), dropout: float = 0.5
) -> keras.Model:
    """Torchvision's AlexNet: `image` float32 (B, H, W, 3) RGB -> `logits` (B, classes); 61,100,840 parameters.

    Args:
        classes: classes, or a mapping head -> classes, or None for the last feature map of 256 channels.
        size_hw: height and width, at least 63, or None for any.
        dropout: share of units dropped before each hidden fully connected layer.

    Raises:
        ValueError: an argument is out of range.
    """
    image = image_input("alexnet", size_hw, minimum=63)
    x = _features(image, TORCHVISION, groups=1, ceil_mode=False)
    if classes is None:
        return keras.Model(image, x, name="alexnet")
    x = AdaptiveAveragePooling2D(6, name="avgpool")(x)
    x = layers.Flatten(name="flatten")(x)
    for name in ("classifier.1", "classifier.4"):
        x = layers.Dropout(dropout, name=layer_name(f"{name}.dropout"))(x)
        x = dense(x, UNITS, name=name)
    return keras.Model(image, classifier_head(x, classes), name="alexnet")


def alexnet_2012(
    *,
    classes: Classes = 1000,
    size_hw: tuple[int, int] | None = (227, 227),
    groups: int = 2,
    ceil_mode: bool = False,
    dropout: float = 0.5,
) -> keras.Model:
    """The AlexNet of 2012: `image` float32 (B, 227, 227, 3) -> `logits` (B, classes); 60,965,224 parameters.

    Two groups (the paper's two GPUs), local response normalisation by the paper's formula, pooling of 3 with stride 2.
    The paper says 224; its numbers (55 x 55 after the first layer) need 227 without padding.

    Args:
        classes: classes, or a mapping head -> classes, or None for the last feature map of 256 channels.
        size_hw: height and width, at least 67; the first fully connected layer is as large as they make it.
        groups: of the second, fourth and fifth convolution; 1 has 62,378,344 parameters.
        ceil_mode: Caffe's pooling, which differs where windows do not fit: 500 pixels give 15 rather than 14.
        dropout: share of units dropped behind each hidden fully connected layer.

    Raises:
        ValueError: an argument is out of range, or the size is open where there are classes.
    """
    image = image_input("alexnet_2012", size_hw, minimum=67, fixed=classes is not None)
    x = _features(image, PAPER, groups=groups, ceil_mode=ceil_mode)
    if classes is None:
        return keras.Model(image, x, name="alexnet_2012")
    x = layers.Flatten(name="flatten")(x)
    for name in ("fc6", "fc7"):
        x = dense(x, UNITS, name=name)
        x = layers.Dropout(dropout, name=layer_name(f"{name}.dropout"))(x)
    return keras.Model(image, classifier_head(x, classes), name="alexnet_2012")


def _features(x: Any, rows: tuple[_Conv, ...], *, groups: int, ceil_mode: bool) -> Any:
    for row in rows:
        x = conv(
            x,
            row.channels,
            row.kernel,
            stride=row.stride,
            padding=row.padding,
            groups=groups if row.grouped else 1,
            bias=True,
            name=row.name,
        )
        x = layers.ReLU(name=f"{row.name}.relu")(x)
        if row.normalize:
            x = LocalResponseNormalization(5, 1e-4, 0.75, 2.0, name=f"{row.name}.lrn")(x)
        if row.pool:
            pooling = CeilMaxPooling2D if ceil_mode else layers.MaxPooling2D
            x = pooling(3, 2, name=f"{row.name}.pool")(x)
    return x
