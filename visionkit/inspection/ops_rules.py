"""What each LiteRT operation does to a receptive field, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from visionkit.geometry.receptive_field import Pair
from visionkit.inspection import effects
from visionkit.inspection.behaviour import Behaviour, map_of, reshape, sliding
from visionkit.inspection.facts import WindowFacts
from visionkit.inspection.ops_graph import Operation, TensorFacts

__all__ = ["data_inputs", "rule_of"]

Tensors = Sequence[TensorFacts | None]
Rule = Callable[[Operation, Tensors, TensorFacts], Behaviour]


def rule_of(kind: str) -> Rule:
    """The rule of an operation; what is not known gets one that says so."""
    return RULES.get(kind, unknown)


def data_inputs(operation: Operation) -> tuple[int, ...]:
    """Indices of the inputs that are looked at, rather than being weights, sizes or axes."""
    if operation.kind == "TRANSPOSE_CONV":
        return operation.inputs[2:3]
    single = operation.kind in WEIGHTED or operation.kind in ("RESHAPE", "PAD", "PADV2", "MIRROR_PAD")
    return operation.inputs[:1] if single else operation.inputs


def unknown(operation: Operation, inputs: Tensors, result: TensorFacts) -> Behaviour:
    weighted = any(tensor is not None and tensor.weights for tensor in inputs)
    return Behaviour(effects.unknown, None if weighted or operation.custom else 0)


def pointwise(operation: Operation, inputs: Tensors, result: TensorFacts) -> Behaviour:
    return Behaviour(effects.same)


def nothing(operation: Operation, inputs: Tensors, result: TensorFacts) -> Behaviour:
    return Behaviour(lambda traces, map_hw: (effects.Trace({}, map_hw), ()))


def convolution(operation: Operation, inputs: Tensors, result: TensorFacts) -> Behaviour:
    data, kernel = inputs[0], inputs[1]
    if data is None or kernel is None or len(kernel.shape) != 4:
        return unknown(operation, inputs, result)
    effect, window = sliding(
        map_of(data.shape),
        (kernel.shape[1], kernel.shape[2]),
        operation.options["stride_hw"],
        dilation=operation.options["dilation_hw"],
        rounding="same" if operation.options["same"] else "floor",
    )
    return Behaviour(effect, math.prod(map_of(result.shape)) * math.prod(kernel.shape), window)


def transposed(operation: Operation, inputs: Tensors, result: TensorFacts) -> Behaviour:
    kernel, data = inputs[1], inputs[2]
    if data is None or kernel is None:
        return unknown(operation, inputs, result)
    size, factor = (kernel.shape[1], kernel.shape[2]), operation.options["stride_hw"]
    # what lies over once the windows are laid out is cut, the odd pixel behind
    over = [
        (n - 1) * f + k - m for n, f, k, m in zip(map_of(data.shape), factor, size, map_of(result.shape), strict=True)
    ]
    cut = [max(o, 0) for o in over] if operation.options["same"] else [0, 0]
    before = (cut[0] // 2, cut[1] // 2)
    window = WindowFacts(size, factor, (1, 1), (before[0], cut[0] - before[0], before[1], cut[1] - before[1]), "exact")
    macs = math.prod(map_of(data.shape)) * math.prod(kernel.shape)
    return Behaviour(effects.local(lambda field: field.upsample(factor, size, before)), macs, window)


def pooling(operation: Operation, inputs: Tensors, result: TensorFacts) -> Behaviour:
    if inputs[0] is None:
        return unknown(operation, inputs, result)
    options = operation.options
    effect, window = sliding(
        map_of(inputs[0].shape),
        options["kernel_hw"],
        options["stride_hw"],
        rounding="same" if options["same"] else "floor",
    )
    return Behaviour(effect, 0, window)


def padding(operation: Operation, inputs: Tensors, result: TensorFacts) -> Behaviour:
    sides = inputs[1].values if len(inputs) > 1 and inputs[1] is not None else None
    if sides is None or sides.shape != (4, 2) or sides[0].any() or sides[3].any():
        return unknown(operation, inputs, result)
    (top, bottom), (left, right) = (tuple(map(int, side)) for side in sides[1:3])
    window = WindowFacts((1, 1), padding=(top, bottom, left, right))
    return Behaviour(effects.local(lambda field: field.pad((top, left))), 0, window)


def dense(operation: Operation, inputs: Tensors, result: TensorFacts) -> Behaviour:
    weights = inputs[1]
    if weights is None or inputs[0] is None:
        return unknown(operation, inputs, result)
    macs = math.prod(result.shape[:-1]) // max(result.shape[0], 1) * math.prod(weights.shape)
    spatial = len(result.shape) == 4 and map_of(inputs[0].shape) == map_of(result.shape)
    return Behaviour(effects.same if spatial else effects.all_of, macs)


def matmul(operation: Operation, inputs: Tensors, result: TensorFacts) -> Behaviour:
    data = inputs[0]
    depth = data.shape[-1] if data is not None and data.shape else 0
    return Behaviour(effects.unknown, math.prod(result.shape[1:]) * depth)


def reduction(operation: Operation, inputs: Tensors, result: TensorFacts) -> Behaviour:
    data, axes = inputs[0], inputs[1].values if len(inputs) > 1 and inputs[1] is not None else None
    if data is None or axes is None:
        return unknown(operation, inputs, result)
    reduced = {int(axis) % len(data.shape) for axis in axes.ravel()}
    if len(data.shape) == 4 and {1, 2} <= reduced:
        return Behaviour(effects.all_of)
    kept = map_of(data.shape) == map_of(result.shape)
    return Behaviour(effects.same if kept else effects.unknown)


def joining(operation: Operation, inputs: Tensors, result: TensorFacts) -> Behaviour:
    rank = len(result.shape)
    channels = operation.options["axis"] % rank == rank - 1 and rank in (2, 4)
    return Behaviour(effects.join if channels else effects.unknown)


def reshaping(operation: Operation, inputs: Tensors, result: TensorFacts) -> Behaviour:
    return unknown(operation, inputs, result) if inputs[0] is None else reshape(inputs[0].shape, result.shape)


def kept_map(operation: Operation, inputs: Tensors, result: TensorFacts) -> Behaviour:
    """Slices and transpositions that leave the map as it is."""
    if inputs[0] is None or len(inputs[0].shape) != len(result.shape):
        return unknown(operation, inputs, result)
    kept = map_of(inputs[0].shape) == map_of(result.shape)
    if operation.kind == "TRANSPOSE":
        kept = map_of(inputs[0].shape) == (1, 1) == map_of(result.shape)
    return Behaviour(effects.same if kept else effects.unknown)


def resizing(operation: Operation, inputs: Tensors, result: TensorFacts) -> Behaviour:
    if inputs[0] is None or operation.options["align_corners"]:
        return unknown(operation, inputs, result)
    before, after = map_of(inputs[0].shape), map_of(result.shape)
    factor: Pair = (after[0] // max(before[0], 1), after[1] // max(before[1], 1))
    if operation.kind == "RESIZE_NEAREST_NEIGHBOR":
        whole = (before[0] * factor[0], before[1] * factor[1]) == after
        return Behaviour(effects.local(lambda field: field.upsample(factor)) if whole else effects.unknown)
    half = operation.options["half_pixel_centers"]
    return Behaviour(effects.local(lambda field: field.resize(before, after)) if half else effects.unknown)


WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
POINTWISE = (
    "ADD SUB MUL DIV MAXIMUM MINIMUM SQUARED_DIFFERENCE POW FLOOR_DIV ADD_N PRELU RELU RELU6 RELU_N1_TO_1 RELU_0_TO_1 "
    "LEAKY_RELU ELU GELU LOGISTIC TANH HARD_SWISH SOFTMAX LOG_SOFTMAX QUANTIZE DEQUANTIZE CAST ABS NEG EXP LOG SQRT "
    "RSQRT SQUARE FLOOR CEIL ROUND SIGN SIN COS LOCAL_RESPONSE_NORMALIZATION L2_NORMALIZATION FAKE_QUANT"
)
RULES: dict[str, Rule] = {
    **dict.fromkeys(POINTWISE.split(), pointwise),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), convolution),
    "TRANSPOSE_CONV": transposed,
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D"), pooling),
    **dict.fromkeys(("PAD", "PADV2", "MIRROR_PAD"), padding),
    "FULLY_CONNECTED": dense,
    "BATCH_MATMUL": matmul,
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), reduction),
    "CONCATENATION": joining,
    **dict.fromkeys(("RESHAPE", "SQUEEZE", "EXPAND_DIMS"), reshaping),
    **dict.fromkeys(("STRIDED_SLICE", "SLICE", "SPLIT", "SPLIT_V", "TRANSPOSE"), kept_map),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), resizing),
    **dict.fromkeys(("SHAPE", "RANK"), nothing),
}
