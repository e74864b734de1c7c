"""A small U-shaped fully convolutional network, made to be trained from scratch on a CPU.

After Ronneberger, Fischer, Brox, U-Net, MICCAI 2015, figure 1: halving on the way down, doubling on the way up, and
each level of the way up sees that of the way down. Here the maps keep their size under the convolutions, all of them
are normalised, enlarging is bilinear, and a stem that strides keeps the costly first levels small.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from visionkit.layers.bilinear import ResizeLike
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
    padded = _padded(image, stem_stride * 2**depth)
    widths = [min(width * 2**level, max_width) for level in range(depth + 1)]
    x = _convolve(padded, widths[0], "stem", stride=stem_stride)
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
    return keras.Model(image, _head(x, image, padded, classes, resize=resize), name="unet")


def _convolve(x: Any, channels: int, name: str, stride: int = 1) -> Any:
    return conv_norm(x, channels, 3, names=(f"{name}.conv", f"{name}.norm"), stride=stride, padding=1)


def _rise(x: Any, skip: Any, name: str) -> Any:
    """The level below, enlarged, beside the way down's: (B, h, w, D) and (B, 2 h, 2 w, C) -> (B, 2 h, 2 w, C)."""
    channels = skip.shape[-1]
    names = (f"{name}.reduce", f"{name}.reduce_norm")
    x = conv_norm(x, channels, 1, names=names)  # before the enlarging, where it costs a quarter
    x = _enlarged(x, skip, 2, f"{name}.double")
    x = layers.Concatenate(name=f"{name}.join")([x, skip])
    return _convolve(x, channels, f"{name}.0")


def _enlarged(x: Any, like: Any, factor: int, name: str) -> Any:
    """`factor` times as large, bilinearly, which is the size of `like`; Keras's layer wants to know the sizes."""
    if None in x.shape[1:3]:
        return ResizeLike(name=name)([x, like])
    return layers.UpSampling2D(factor, interpolation="bilinear", name=name)(x)


def _dropped(x: Any, rate: float, name: str) -> Any:
    return layers.Dropout(rate, name=name)(x) if rate else x


def _padded(image: Any, multiple: int) -> Any:
    sizes = image.shape[1:3]
    if None in sizes:
        return PadToMultiple(multiple, name="pad")(image)
    if not any(n % multiple for n in sizes):
        return image
    return layers.ZeroPadding2D(tuple((0, -n % multiple) for n in sizes), name="pad")(image)


def _head(x: Any, image: Any, padded: Any, classes: int, *, resize: bool) -> Any:
    """The scores of each class, at the image's size if `resize`; the last layer is called `logits` then."""
    known = None not in image.shape[1:3]
    crops = padded is not image
    sizes = zip(padded.shape[1:3], x.shape[1:3], strict=True)
    factor = max(a // b for a, b in sizes) if known else 0
    x = conv(x, classes, 1, name="logits" if resize and factor == 1 and not crops else "logits_low", bias=True)
    if not resize:
        return x
    if factor != 1:
        x = _enlarged(x, padded, factor, "logits_padded" if crops else "logits")
    if not crops:
        return x
    if not known:
        return CropLike(name="logits")([x, image])
    over = tuple((0, a - b) for a, b in zip(padded.shape[1:3], image.shape[1:3], strict=True))
    return layers.Cropping2D(over, name="logits")(x)


def _check(**given: Any) -> None:
    for argument, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"`{argument}` must be a positive integer. Received: {argument}={value!r}.")
