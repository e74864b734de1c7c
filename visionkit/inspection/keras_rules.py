"""What each Keras layer does to a receptive field, and what it costs: one row of data or one small function a layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from visionkit.geometry.receptive_field import Pair, ReceptiveField
from visionkit.inspection import effects
from visionkit.inspection.behaviour import Behaviour, map_of, reshape, sliding
from visionkit.inspection.facts import Shape, WindowFacts

__all__ = ["behaviour_of"]


def behaviour_of(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    """What `layer` does.

    Args:
        layer: a Keras layer or operation.
        shapes: of its inputs, with the batch.
        result: shape of its output, with the batch.
    """
    for kind in type(layer).__mro__:
        if (rule := RULES.get(kind.__name__)) is not None:
            return rule(layer, shapes, result)
    return Behaviour(effects.unknown, None if getattr(layer, "weights", []) else 0)


def pointwise(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    return Behaviour(effects.same)


def over_everything(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    return Behaviour(effects.all_of)


def attention(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    return Behaviour(effects.all_of, None)


def convolution(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    if len(result) != 4 or _channels_first(layer):
        return Behaviour(effects.unknown, None if _channels_first(layer) else _kernel_macs(layer, result))
    effect, window = sliding(
        map_of(shapes[0]),
        tuple(layer.kernel_size),
        tuple(layer.strides),
        dilation=tuple(layer.dilation_rate),
        rounding="same" if layer.padding == "same" else "floor",
    )
    return Behaviour(effect, _kernel_macs(layer, result), window)


def _kernel_macs(layer: Any, result: Shape) -> int:
    """Every kernel weight is used once at each position of the result."""
    kernels = [weight for weight in layer.weights if "kernel" in weight.name]
    return math.prod(size or 0 for size in result[1:-1]) * sum(math.prod(kernel.shape) for kernel in kernels)


def transposed(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    macs = math.prod(size or 0 for size in shapes[0][1:-1]) * math.prod(layer.kernel.shape)
    odd = layer.output_padding is not None or set(layer.dilation_rate) != {1}
    if len(result) != 4 or _channels_first(layer) or odd:
        return Behaviour(effects.unknown, macs)
    kernel, factor = tuple(layer.kernel_size), tuple(layer.strides)
    cut = [max(k - f, 0) if layer.padding == "same" else 0 for k, f in zip(kernel, factor, strict=True)]
    before = (cut[0] // 2, cut[1] // 2)
    padding = (before[0], cut[0] - before[0], before[1], cut[1] - before[1])
    window = WindowFacts(kernel, factor, (1, 1), padding, "exact")
    return Behaviour(effects.local(lambda field: field.upsample(factor, kernel, before)), macs, window)


def pooling(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    if len(result) != 4 or _channels_first(layer):
        return Behaviour(effects.unknown)
    effect, window = sliding(
        map_of(shapes[0]),
        _pair(layer.pool_size),
        _pair(layer.strides or layer.pool_size),
        rounding="same" if layer.padding == "same" else "floor",
    )
    return Behaviour(effect, 0, window)


def own_pooling(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    """Of `visionkit.layers`: padding in pixels, floor or ceil."""
    rounding = "ceil" if layer.ceil_mode else "floor"
    effect, window = sliding(
        map_of(shapes[0]), layer.pool_size, layer.strides, padding=layer.padding, rounding=rounding
    )
    return Behaviour(effect, 0, window)


def adaptive_pooling(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    before, after = map_of(shapes[0]), map_of(result)
    if after == (1, 1):
        return Behaviour(effects.all_of)
    return Behaviour(effects.local(lambda field: field.adapt(before, after)) if before != after else effects.same)


def padding(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    if len(result) != 4 or _channels_first(layer):
        return Behaviour(effects.unknown)
    (top, bottom), (left, right) = layer.padding
    window = WindowFacts((1, 1), padding=(top, bottom, left, right))
    return Behaviour(effects.local(lambda field: field.pad((top, left))), 0, window)


def cropping(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    if len(result) != 4 or _channels_first(layer):
        return Behaviour(effects.unknown)
    (top, bottom), (left, right) = layer.cropping
    window = WindowFacts((1, 1), padding=(-top, -bottom, -left, -right))
    return Behaviour(effects.local(lambda field: field.pad((-top, -left))), 0, window)


def cropping_like(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    """Of `visionkit.layers`: the first map, cropped to the size of the second."""
    top, left = layer.offset
    (height, width), (kept_h, kept_w) = map_of(shapes[0]), map_of(result)
    window = WindowFacts((1, 1), padding=(-top, kept_h + top - height, -left, kept_w + left - width))
    return Behaviour(effects.first(effects.local(lambda field: field.pad((-top, -left)))), 0, window)


def padding_to_multiple(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    """Of `visionkit.layers`: pixels below and right."""
    (height, width), (padded_h, padded_w) = map_of(shapes[0]), map_of(result)
    return Behaviour(effects.same, 0, WindowFacts((1, 1), padding=(0, padded_h - height, 0, padded_w - width)))


def resizing_like(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    """Of `visionkit.layers`: the first map, resized to the size of the second."""
    before, after = map_of(shapes[0]), map_of(result)
    return Behaviour(effects.first(effects.local(lambda field: field.resize(before, after))))


def upsampling(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    if len(result) != 4 or _channels_first(layer):
        return Behaviour(effects.unknown)
    before, after = map_of(shapes[0]), map_of(result)
    change: dict[str, Callable[[ReceptiveField], ReceptiveField]] = {
        "nearest": lambda field: field.upsample(_pair(layer.size)),
        "bilinear": lambda field: field.resize(before, after),
    }
    known = change.get(layer.interpolation)
    return Behaviour(effects.local(known) if known else effects.unknown)


def resizing(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    plain = not (layer.crop_to_aspect_ratio or layer.pad_to_aspect_ratio or getattr(layer, "antialias", False))
    if len(result) != 4 or _channels_first(layer) or not plain or layer.interpolation not in ("nearest", "bilinear"):
        return Behaviour(effects.unknown)
    before, after = map_of(shapes[0]), map_of(result)
    return Behaviour(effects.local(lambda field: field.resize(before, after)) if before != after else effects.same)


def dense(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    macs = math.prod(size or 0 for size in result[1:-1]) * math.prod(layer.kernel.shape)
    return Behaviour(effects.all_of if len(result) == 2 else effects.same, macs)


def maxout(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    effect = effects.all_of if len(result) == 2 else effects.same
    return Behaviour(effect, math.prod(size or 0 for size in result[1:-1]) * math.prod(layer.kernel.shape))


def correlation(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    (h, w), channels = map_of(shapes[0]), shapes[0][-1] or 0
    positions = math.prod(map_of(result))
    return Behaviour(effects.correlate(layer.mode != "pixelwise"), positions * h * w * channels)


def reshaping(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    return reshape(shapes[0], result)


def flattening(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    return Behaviour(effects.flatten)


def normalization(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    inside = {axis % len(result) for axis in axes} == {len(result) - 1}
    return Behaviour(effects.same if inside else effects.unknown)


def joining(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    channels = layer.axis % len(result) == len(result) - 1 and len(result) in (2, 4)
    return Behaviour(effects.join if channels else effects.unknown)


def reduction(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    rank = len(shapes[0])
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    if any(axis is None for axis in axes):
        return Behaviour(effects.all_of)
    reduced = {axis % rank for axis in axes}
    if rank == 4 and {1, 2} <= reduced:
        return Behaviour(effects.all_of)
    return Behaviour(effects.same if reduced == {rank - 1} and layer.keepdims else effects.unknown)


def slicing(layer: Any, shapes: Sequence[Shape], result: Shape) -> Behaviour:
    same = map_of(shapes[0]) == map_of(result) and len(shapes[0]) == len(result)
    return Behaviour(effects.same if same else effects.unknown)


def _pair(value: Any) -> Pair:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _channels_first(layer: Any) -> bool:
    return getattr(layer, "data_format", "channels_last") == "channels_first"


Rule = Callable[[Any, Sequence[Shape], Shape], Behaviour]

POINTWISE = (
    # layers
    "Activation ReLU LeakyReLU PReLU ELU Softmax BatchNormalization UnitNormalization LocalResponseNormalization "
    "Dropout SpatialDropout2D GaussianDropout GaussianNoise AlphaDropout ActivityRegularization Identity InputLayer "
    "Rescaling Normalization Discretization RandomFlip RandomRotation RandomTranslation RandomZoom RandomContrast "
    "RandomBrightness RandomCrop CustomScaleLayer Add Subtract Multiply Average Maximum Minimum "
    # operations
    "Relu Relu6 LeakyRelu Elu Selu Gelu Silu Swish Sigmoid HardSigmoid HardSilu HardSwish Tanh Softplus Softsign "
    "Absolute Abs Negative Exp Log Sqrt Rsqrt Square Power Clip Divide TrueDivide Cast"
)
RULES: dict[str, Rule] = {
    **dict.fromkeys(POINTWISE.split(), pointwise),
    **dict.fromkeys(
        ("Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"),
        convolution,
    ),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), transposed),
    **dict.fromkeys(("MaxPooling2D", "AveragePooling2D"), pooling),
    **dict.fromkeys(("CeilMaxPooling2D", "CeilAveragePooling2D", "LpPooling2D"), own_pooling),
    "AdaptiveAveragePooling2D": adaptive_pooling,
    **dict.fromkeys(("GlobalAveragePooling2D", "GlobalMaxPooling2D"), over_everything),
    **dict.fromkeys(("MultiHeadAttention", "GroupQueryAttention", "Attention", "AdditiveAttention"), attention),
    "ZeroPadding2D": padding,
    "Cropping2D": cropping,
    "CropLike": cropping_like,
    "PadToMultiple": padding_to_multiple,
    "ResizeLike": resizing_like,
    "UpSampling2D": upsampling,
    "Resizing": resizing,
    "Dense": dense,
    "Maxout": maxout,
    "CrossCorrelation": correlation,
    "Reshape": reshaping,
    "Flatten": flattening,
    "LayerNormalization": normalization,
    "Concatenate": joining,
    **dict.fromkeys(("Mean", "Max", "Sum"), reduction),
    "GetItem": slicing,
}
