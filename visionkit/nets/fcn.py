"""Fully convolutional networks with skips on any backbone: where each map has to be cropped follows from its centres.

Long, Shelhamer, Darrell, Fully convolutional networks for semantic segmentation, CVPR 2015, sections 3 and 4. A map's
cell i looks at the pixels around `c + i * stride`, its receptive field's centre; a transposed convolution of kernel k
and stride s puts cell i at `s * i + (k - 1) / 2`. Summing maps, and cutting the image's part out of the last one, means
to shift one over the other by whole cells so that the centres meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import keras
from keras import layers

from visionkit.geometry.receptive_field import AxisField, ReceptiveField
from visionkit.inspection import summarize
from visionkit.layers.bilinear import Bilinear
from visionkit.layers.crop import CropLike
from visionkit.nets.blocks import image_input, layer_name
from visionkit.nets.segmentation_heads import check_classes

__all__ = ["Enlarging", "Scored", "enlarging", "fcn", "fcn_head"]

OPEN_SIZE = 512  # receptive fields do not depend on the size; their arithmetic wants one


class Enlarging(NamedTuple):
    """How a map is enlarged to lie over a finer one.

    Args:
        kernel, stride: of the transposed convolution.
        offset: rows and columns between them: positive ones are cut from the enlarged map, negative from the finer.
    """

    kernel: int
    stride: int
    offset: tuple[int, int]


class Scored(NamedTuple):
    """Scores of each class at one resolution: (B, h, w, classes), and what their cells see of the image."""

    name: str
    scores: Any
    field: ReceptiveField


def enlarging(coarse: ReceptiveField, fine: ReceptiveField) -> Enlarging:
    """The transposed convolution that puts the cells of `coarse` on those of `fine`, centre on centre.

    Its kernel is twice the ratio of the strides, or one less where only that leaves whole cells between them (AlexNet's
    63 for 32). From VGG-16 with a padding of 100 the published offsets follow: 19; 5 and 27; 5, 9 and 31.

    Raises:
        ValueError: the strides are no multiples, or no kernel brings the centres together.
    """
    strides = {Fraction(a) / b for a, b in zip(coarse.stride_hw, fine.stride_hw, strict=True) if b}
    stride = strides.pop() if len(strides) == 1 else Fraction(0)
    if stride < 1 or stride.denominator != 1:
        raise ValueError(
            "The strides of the coarser map must be the finer one's times a whole number. "
            f"Received: {coarse.stride_hw} over {fine.stride_hw}."
        )
    for kernel in (2 * int(stride), 2 * int(stride) - 1):
        axes = ((coarse.h, fine.h), (coarse.w, fine.w))
        offsets = [_offset(kernel, *axis) for axis in axes]
        if all(offset.denominator == 1 for offset in offsets):
            return Enlarging(kernel, int(stride), (int(offsets[0]), int(offsets[1])))
    raise ValueError(
        "The maps' centres do not come to lie on one another, whatever the crop. "
        f"Received: centres {_listed(coarse)} and {_listed(fine)}, strides {coarse.stride_hw} and {fine.stride_hw}."
    )


def _offset(kernel: int, coarse: AxisField, fine: AxisField) -> Fraction:
    """Cell y of the enlarged map looks at `coarse.center(0) + fine.stride * (y - (kernel - 1) / 2)`."""
    return (fine.center() - coarse.center()) / Fraction(fine.stride) + Fraction(kernel - 1, 2)


def _listed(field: ReceptiveField) -> tuple[float, float]:
    down, across = field.center_hw()
    return float(down), float(across)


def fcn(
    backbone: Callable[[Any], Sequence[Any]],
    *,
    skips: int = 2,
    classes: int = 21,
    size_hw: tuple[int, int] | None = (500, 500),
    scales: Sequence[float] = (),
    trainable_upsampling: bool = False,
    resize: bool = True,
    name: str = "fcn",
) -> keras.Model:
    """A fully convolutional network: `image` float32 (B, H, W, 3), normalised -> `logits` (B, H, W, classes).

    Every map that is used is scored by a 1x1 convolution; scores are enlarged bilinearly to the next finer map and
    summed with its own, and at last enlarged to the image.

    Args:
        backbone: a function from the image's tensor to its maps, the finest first, such as
            `lambda x: resnet_stages(x, "resnet18")`. The padding that the crops need is its matter.
        skips: how many maps before the last are used: 0, 1 and 2 of VGG-16 are FCN-32s, 16s and 8s.
        classes: number of classes, background included.
        size_hw: height and width in pixels; None leaves them open.
        scales: a factor on each skip's map before it is scored, the coarsest first; the published at-once training of
            VGG-16 has 0.01 and 0.0001. Empty for none.
        trainable_upsampling: learn the kernels that enlarge; as published they stay bilinear.
        resize: enlarge and crop to the image; otherwise the output is `logits_low`, the sum at the finest map used.

    Raises:
        ValueError: an argument out of its range, maps whose centres cannot be brought together, or an image of which
            the maps leave a part out.
    """
    check_classes(classes)
    image = image_input(name, size_hw)
    maps = list(backbone(image))
    if isinstance(skips, bool) or not isinstance(skips, int) or not 0 <= skips < len(maps):
        raise ValueError(f"`skips` must be 0 to {len(maps) - 1}, the maps before the last. Received: skips={skips!r}.")
    if len(scales) not in (0, skips):
        raise ValueError(f"`scales` must be empty or hold one number for each skip. Received: scales={scales!r}.")
    used = maps[::-1][: skips + 1]
    factors = (1.0, *(scales or (1.0,) * skips))
    scored = [
        _scored(x, field, classes, None if index == 0 else factors[index])
        for index, (x, field) in enumerate(zip(used, _fields(image, used), strict=True))
    ]
    options = {"trainable": trainable_upsampling, "resize": resize}
    return keras.Model(image, fcn_head(image, scored, **options), name=name)


def _fields(image: Any, maps: Sequence[Any]) -> list[ReceptiveField]:
    """What the cells of each map see of the image."""
    size = None if None not in image.shape[1:3] else (OPEN_SIZE, OPEN_SIZE)
    summary = summarize(keras.Model(image, list(maps)), size)
    fields = []
    for x in maps:
        maker = x._keras_history.operation.name
        seen = summary.layer(maker).fields
        if not seen or len(x.shape) != 4:
            raise ValueError(
                f"`backbone` must give maps (B, h, w, C) whose receptive fields are known. Not so: {maker!r}."
            )
        fields.append(seen[image.name])
    return fields


def _scored(x: Any, field: ReceptiveField, classes: int, scale: float | None) -> Scored:
    """Scores of one map, zero at first as published: those of the last map (`scale` None) are called `score`."""
    maker = x._keras_history.operation.name
    if scale not in (None, 1.0):
        x = layers.Rescaling(scale, name=f"scale_{maker}")(x)
    name = "score" if scale is None else f"score_{maker}"
    x = layers.Conv2D(classes, 1, kernel_initializer="zeros", name=layer_name(name))(x)
    return Scored("score" if scale is None else maker, x, field)


def fcn_head(image: Any, scored: Sequence[Scored], *, trainable: bool = False, resize: bool = True) -> Any:
    """Scores of several resolutions as one: `logits` (B, H, W, classes), or `logits_low` at the finest of them.

    Args:
        image: (B, H, W, C); of it only the size is used.
        scored: the coarsest first.
        trainable: whether the enlarging is learned.
        resize: whether to enlarge to the image.

    Raises:
        ValueError: see `fcn`.
    """
    x, field = scored[0].scores, scored[0].field
    for skip in scored[1:]:
        plan = enlarging(field, skip.field)
        x = _enlarged(x, plan, f"upscore_{skip.name}", trainable=trainable)
        x, fine = _overlap(x, skip.scores, plan.offset, skip.name)
        x = layers.Add(name=f"fuse_{skip.name}")([x, fine])
        field = _shifted(skip.field, plan.offset)
    x = layers.Activation("linear", name="logits_low")(x)
    if not resize:
        return x
    plan = enlarging(field, ReceptiveField())
    x = _enlarged(x, plan, "upscore", trainable=trainable)
    return _cut_out(x, image, plan.offset)


def _shifted(field: ReceptiveField, offset: tuple[int, int]) -> ReceptiveField:
    """The field of a map from which the cells beyond another map's were cut."""
    cut = [max(-n, 0) for n in offset]
    return field.pad((-cut[0], -cut[1]))


