"""SSDLite on MobileNetV3: boxes and classes from one pass over the image.

Liu et al., SSD: Single shot multibox detector, ECCV 2016; Sandler et al., MobileNetV2, CVPR 2018, section 6.2 (every
convolution of the heads depthwise separable); Howard et al., Searching for MobileNetV3, ICCV 2019, section 6.3 and
table 6 (which maps, the reduced tail). `ssdlite320_mobilenet_v3_large` is torchvision's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from visionkit.geometry.ssd_rule import EXTRAS, RATIOS, SCALES, SSDRule
from visionkit.nets.blocks import conv, conv_norm, image_input
from visionkit.nets.mobilenet_v3 import (
    LARGE,
    SMALL,
    Bottleneck,
    bottleneck_expansion,
    bottleneck_reduction,
    mobilenet_v3_block,
    mobilenet_v3_last,
    mobilenet_v3_stem,
)

__all__ = ["ssdlite", "ssdlite320_mobilenet_v3_large"]

BACKBONES = {"large": LARGE, "small": SMALL}
EPSILON = 1e-3
MOMENTUM = 0.97  # torch's 0.03
DEVIATION = 0.03  # of the first weights of extra blocks and heads
STEM_STRIDE = 2


def ssdlite320_mobilenet_v3_large(
    *, classes: int = 91, size_hw: tuple[int, int] = (320, 320), **options: Any
) -> keras.Model:
    """SSDLite320 as torchvision has it, 3,440,060 parameters; `options` as of `ssdlite`.

    `image` float32 (B, H, W, 3) RGB in [-1, 1] -> `class_logits` (B, A, classes) and `box_deltas` (B, A, 4), A = 3,234.
    """
    return ssdlite(classes=classes, size_hw=size_hw, name="ssdlite320_mobilenet_v3_large", **options)


def ssdlite(
    *,
    classes: int = 91,
    size_hw: tuple[int, int] = (320, 320),
    backbone: str = "large",
    width_multiplier: float = 1.0,
    reduced_tail: bool = True,
    first_stride: int = 16,
    extras: Sequence[int] = EXTRAS,
    pyramid: int | None = None,
    ratios: Sequence[float] = RATIOS,
    scales: Sequence[float] = SCALES,
    name: str = "ssdlite",
) -> keras.Model:
    """An SSDLite: `image` float32 (B, H, W, 3) RGB in [-1, 1] -> `class_logits` (B, A, L), `box_deltas` (B, A, 4).

    Boxes run level by level, row by row, the boxes of a cell fastest: `SSDRule.of_network(arguments).anchors()`.

    Args:
        classes: number of classes, background (0) included.
        size_hw: height and width in pixels.
        backbone: `large` or `small`, of MobileNetV3.
        width_multiplier: factor on the backbone's channels, rounded to multiples of 8.
        reduced_tail: half the channels in the backbone's last stage (Searching for MobileNetV3, table 6).
        first_stride: 16, or 8 for a further level of small objects.
        extras: channels of the blocks behind the backbone, each a level of half the size.
        pyramid: channels of a path from coarse to fine over the backbone's levels (Lin et al., Feature pyramid
            networks, CVPR 2017, its convolutions depthwise separable); None is plain SSD.
        ratios, scales: of the default boxes (`SSDRule`); they are part of what the network is trained for.
        name: of the model.

    Raises:
        ValueError: an argument out of its range.
    """
    _check(classes, backbone, width_multiplier, extras, pyramid)
    rule = SSDRule.of_network(
        {"size_hw": size_hw, "first_stride": first_stride, "extras": extras, "ratios": ratios, "scales": scales}
    )
    image = image_input(name, size_hw, fixed=True)
    rows = tuple(row.scaled(width_multiplier) for row in _rows(BACKBONES[backbone], reduced_tail=reduced_tail))
    maps = _trunk(image, rows, first_stride, width=width_multiplier)
    deepest = maps[-1]
    if pyramid is not None:
        maps = _top_down(maps, pyramid)
    for index, channels in enumerate(extras):
        deepest = _extra_block(deepest, channels, f"backbone.extra.{index}")
        maps.append(deepest)
    outputs = {
        "class_logits": _head(maps, rule.boxes_per_cell, classes, "head.classification_head", "class_logits"),
        "box_deltas": _head(maps, rule.boxes_per_cell, 4, "head.regression_head", "box_deltas"),
    }
    model = keras.Model(image, outputs, name=name)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = MOMENTUM
    return model


def _check(classes: int, backbone: str, width: float, extras: Sequence[int], pyramid: int | None) -> None:
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
        raise ValueError(f"`classes` must be an integer of at least 2, with background. Received: classes={classes!r}.")
    if backbone not in BACKBONES:
        raise ValueError(f"`backbone` must be one of {', '.join(BACKBONES)}. Received: backbone={backbone!r}.")
    if not width > 0:
        raise ValueError(f"`width_multiplier` must be positive. Received: width_multiplier={width!r}.")
    if any(channels < 2 for channels in extras):
        raise ValueError(f"`extras` must be channels of at least 2. Received: extras={tuple(extras)!r}.")
    if pyramid is not None and pyramid < 1:
        raise ValueError(f"`pyramid` must be None or positive. Received: pyramid={pyramid!r}.")


def _rows(rows: tuple[Bottleneck, ...], *, reduced_tail: bool) -> tuple[Bottleneck, ...]:
    """The bottlenecks, those of the last stage with half the channels."""
    if not reduced_tail:
        return rows
    last = _last_stage(rows)
    first = rows[last]._replace(channels=rows[last].channels // 2)
    rest = (row._replace(expanded=row.expanded // 2, channels=row.channels // 2) for row in rows[last + 1 :])
    return (*rows[:last], first, *rest)


def _last_stage(rows: tuple[Bottleneck, ...]) -> int:
    """The bottleneck that makes stride 32."""
    return max(index for index, row in enumerate(rows) if row.stride > 1)


def _trunk(image: Any, rows: tuple[Bottleneck, ...], first_stride: int, *, width: float) -> list[Any]:
    """A map of each stride from `first_stride` to 32: what the next halving bottleneck expands, and the last 1x1."""
    x, stride, maps = mobilenet_v3_stem(image, "backbone.features.0.0", width=width), STEM_STRIDE, []
    last = _last_stage(rows)
    for index, row in enumerate(rows):
        # torchvision cuts the trunk in two inside this block, which the names tell
        part = f"backbone.features.0.{index + 1}" if index < last else f"backbone.features.1.{index - last}"
        if row.stride > 1 and stride >= first_stride:
            cut = index == last
            expansion = f"backbone.features.0.{index + 1}" if cut else f"{part}.block.0"
            maps.append(bottleneck_expansion(x, row, expansion))
            x = bottleneck_reduction(maps[-1], row, part if cut else f"{part}.block")
        else:
            x = mobilenet_v3_block(x, row, part)
        stride *= row.stride
    return [*maps, mobilenet_v3_last(x, f"backbone.features.1.{len(rows) - last}")]


def _extra_block(x: Any, channels: int, name: str) -> Any:
    """(B, h, w, C) -> (B, h / 2, w / 2, channels): 1x1, depthwise 3x3 of stride 2, 1x1."""
    between = channels // 2
    x = _conv_norm(x, between, 1, f"{name}.0")
    x = _conv_norm(x, between, 3, f"{name}.1", stride=2, padding=1, groups=between)
    return _conv_norm(x, channels, 1, f"{name}.2")


def _top_down(maps: list[Any], channels: int) -> list[Any]:
    """Each map with what the coarser ones say: (B, h, w, C) -> (B, h, w, channels), fine to coarse."""
    merged: list[Any] = []
    for level in reversed(range(len(maps))):
        name = f"pyramid.{level}"
        x = _conv_norm(maps[level], channels, 1, f"{name}.lateral")
        if merged:
            x = layers.Add(name=f"{name}.add")([x, _double(merged[0], x, name)])
        merged.insert(0, x)
    return [_smooth(x, f"pyramid.{level}.smooth") for level, x in enumerate(merged)]


def _double(coarse: Any, fine: Any, name: str) -> Any:
    """The coarse map at the size of the fine one, whose last row or column may have no pair."""
    x = layers.UpSampling2D(2, name=f"{name}.up")(coarse)
    over = [big - small for big, small in zip(x.shape[1:3], fine.shape[1:3], strict=True)]
    return layers.Cropping2D(((0, over[0]), (0, over[1])), name=f"{name}.cut")(x) if any(over) else x


def _smooth(x: Any, name: str) -> Any:
    x = _conv_norm(x, x.shape[-1], 3, f"{name}.0", padding=1, groups=x.shape[-1])
    return _conv_norm(x, x.shape[-1], 1, f"{name}.1")


def _head(maps: list[Any], boxes: int, columns: int, name: str, output: str) -> Any:
    """(B, A, columns): each level through a depthwise 3x3 and a 1x1, its map read row by row."""
    parts = []
    for level, x in enumerate(maps):
        block = f"{name}.module_list.{level}"
        x = _conv_norm(x, x.shape[-1], 3, f"{block}.0", padding=1, groups=x.shape[-1])
        x = conv(x, boxes * columns, 1, name=f"{block}.1", bias=True, initializer=_initializer())
        parts.append(layers.Reshape((-1, columns), name=f"{block}.rows")(x))  # (B, h * w * boxes, columns)
    return layers.Concatenate(axis=1, name=output)(parts) if len(parts) > 1 else parts[0]


def _conv_norm(x: Any, filters: int, kernel: int, name: str, **options: Any) -> Any:
    options |= {"activation": "relu6", "epsilon": EPSILON, "initializer": _initializer()}
    return conv_norm(x, filters, kernel, names=(f"{name}.0", f"{name}.1"), **options)


def _initializer() -> Any:
    return keras.initializers.RandomNormal(stddev=DEVIATION)
