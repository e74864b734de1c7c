"""Heads that torchvision's segmentation networks share: plain convolutions, the pyramid of DeepLabV3, and the resizing.

Like torchvision's, the resizing aligns the centres of pixels of the small map and of the image, whatever the receptive
fields' centres are. Layers with weights carry torchvision's names, the last of a head is called after its output.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from visionkit.layers.bilinear import ResizeLike
from visionkit.nets.blocks import conv, conv_norm, layer_name

__all__ = ["atrous_pyramid", "check_classes", "fully_convolutional_head", "resize_like", "segmentation_model"]

PYRAMID_CHANNELS = 256
PYRAMID_RATES = (12, 24, 36)  # torchvision's at every stride; the paper has half of them at stride 16


def check_classes(classes: Any) -> None:
    """Refuse what is no number of classes, with a ValueError."""
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
        raise ValueError(f"`classes` must be a positive integer. Received: classes={classes!r}.")


def resize_like(x: Any, like: Any, *, name: str) -> Any:
    """`x` (B, h, w, C) enlarged bilinearly to the size of `like` (B, H, W, D), open or not."""
    sizes = like.shape[1:3]
    if None in sizes:
        return ResizeLike(name=name)([x, like])
    return layers.Resizing(*sizes, interpolation="bilinear", name=name)(x)


def fully_convolutional_head(x: Any, classes: int, *, prefix: str, name: str) -> Any:
    """3x3 to a quarter of the channels, dropout, scores: (B, h, w, C) -> (B, h, w, classes)."""
    x = conv_norm(x, x.shape[-1] // 4, 3, names=(f"{prefix}.0", f"{prefix}.1"), padding=1)
    x = layers.Dropout(0.1, name=layer_name(f"{prefix}.3"))(x)
    return conv(x, classes, 1, name=name, bias=True)


def atrous_pyramid(x: Any, classes: int, *, prefix: str = "classifier", name: str = "logits_low") -> Any:
    """Scores from one map seen through windows of several dilations: (B, h, w, C) -> (B, h, w, classes).

    Chen, Papandreou, Schroff, Adam, Rethinking atrous convolution for semantic image segmentation, 2017, section 3.3.
    """
    channels, part = PYRAMID_CHANNELS, f"{prefix}.0"
    branches = [conv_norm(x, channels, 1, names=_names(f"{part}.convs.0"))]
    for index, rate in enumerate(PYRAMID_RATES, 1):
        names = _names(f"{part}.convs.{index}")
        branches.append(conv_norm(x, channels, 3, names=names, padding=rate, dilation=rate))
    pooling = f"{part}.convs.{len(branches)}"
    y = layers.GlobalAveragePooling2D(keepdims=True, name=f"{pooling}.0")(x)  # (B, 1, 1, C)
    y = conv_norm(y, channels, 1, names=(f"{pooling}.1", f"{pooling}.2"))
    branches.append(resize_like(y, x, name=f"{pooling}.spread"))
    x = layers.Concatenate(name=f"{part}.join")(branches)
    x = conv_norm(x, channels, 1, names=_names(f"{part}.project"))
    x = layers.Dropout(0.5, name=layer_name(f"{part}.project.3"))(x)
    x = conv_norm(x, channels, 3, names=(f"{prefix}.1", f"{prefix}.2"), padding=1)
    return conv(x, classes, 1, name=name, bias=True)


def segmentation_model(image: Any, low: Any, aux: Any, *, name: str, resize: bool) -> keras.Model:
    """The network of `image` and the scores at the head's resolution; `aux` is None or the second head's scores.

    Its output is `logits` (B, H, W, classes), enlarged to the image's size, or `logits_low` as they are; with a second
    head `{"logits": …, "aux": …}`.
    """
    outputs = low
    if resize:
        outputs = resize_like(low, image, name="logits")
    if aux is not None:
        aux = resize_like(aux, image, name="aux") if resize else aux
        outputs = {"logits": outputs, "aux": aux}
    return keras.Model(image, outputs, name=name)


def _names(part: str) -> tuple[str, str]:
    return f"{part}.0", f"{part}.1"
