"""MobileNetV3 large and small, with torchvision's names for every layer with weights.

Howard, Sandler, Chu et al., Searching for MobileNetV3, ICCV 2019, tables 1 and 2; the squeeze layers are a quarter of
the expansion, rounded to multiples of 8, and epsilon is 1e-3, as torchvision has them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import layers

from visionkit.nets.blocks import Classes, activate, classifier_head, conv, conv_norm, image_input, layer_name
from visionkit.nets.mobilenet_v2 import divisible

__all__ = ["mobilenet_v3_features", "mobilenet_v3_large", "mobilenet_v3_small"]

RELU, SWISH = "relu", "hard_swish"
EPSILON = 1e-3
STEM = 16


class _Row(NamedTuple):
    """One bottleneck of the papers' tables."""

    kernel: int
    expanded: int
    channels: int
    squeeze: bool
    activation: str
    stride: int = 1
    dilation: int = 1


LARGE = (
    _Row(3, 16, 16, False, RELU),
    _Row(3, 64, 24, False, RELU, 2),
    _Row(3, 72, 24, False, RELU),
    _Row(5, 72, 40, True, RELU, 2),
    _Row(5, 120, 40, True, RELU),
    _Row(5, 120, 40, True, RELU),
    _Row(3, 240, 80, False, SWISH, 2),
    _Row(3, 200, 80, False, SWISH),
    _Row(3, 184, 80, False, SWISH),
    _Row(3, 184, 80, False, SWISH),
    _Row(3, 480, 112, True, SWISH),
    _Row(3, 672, 112, True, SWISH),
    _Row(5, 672, 160, True, SWISH, 2),
    _Row(5, 960, 160, True, SWISH),
    _Row(5, 960, 160, True, SWISH),
)
SMALL = (
    _Row(3, 16, 16, True, RELU, 2),
    _Row(3, 72, 24, False, RELU, 2),
    _Row(3, 88, 24, False, RELU),
    _Row(5, 96, 40, True, SWISH, 2),
    _Row(5, 240, 40, True, SWISH),
    _Row(5, 240, 40, True, SWISH),
    _Row(5, 120, 48, True, SWISH),
    _Row(5, 144, 48, True, SWISH),
    _Row(5, 288, 96, True, SWISH, 2),
    _Row(5, 576, 96, True, SWISH),
    _Row(5, 576, 96, True, SWISH),
)


class _Network(NamedTuple):
    """The bottlenecks and the channels of the layer before the logits."""

    name: str
    rows: tuple[_Row, ...]
    last: int


def mobilenet_v3_large(
    *,
    classes: Classes = 1000,
    size_hw: tuple[int, int] | None = (224, 224),
    width_multiplier: float = 1.0,
    dropout: float = 0.2,
) -> keras.Model:
    """MobileNetV3-large, 5,483,032 parameters: `image` float32 (B, H, W, 3) RGB, normalised -> `logits` (B, classes).

    Args:
        classes: number of classes; a mapping head -> number for several heads, None for the last map (B, h, w, C).
        size_hw: height and width in pixels; None leaves them open.
        width_multiplier: factor on all channels, rounded to multiples of 8.
        dropout: rate before the logits.

    Raises:
        ValueError: a size or a factor that is not positive.
    """
    network = _Network("mobilenet_v3_large", LARGE, 1280)
    return _build(network, classes, size_hw, width_multiplier, dropout=dropout)


def mobilenet_v3_small(
    *,
    classes: Classes = 1000,
    size_hw: tuple[int, int] | None = (224, 224),
    width_multiplier: float = 1.0,
    dropout: float = 0.2,
) -> keras.Model:
    """MobileNetV3-small, 2,542,856 parameters; arguments and errors as of `mobilenet_v3_large`."""
    network = _Network("mobilenet_v3_small", SMALL, 1024)
    return _build(network, classes, size_hw, width_multiplier, dropout=dropout)


