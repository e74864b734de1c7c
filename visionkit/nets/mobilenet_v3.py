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

__all__ = [
    "Bottleneck",
    "bottleneck_expansion",
    "bottleneck_reduction",
    "mobilenet_v3_block",
    "mobilenet_v3_features",
    "mobilenet_v3_large",
    "mobilenet_v3_last",
    "mobilenet_v3_small",
    "mobilenet_v3_stem",
]

RELU, SWISH = "relu", "hard_swish"
EPSILON = 1e-3
STEM = 16


class Bottleneck(NamedTuple):
    """One bottleneck of the papers' tables."""

    kernel: int
    expanded: int
    channels: int
    squeeze: bool
    activation: str
    stride: int = 1
    dilation: int = 1
    epsilon: float = EPSILON

    def scaled(self, width: float) -> Bottleneck:
        """The row with all channels times `width`, rounded to multiples of 8."""
        return self._replace(expanded=divisible(self.expanded * width), channels=divisible(self.channels * width))


LARGE = (
    Bottleneck(3, 16, 16, False, RELU),
    Bottleneck(3, 64, 24, False, RELU, 2),
    Bottleneck(3, 72, 24, False, RELU),
    Bottleneck(5, 72, 40, True, RELU, 2),
    Bottleneck(5, 120, 40, True, RELU),
    Bottleneck(5, 120, 40, True, RELU),
    Bottleneck(3, 240, 80, False, SWISH, 2),
    Bottleneck(3, 200, 80, False, SWISH),
    Bottleneck(3, 184, 80, False, SWISH),
    Bottleneck(3, 184, 80, False, SWISH),
    Bottleneck(3, 480, 112, True, SWISH),
    Bottleneck(3, 672, 112, True, SWISH),
    Bottleneck(5, 672, 160, True, SWISH, 2),
    Bottleneck(5, 960, 160, True, SWISH),
    Bottleneck(5, 960, 160, True, SWISH),
)
SMALL = (
    Bottleneck(3, 16, 16, True, RELU, 2),
    Bottleneck(3, 72, 24, False, RELU, 2),
    Bottleneck(3, 88, 24, False, RELU),
    Bottleneck(5, 96, 40, True, SWISH, 2),
    Bottleneck(5, 240, 40, True, SWISH),
    Bottleneck(5, 240, 40, True, SWISH),
    Bottleneck(5, 120, 48, True, SWISH),
    Bottleneck(5, 144, 48, True, SWISH),
    Bottleneck(5, 288, 96, True, SWISH, 2),
    Bottleneck(5, 576, 96, True, SWISH),
    Bottleneck(5, 576, 96, True, SWISH),
)


class _Network(NamedTuple):
    """The bottlenecks and the channels of the layer before the logits."""

    name: str
    rows: tuple[Bottleneck, ...]
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
    x: Any,
    rows: tuple[Bottleneck, ...] = LARGE,
    *,
    width: float = 1.0,
    dilated: bool = False,
    prefix: str = "features.",
    epsilon: float = EPSILON,
) -> list[Any]:
    """The map behind the stem, each bottleneck and the last 1x1, numbered as torchvision's `features` are.

    Args:
        x: the image, (B, H, W, 3).
        rows: the bottlenecks, `LARGE` or `SMALL`.
        width: factor on all channels.
        dilated: the last stage spreads its windows by 2 where it would halve the map, the first block included: the
            stride is 16 rather than 32.
        prefix: what the names of all layers begin with.
        epsilon: of every normalisation; torchvision's Faster R-CNN has 1e-5.
    """
    maps = [mobilenet_v3_stem(x, f"{prefix}0", width=width, epsilon=epsilon)]
    last = max(index for index, row in enumerate(rows) if row.stride > 1)
    for index, row in enumerate(rows):
        scaled = row.scaled(width)._replace(epsilon=epsilon)
        if dilated and index >= last:
            scaled = scaled._replace(stride=1, dilation=2)
        maps.append(mobilenet_v3_block(maps[-1], scaled, f"{prefix}{index + 1}"))
    return [*maps, mobilenet_v3_last(maps[-1], f"{prefix}{len(rows) + 1}", epsilon=epsilon)]


def mobilenet_v3_stem(x: Any, name: str, *, width: float = 1.0, epsilon: float = EPSILON) -> Any:
    """The first convolution, (B, H, W, 3) -> (B, H / 2, W / 2, 16 * width)."""
    return _conv(x, divisible(STEM * width), 3, name, stride=2, epsilon=epsilon)


def mobilenet_v3_last(x: Any, name: str, *, epsilon: float = EPSILON) -> Any:
    """The 1x1 behind the bottlenecks, (B, h, w, C) -> (B, h, w, 6 C)."""
    return _conv(x, 6 * x.shape[-1], 1, name, epsilon=epsilon)


def _conv(x: Any, channels: int, kernel: int, name: str, *, activation: str | None = SWISH, **options: Any) -> Any:
    padding = options.get("dilation", 1) * (kernel // 2)
    options |= {"padding": padding, "activation": activation}
    return conv_norm(x, channels, kernel, names=(f"{name}.0", f"{name}.1"), **options)


def mobilenet_v3_block(x: Any, row: Bottleneck, name: str) -> Any:
    """Expansion, depthwise, squeeze and excitation, linear 1x1: (B, H, W, C) -> (B, H / stride, W / stride, C')."""
    expands = row.expanded != x.shape[-1]
    y = bottleneck_expansion(x, row, f"{name}.block.0") if expands else x
    y = bottleneck_reduction(y, row, f"{name}.block", first=int(expands))
    if row.stride == 1 and x.shape[-1] == row.channels:
        y = layers.Add(name=f"{name}.add")([x, y])
    return y


def bottleneck_expansion(x: Any, row: Bottleneck, name: str) -> Any:
    """The 1x1 that begins a bottleneck, (B, H, W, C) -> (B, H, W, expanded)."""
    return _conv(x, row.expanded, 1, name, activation=row.activation, epsilon=row.epsilon)


def bottleneck_reduction(x: Any, row: Bottleneck, name: str, *, first: int = 1) -> Any:
    """What follows the expansion of a bottleneck: (B, H, W, expanded) -> (B, H / stride, W / stride, channels).

    Args:
        x: the expanded map.
        row: the bottleneck.
        name: of the layers, each with a number behind.
        first: the number of the depthwise convolution.
    """
    options: dict[str, Any] = {"stride": row.stride, "dilation": row.dilation, "activation": row.activation}
    options["epsilon"] = row.epsilon
    y = _conv(x, row.expanded, row.kernel, f"{name}.{first}", groups=row.expanded, **options)
    if row.squeeze:
        first += 1
        y = _squeeze_excite(y, f"{name}.{first}")
    return _conv(y, row.channels, 1, f"{name}.{first + 1}", activation=None, epsilon=row.epsilon)


def _squeeze_excite(x: Any, name: str) -> Any:
    """Channels weighed by what the whole map holds (Hu, Shen, Sun, CVPR 2018), with a hard sigmoid as gate."""
    channels = x.shape[-1]
    gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.avgpool")(x)  # (B, 1, 1, C)
    gate = conv(gate, divisible(channels // 4), 1, name=f"{name}.fc1", bias=True)
    gate = activate(gate, RELU, name=f"{name}.relu")
    gate = conv(gate, channels, 1, name=f"{name}.fc2", bias=True)
    gate = activate(gate, "hard_sigmoid", name=f"{name}.hard_sigmoid")
    return layers.Multiply(name=f"{name}.scale")([x, gate])