def _enlarged(x: Any, plan: Enlarging, name: str, *, trainable: bool) -> Any:
    layer = layers.Conv2DTranspose(
        x.shape[-1], plan.kernel, plan.stride, use_bias=False, kernel_initializer=Bilinear(), name=layer_name(name)
    )
    layer.trainable = trainable
    return layer(x)


def _overlap(x: Any, fine: Any, offset: tuple[int, int], name: str) -> tuple[Any, Any]:
    """What an enlarged map and the finer one have in common: both of the same size.

    There is always a crop behind the enlarged map, be it of nothing: else the order of the layers, by which Keras saves
    weights, would depend on the image's size.
    """
    starts = [[max(n, 0) for n in offset], [max(-n, 0) for n in offset]]
    if None in (*x.shape[1:3], *fine.shape[1:3]):
        # a slice ends where its map does, so that after both crops the sizes are equal
        x = CropLike(starts[0], name=f"crop_upscore_{name}")([x, fine])
        fine = CropLike(starts[1], name=f"crop_{name}")([fine, x])
        return CropLike(0, name=f"trim_upscore_{name}")([x, fine]), fine
    sizes = [min(a - i, b - j) for a, b, i, j in zip(x.shape[1:3], fine.shape[1:3], *starts, strict=True)]
    return _cropped(x, starts[0], sizes, f"crop_upscore_{name}"), _cropped(fine, starts[1], sizes, f"crop_{name}")


def _cropped(x: Any, starts: Sequence[int], sizes: Sequence[int], name: str) -> Any:
    """`sizes` cells of the map from `starts` on."""
    if any(size < 1 for size in sizes):
        raise ValueError(f"The maps have nothing in common at {name!r}. Give larger images, or pad them in `backbone`.")
    cuts = tuple((i, n - i - size) for i, n, size in zip(starts, x.shape[1:3], sizes, strict=True))
    return layers.Cropping2D(cuts, name=name)(x)


def _cut_out(x: Any, image: Any, offset: tuple[int, int]) -> Any:
    """The image's part of the enlarged scores."""
    sizes = tuple(zip(offset, image.shape[1:3], x.shape[1:3], strict=True))
    known = None not in (*x.shape[1:3], *image.shape[1:3])
    lacking = [n + size - have for n, size, have in sizes] if known else []
    if min(offset) < 0 or max(lacking, default=0) > 0:
        raise ValueError(
            f"The scores leave a part of the image out: of {tuple(image.shape[1:3])} pixels they cover "
            f"{tuple(x.shape[1:3])} from {tuple(-n for n in offset)} on. Pad the image in `backbone`."
        )
    if not known:
        return CropLike(offset, name="logits")([x, image])
    cuts = tuple((n, -short) for n, short in zip(offset, lacking, strict=True))
    return layers.Cropping2D(cuts, name="logits")(x)
