"""Heads of two-stage detectors: proposals from every map, and class, box and mask of what was pooled from a box.

Ren, He, Girshick, Sun, Faster R-CNN, NIPS 2015, section 3.1; Girshick, Fast R-CNN, ICCV 2015, section 2; He, Gkioxari,
Dollar, Girshick, Mask R-CNN, ICCV 2017, figure 4, right. Names are torchvision's; `v2` heads are those of Li, Xie,
Chen, Dollar, He, Girshick, Benchmarking detection transfer learning with vision transformers, 2021, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from visionkit.nets.blocks import conv_norm, dense, layer_name

__all__ = ["box_head", "convolutional_box_head", "mask_head", "proposal_head"]

HIDDEN = 1024
TOWER = 4  # 3x3 convolutions of a mask head, and of a box head that begins with some


def proposal_head(maps: Sequence[Any], anchors: int, *, depth: int = 1) -> tuple[list[Any], list[Any]]:
    """Objectness (B, h, w, anchors) and deltas (B, h, w, 4 * anchors) of each map, by the same layers.

    Args:
        maps: (B, h, w, C), all of the same channels.
        anchors: at each position.
        depth: 3x3 convolutions before.
    """
    channels = maps[0].shape[-1]
    tower = [_conv(channels, 3, f"rpn.head.conv.{i}.0", activation="relu") for i in range(depth)]
    score, box = _conv(anchors, 1, "rpn.head.cls_logits"), _conv(4 * anchors, 1, "rpn.head.bbox_pred")
    hidden = list(maps)
    for layer in tower:
        hidden = [layer(x) for x in hidden]
    return [score(x) for x in hidden], [box(x) for x in hidden]


def _conv(filters: int, kernel: int, name: str, activation: str | None = None) -> Any:
    start = keras.initializers.RandomNormal(stddev=0.01)
    return layers.Conv2D(
        filters, kernel, padding="same", activation=activation, kernel_initializer=start, name=layer_name(name)
    )


def box_head(pooled: Any, classes: int) -> tuple[Any, Any]:
    """Class logits (N, L) and deltas (N, 4 L) of pooled boxes (N, h, w, C): two fully connected layers."""
    x = layers.Flatten(name="roi_heads.box_head.flatten")(pooled)
    x = dense(x, HIDDEN, name="roi_heads.box_head.fc6")
    x = dense(x, HIDDEN, name="roi_heads.box_head.fc7")
    return _predictor(x, classes)


def convolutional_box_head(pooled: Any, classes: int, *, epsilon: float = 1e-5) -> tuple[Any, Any]:
    """The same of `v2`: four normalised 3x3 convolutions, one fully connected layer."""
    x = _tower(pooled, "roi_heads.box_head", epsilon)
    x = layers.Flatten(name=f"roi_heads.box_head.{TOWER}")(x)
    x = dense(x, HIDDEN, name=f"roi_heads.box_head.{TOWER + 1}")
    return _predictor(x, classes)


def mask_head(pooled: Any, classes: int, *, normalized: bool = False, epsilon: float = 1e-5) -> Any:
    """Mask logits (N, 2 h, 2 w, L) of pooled boxes (N, h, w, C): four 3x3, a 2x2 that doubles, 1x1.

    Args:
        pooled: (N, h, w, C).
        classes: L, background included.
        normalized: `v2`: a batch normalisation follows each 3x3.
        epsilon: of the normalisations.
    """
    channels, name = pooled.shape[-1], "roi_heads.mask_head"
    if normalized:
        x = _tower(pooled, name, epsilon)
    else:
        x = pooled
        for i in range(TOWER):
            options: dict[str, Any] = {"padding": "same", "activation": "relu", "kernel_initializer": "he_normal"}
            x = layers.Conv2D(channels, 3, name=layer_name(f"{name}.{i}.0"), **options)(x)
    name = "roi_heads.mask_predictor"
    up = layers.Conv2DTranspose(
        channels, 2, 2, activation="relu", kernel_initializer="he_normal", name=layer_name(f"{name}.conv5_mask")
    )
    x = up(x)
    return layers.Conv2D(classes, 1, kernel_initializer="he_normal", name=layer_name(f"{name}.mask_fcn_logits"))(x)


def _tower(x: Any, name: str, epsilon: float) -> Any:
    for i in range(TOWER):
        names = (f"{name}.{i}.0", f"{name}.{i}.1")
        x = conv_norm(x, x.shape[-1], 3, names=names, padding=1, epsilon=epsilon)
    return x


def _predictor(x: Any, classes: int) -> tuple[Any, Any]:
    """Starting values as in Fast R-CNN, section 2.3."""
    name = "roi_heads.box_predictor"
    logits = layers.Dense(
        classes,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        name=layer_name(f"{name}.cls_score"),
    )
    deltas = layers.Dense(
        4 * classes,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.001),
        name=layer_name(f"{name}.bbox_pred"),
    )
    return logits(x), deltas(x)
