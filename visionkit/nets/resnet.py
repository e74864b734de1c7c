"""ResNet: residual networks of basic or bottleneck blocks, with torchvision's names for every layer with weights.

He, Zhang, Ren, Sun, Deep residual learning for image recognition, CVPR 2016, table 1 and figure 5. Where a bottleneck
halves the map differs by edition, and with it the receptive field (ResNet-50: 427 pixels, or 483 where the first 1x1
strides), so `layout` says it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import layers

from visionkit.nets.blocks import Classes, classifier_head, conv_norm, image_input

__all__ = ["resnet", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet_stages"]


class _Layout(NamedTuple):
    """What the editions of the bottleneck networks disagree on."""

    stride_in_first: bool  # the first 1x1 of a stage strides, not the 3x3
    bias: bool = False  # convolutions have a bias in spite of the normalisation behind them
    epsilon: float = 1e-5

    def options(self) -> dict[str, Any]:
        return {"bias": self.bias, "epsilon": self.epsilon}


LAYOUTS = {
    "v1.5": _Layout(False),  # torchvision
    "paper": _Layout(True),
    "keras": _Layout(True, bias=True, epsilon=1.001e-5),  # keras.applications
}
BLOCKS = ("basic", "bottleneck")
STEMS = ("imagenet", "small")
EXPANSION = 4  # the last 1x1 of a bottleneck has four times the channels of the others

# name: (block, blocks in each of the four stages), table 1
NETWORKS = {
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
    "resnet101": ("bottleneck", (3, 4, 23, 3)),
    "resnet152": ("bottleneck", (3, 8, 36, 3)),
}


def resnet(
    *,
    block: str = "basic",
    depths: tuple[int, ...] = (1, 1, 1, 1),
    width: int = 64,
    stem: str = "imagenet",
    layout: str = "v1.5",
    classes: Classes = 1000,
    size_hw: tuple[int, int] | None = (224, 224),
    name: str = "resnet",
) -> keras.Model:
    """A residual network of any depth: `image` float32 (B, H, W, 3) RGB, normalised -> `logits` (B, classes).

    Each stage but the first halves the map and doubles the channels.

    Args:
        block: `basic`, two 3x3 convolutions; `bottleneck`, 1x1, 3x3, 1x1 with four times the channels at its end.
        depths: number of blocks in each stage.
        width: channels of the stem and of the first stage.
        stem: `imagenet`, 7x7 of stride 2 and pooling of stride 2; `small`, 3x3 of stride 1, for pictures of 32 pixels.
        layout: of bottlenecks; `v1.5`: the 3x3 strides (torchvision); `paper`: the first 1x1; `keras`: like the paper,
            with the biases and the epsilon of `keras.applications`.
        classes: number of classes; a mapping head -> number for several heads, None for the last map (B, h, w, C).
        size_hw: height and width in pixels; None leaves them open.
        name: of the model.

    Raises:
        ValueError: an unknown block, stem or layout, no stage, or sizes below 1.
    """
    _check(block=(block, BLOCKS), stem=(stem, STEMS), layout=(layout, tuple(LAYOUTS)))
    if not depths or min(depths) < 1 or width < 1:
        raise ValueError(f"`depths` and `width` must be positive. Received: depths={depths}, width={width}.")
    if block == "basic" and layout != "v1.5":
        raise ValueError(f"Basic blocks have one layout, 'v1.5'. Received: layout={layout!r}.")
    image = image_input(name, size_hw)
    x = _stem(image, width, stem, LAYOUTS[layout], "")
    x = _stages(x, _Stages(block, depths, width, LAYOUTS[layout]))[-1]
    if classes is not None:
        x = layers.GlobalAveragePooling2D(name="avgpool")(x)
    return keras.Model(image, classifier_head(x, classes), name=name)


def resnet_stages(
    x: Any, network: str, *, dilated: tuple[bool, ...] = (), prefix: str = "", epsilon: float = 1e-5
) -> list[Any]:
    """The maps behind each of the four stages of `network`, for heads that need more than the last one.

    A stage that is dilated keeps the map's size where the others halve it, and spreads its 3x3 windows by what is not
    halved. Its first block still has the dilation from before, as it has with torchvision.

    Args:
        x: the image, (B, H, W, 3).
        network: one of `NETWORKS` of bottleneck blocks, if there is a dilated stage.
        dilated: whether each of the four stages is; empty for none.
        prefix: what all names of layers begin with, such as `backbone.`.
        epsilon: of every normalisation.

    Raises:
        ValueError: an unknown network, or one of basic blocks that is to be dilated.
    """
    _check(network=(network, tuple(NETWORKS)))
    block, depths = NETWORKS[network]
    if any(dilated) and block == "basic":
        raise ValueError(f"`dilated` is for bottleneck blocks, as in torchvision. Received: network={network!r}.")
    rules = LAYOUTS["v1.5"]._replace(epsilon=epsilon)
    return _stages(_stem(x, 64, "imagenet", rules, prefix), _Stages(block, depths, 64, rules, dilated, prefix))


class _Stages(NamedTuple):
    """What lies behind the stem."""

    block: str
    depths: tuple[int, ...]
    width: int
    rules: _Layout
    dilated: tuple[bool, ...] = ()
    prefix: str = ""


def _stages(x: Any, plan: _Stages) -> list[Any]:
    """The map behind each stage."""
    maps, dilation = [], 1
    for stage, depth in enumerate(plan.depths):
        channels, before = plan.width * 2**stage, dilation
        stride = 2 if stage > 0 else 1
        if any(plan.dilated[stage : stage + 1]):
            stride, dilation = 1, dilation * stride
        for i in range(depth):
            name = f"{plan.prefix}layer{stage + 1}.{i}"
            step = stride if i == 0 else 1
            if plan.block == "basic":
                x = _basic(x, channels, step, name, plan.rules)
            else:
                x = _bottleneck(x, channels, step, name, plan.rules, before if i == 0 else dilation)
        maps.append(x)
    return maps


def _stem(x: Any, width: int, stem: str, rules: _Layout, prefix: str) -> Any:
    options = {"names": (f"{prefix}conv1", f"{prefix}bn1"), **rules.options()}
    if stem == "small":
        return conv_norm(x, width, 3, padding=1, **options)
    x = conv_norm(x, width, 7, stride=2, padding=3, **options)
    # after a ReLU, zeros are as good as torch's minus infinity
    x = layers.ZeroPadding2D(1, name=f"{prefix}maxpool.pad")(x)
    return layers.MaxPooling2D(3, 2, name=f"{prefix}maxpool")(x)


def _basic(x: Any, channels: int, stride: int, name: str, rules: _Layout) -> Any:
    """3x3, 3x3 and the shortcut: (B, H, W, C) -> (B, H / stride, W / stride, channels)."""
    y = conv_norm(x, channels, 3, names=_names(name, 1), stride=stride, padding=1, **rules.options())
    y = conv_norm(y, channels, 3, names=_names(name, 2), padding=1, activation=None, **rules.options())
    return _join(x, y, stride, name, rules)


def _bottleneck(x: Any, channels: int, stride: int, name: str, rules: _Layout, dilation: int = 1) -> Any:
    """1x1, 3x3, 1x1 and the shortcut: (B, H, W, C) -> (B, H / stride, W / stride, 4 * channels)."""
    first, second = (stride, 1) if rules.stride_in_first else (1, stride)
    y = conv_norm(x, channels, 1, names=_names(name, 1), stride=first, **rules.options())
    window: dict[str, Any] = {"stride": second, "padding": dilation, "dilation": dilation}
    y = conv_norm(y, channels, 3, names=_names(name, 2), **window, **rules.options())
    y = conv_norm(y, channels * EXPANSION, 1, names=_names(name, 3), activation=None, **rules.options())
    return _join(x, y, stride, name, rules)


def _names(name: str, number: int) -> tuple[str, str]:
    return f"{name}.conv{number}", f"{name}.bn{number}"


def _join(x: Any, y: Any, stride: int, name: str, rules: _Layout) -> Any:
    """Adds the shortcut: `x` itself, or its projection where the shape changes (option B of the paper)."""
    if stride != 1 or x.shape[-1] != y.shape[-1]:
        names = (f"{name}.downsample.0", f"{name}.downsample.1")
        x = conv_norm(x, y.shape[-1], 1, names=names, stride=stride, activation=None, **rules.options())
    y = layers.Add(name=f"{name}.add")([y, x])
    return layers.ReLU(name=f"{name}.relu")(y)


def _check(**given: tuple[str, tuple[str, ...]]) -> None:
    for argument, (value, known) in given.items():
        if value not in known:
            raise ValueError(f"`{argument}` must be one of {', '.join(known)}. Received: {argument}={value!r}.")


def _named(name: str, classes: Classes, size_hw: tuple[int, int] | None, layout: str = "v1.5") -> keras.Model:
    block, depths = NETWORKS[name]
    return resnet(block=block, depths=depths, layout=layout, classes=classes, size_hw=size_hw, name=name)


def resnet18(*, classes: Classes = 1000, size_hw: tuple[int, int] | None = (224, 224)) -> keras.Model:
    """ResNet-18, 11,689,512 parameters: `image` float32 (B, H, W, 3) RGB -> `logits` (B, classes); see `resnet`."""
    return _named("resnet18", classes, size_hw)


def resnet34(*, classes: Classes = 1000, size_hw: tuple[int, int] | None = (224, 224)) -> keras.Model:
    """ResNet-34, 21,797,672 parameters: `image` float32 (B, H, W, 3) RGB -> `logits` (B, classes); see `resnet`."""
    return _named("resnet34", classes, size_hw)


def resnet50(
    *, classes: Classes = 1000, size_hw: tuple[int, int] | None = (224, 224), layout: str = "v1.5"
) -> keras.Model:
    """ResNet-50, 25,557,032 parameters: `image` float32 (B, H, W, 3) RGB -> `logits` (B, classes); see `resnet`."""
    return _named("resnet50", classes, size_hw, layout)


def resnet101(
    *, classes: Classes = 1000, size_hw: tuple[int, int] | None = (224, 224), layout: str = "v1.5"
) -> keras.Model:
    """ResNet-101, 44,549,160 parameters: `image` float32 (B, H, W, 3) RGB -> `logits` (B, classes); see `resnet`."""
    return _named("resnet101", classes, size_hw, layout)


def resnet152(
    *, classes: Classes = 1000, size_hw: tuple[int, int] | None = (224, 224), layout: str = "v1.5"
) -> keras.Model:
    """ResNet-152, 60,192,808 parameters: `image` float32 (B, H, W, 3) RGB -> `logits` (B, classes); see `resnet`."""
    return _named("resnet152", classes, size_hw, layout)
