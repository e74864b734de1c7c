"""A `.tflite` whose weights are stored in fewer bits, its arithmetic in float32: no calibration is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.runtime.tflite_file import (
    add_constant,
    add_tensor,
    compacted,
    constant_of,
    kind_of,
    new_operation,
    read_model,
    set_scale,
    text_of,
    type_of,
    write_model,
)

__all__ = ["halved", "rounded"]

# Of each kind of operation, which input holds the weights, and the axis of its output channels.
WEIGHTS = {"CONV_2D": (1, 0), "DEPTHWISE_CONV_2D": (1, 3), "FULLY_CONNECTED": (1, 0), "TRANSPOSE_CONV": (1, 0)}
INTEGER_KERNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")  # those that take int8 weights on float inputs
LEAST_VALUES = 256  # smaller weights are not worth a scale of their own

Keep = Callable[[str], bool]


def halved(content: bytes, keep: Keep = lambda name: False) -> bytes:
    """The file with its weights in float16, which a DEQUANTIZE turns back before they are used.

    Args:
        content: a float `.tflite`.
        keep: whether an operation keeps float32 weights, by the name of its output tensor.
    """
    model = read_model(content)
    for graph in model.subgraphs:
        made: dict[int, int] = {}
        before: list[Any] = []
        for operation in list(graph.operators or []):
            place = WEIGHTS.get(kind_of(model, operation), (None, 0))[0]
            values = None if place is None else _float_weights(model, graph, operation, place, keep)
            if values is None or place is None or np.abs(values).max(initial=0) > np.finfo(np.float16).max:
                continue
            index = int(operation.inputs[place])
            if index not in made:
                name = f"{text_of(graph.tensors[index].name)}/float16"
                half = add_constant(model, graph, name, values.astype(np.float16))
                made[index] = _computed_twin(model, graph, index)
                before.append(new_operation(model, "DEQUANTIZE", [half], [made[index]]))
            operation.inputs = np.array(
                [made[index] if i == place else int(n) for i, n in enumerate(operation.inputs)], np.int32
            )
        graph.operators = before + list(graph.operators or [])
    return write_model(compacted(model))


def rounded(content: bytes, keep: Keep = lambda name: False) -> bytes:
    """The file with int8 weights, one scale a channel; the runtime rounds each input by its own range (dynamic range).

    Symmetric: the scale is the channel's largest magnitude over 127, the zero point 0, so that no weight is -128.

    Args:
        content: a float `.tflite`.
        keep: as `halved`.
    """
    model = read_model(content)
    for graph in model.subgraphs:
        done: dict[int, int] = {}
        for operation in graph.operators or []:
            kind = kind_of(model, operation)
            if kind not in INTEGER_KERNELS:
                continue
            place, axis = WEIGHTS[kind]
            values = _float_weights(model, graph, operation, place, keep)
            if values is None:
                continue
            index = int(operation.inputs[place])
            if index not in done:
                done[index] = _int8_twin(model, graph, index, values, axis)
            operation.inputs = np.array(
                [done[index] if i == place else int(n) for i, n in enumerate(operation.inputs)], np.int32
            )
    return write_model(compacted(model))


def _float_weights(model: Any, graph: Any, operation: Any, place: int, keep: Keep) -> npt.NDArray[np.float32] | None:
    """The weights of an operation, if they are to be stored in fewer bits."""
    tensor = graph.tensors[int(operation.inputs[place])]
    if type_of(tensor) != "float32" or keep(text_of(graph.tensors[int(operation.outputs[0])].name)):
        return None
    values = constant_of(model, tensor)
    return None if values is None or values.size < LEAST_VALUES or not np.isfinite(values).all() else values


def _computed_twin(model: Any, graph: Any, index: int) -> int:
    tensor = graph.tensors[index]
    return add_tensor(model, graph, f"{text_of(tensor.name)}/float32", tensor.shape)


def _int8_twin(model: Any, graph: Any, index: int, values: npt.NDArray[np.float32], axis: int) -> int:
    others = tuple(i for i in range(values.ndim) if i != axis)
    scale = np.maximum(np.abs(values).max(axis=others), np.finfo(np.float32).tiny * 127) / np.float32(127)
    shape = [-1 if i == axis else 1 for i in range(values.ndim)]
    levels = np.clip(np.rint(values / scale.reshape(shape)), -127, 127).astype(np.int8)
    twin = add_constant(model, graph, f"{text_of(graph.tensors[index].name)}/int8", levels)
    set_scale(graph.tensors[twin], scale.astype(np.float32), axis=axis)
    return twin