def _build(
    network: _Network, classes: Classes, size_hw: tuple[int, int] | None, width: float, *, dropout: float
) -> keras.Model:
    if not width > 0:
        raise ValueError(f"`width_multiplier` must be positive. Received: width_multiplier={width}.")
    image = image_input(network.name, size_hw)
    x = mobilenet_v3_features(image, network.rows, width=width)[-1]
    if classes is not None:
        x = layers.GlobalAveragePooling2D(name="avgpool")(x)
        x = layers.Dense(divisible(network.last * width), name=layer_name("classifier.0"))(x)
        x = activate(x, SWISH, name="classifier.1")
        x = layers.Dropout(dropout, name=layer_name("classifier.2"))(x)
    return keras.Model(image, classifier_head(x, classes), name=network.name)


def mobilenet_v3_features(
    x: Any, rows: tuple[_Row, ...] = LARGE, *, width: float = 1.0, dilated: bool = False, prefix: str = "features."
) -> list[Any]:
    """The map behind the stem, each bottleneck and the last 1x1, numbered as torchvision's `features` are.

    Args:
        x: the image, (B, H, W, 3).
        rows: the bottlenecks, `LARGE` or `SMALL`.
        width: factor on all channels.
        dilated: the last stage spreads its windows by 2 where it would halve the map, the first block included: the
            stride is 16 rather than 32.
        prefix: what the names of all layers begin with.
    """
    maps = [_conv(x, divisible(STEM * width), 3, f"{prefix}0", stride=2)]
    last = max(index for index, row in enumerate(rows) if row.stride > 1)
    for index, row in enumerate(rows):
        scaled = row._replace(expanded=divisible(row.expanded * width), channels=divisible(row.channels * width))
        if dilated and index >= last:
            scaled = scaled._replace(stride=1, dilation=2)
        maps.append(_block(maps[-1], scaled, f"{prefix}{index + 1}"))
    return [*maps, _conv(maps[-1], 6 * maps[-1].shape[-1], 1, f"{prefix}{len(rows) + 1}")]


def _conv(x: Any, channels: int, kernel: int, name: str, *, activation: str | None = SWISH, **options: Any) -> Any:
    padding = options.get("dilation", 1) * (kernel // 2)
    options |= {"padding": padding, "epsilon": EPSILON, "activation": activation}
    return conv_norm(x, channels, kernel, names=(f"{name}.0", f"{name}.1"), **options)


def _block(x: Any, row: _Row, name: str) -> Any:
    """Expansion, depthwise, squeeze and excitation, linear 1x1: (B, H, W, C) -> (B, H / stride, W / stride, C')."""
    y, part = x, 0
    if row.expanded != x.shape[-1]:
        y = _conv(y, row.expanded, 1, f"{name}.block.0", activation=row.activation)
        part = 1
    options: dict[str, Any] = {"stride": row.stride, "dilation": row.dilation, "activation": row.activation}
    options["groups"] = row.expanded
    y = _conv(y, row.expanded, row.kernel, f"{name}.block.{part}", **options)
    if row.squeeze:
        part += 1
        y = _squeeze_excite(y, f"{name}.block.{part}")
    y = _conv(y, row.channels, 1, f"{name}.block.{part + 1}", activation=None)
    if row.stride == 1 and x.shape[-1] == row.channels:
        y = layers.Add(name=f"{name}.add")([x, y])
    return y


def _squeeze_excite(x: Any, name: str) -> Any:
    """Channels weighed by what the whole map holds (Hu, Shen, Sun, CVPR 2018), with a hard sigmoid as gate."""
    channels = x.shape[-1]
    gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.avgpool")(x)  # (B, 1, 1, C)
    gate = conv(gate, divisible(channels // 4), 1, name=f"{name}.fc1", bias=True)
    gate = activate(gate, RELU, name=f"{name}.relu")
    gate = conv(gate, channels, 1, name=f"{name}.fc2", bias=True)
    gate = activate(gate, "hard_sigmoid", name=f"{name}.hard_sigmoid")
    return layers.Multiply(name=f"{name}.scale")([x, gate])
