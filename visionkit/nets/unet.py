"""A small U-shaped fully convolutional network, made to be trained from scratch on a CPU.

After Ronneberger, Fischer, Brox, U-Net, MICCAI 2015, figure 1: halving on the way down, doubling on the way up, and
each level of the way up sees that of the way down. Here the maps keep their size under the convolutions, all of them
are normalised, enlarging is bilinear, and a stem that strides keeps the costly first levels small.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from visionkit.layers.crop import CropLike, PadToMultiple
from visionkit.nets.blocks import conv, conv_norm, image_input

__all__ = ["unet"]


def unet(
    *,
    classes: int = 21,
    size_hw: tuple[int, int] | None = (224, 224),
    width: int = 24,
    depth: int = 4,
    max_width: int = 160,
    stem_stride: int = 2,
    dropout: float = 0.0,
    resize: bool = True,
) -> keras.Model:
    """A U-shaped network, 1,719,829 parameters: `image` float32 (B, H, W, 3) -> `logits` (B, H, W, classes).

    An image whose sides are no multiples of the stride, `stem_stride * 2 ** depth`, is padded inside by zeros below and
    right, and the logits are cropped back.

    Args:
        classes: number of classes.
        size_hw: height and width in pixels; None leaves them open.
        width: channels of the first level; each level below has twice as many.
        depth: levels below the first.
        max_width: channels that no level exceeds.
        stem_stride: step of the first convolution, 1 or 2; with 2 the logits are made at half the size and enlarged.
        dropout: rate on the lowest level and before the logits, 0 for none.
        resize: enlarge and crop to the image's size; otherwise `logits_low`, (B, H', W', classes) of the padded image
            divided by `stem_stride`, is the output.

    Raises:
        ValueError: an argument out of its range.
    """
    _check(classes=classes, width=width, depth=depth, max_width=max_width)
    if stem_stride not in (1, 2):
        raise ValueError(f"`stem_stride` must be 1 or 2. Received: stem_stride={stem_stride!r}.")
    image = image_input("unet", size_hw)
    x = _padded(image, stem_stride * 2**depth)
    widths = [min(width * 2**level, max_width) for level in range(depth + 1)]
    x = _convolve(x, widths[0], "stem", stride=stem_stride)
    skips = []
    for level, channels in enumerate(widths):
        if level:
            x = layers.MaxPooling2D(2, name=f"down{level}.pool")(x)
        x = _convolve(x, channels, f"down{level}.0")
        x = _convolve(x, channels, f"down{level}.1") if level else x
        skips.append(x)
    x = _dropped(skips.pop(), dropout, "bottom.dropout")
    for level in reversed(range(depth)):
        x = _rise(x, skips.pop(), f"up{level}")
    x = _dropped(x, dropout, "dropout")
    return keras.Model(image, _head(x, image, classes, stem_stride, resize=resize), name="unet")


def _convolve(x: Any, channels: int, name: str, stride: int = 1) -> Any:
    return conv_norm(x, channels, 3, names=(f"{name}.conv", f"{name}.norm"), stride=stride, padding=1)


def _rise(x: Any, skip: Any, name: str) -> Any:
    """The level below, enlarged, beside the way down's: (B, h, w, D) and (B, 2 h, 2 w, C) -> (B, 2 h, 2 w, C)."""
    channels = skip.shape[-1]
    names = (f"{name}.reduce", f"{name}.reduce_norm")
    x = conv_norm(x, channels, 1, names=names)  # before the enlarging, where it costs a quarter
    x = layers.UpSampling2D(2, interpolation="bilinear", name=f"{name}.double")(x)
    x = layers.Concatenate(name=f"{name}.join")([x, skip])
    return _convolve(x, channels, f"{name}.0")


def _dropped(x: Any, rate: float, name: str) -> Any:
    return layers.Dropout(rate, name=name)(x) if rate else x


def _padded(image: Any, multiple: int) -> Any:
    sizes = image.shape[1:3]
    if None in sizes:
        return PadToMultiple(multiple, name="pad")(image)
    if not any(n % multiple for n in sizes):
        return image
    return layers.ZeroPadding2D(tuple((0, -n % multiple) for n in sizes), name="pad")(image)


def _head(x: Any, image: Any, classes: int, stride: int, *, resize: bool) -> Any:
    """The scores of each class, at the image's size if `resize`; the last layer is called `logits` then."""
    if not resize:
        return conv(x, classes, 1, name="logits_low", bias=True)
    sizes = image.shape[1:3]
    over = None if None in sizes else tuple((0, stride * n - size) for n, size in zip(x.shape[1:3], sizes, strict=True))
    crops = over is None or any(map(any, over))
    x = conv(x, classes, 1, name="logits_low" if stride > 1 or crops else "logits", bias=True)
    if stride > 1:
        name = "logits_padded" if crops else "logits"
        x = layers.UpSampling2D(stride, interpolation="bilinear", name=name)(x)
    if not crops:
        return x
    return CropLike(name="logits")([x, image]) if over is None else layers.Cropping2D(over, name="logits")(x)


def _check(**given: Any) -> None:
    for argument, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"`{argument}` must be a positive integer. Received: {argument}={value!r}.")
