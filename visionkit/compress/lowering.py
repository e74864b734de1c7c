"""A float `.tflite` made ready to be quantized: operations with slow integer kernels become ones with fast kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from visionkit.runtime.tflite_file import (
    add_constant,
    add_tensor,
    compacted,
    kind_of,
    new_operation,
    read_model,
    text_of,
    write_model,
)

__all__ = ["floors", "lowered", "named_apart"]


def lowered(content: bytes) -> bytes:
    """The same function, without HARD_SWISH, and with names that differ.

    XNNPACK has no int8 kernel for HARD_SWISH: each cuts the network in two and runs alone (MobileNetV3 at 240x320: 4.6
    ms in int8, 1.1 ms as here, 1.9 ms in float32). x * relu6(x + 3) / 6 is an ADD and two MULs that it has.
    """
    model = read_model(content)
    for graph in model.subgraphs:
        operations: list[Any] = []
        constants: dict[float, int] = {}
        for operation in graph.operators or []:
            if kind_of(model, operation) == "HARD_SWISH":
                operations += _hard_swish(model, graph, operation, constants)
            else:
                operations.append(operation)
        graph.operators = operations
        _name_apart(graph)
    return write_model(compacted(model))


def floors(content: bytes) -> dict[str, float]:
    """By tensor name, -3 where only a HARD_SWISH of the file reads it: to that, all values up to -3 are alike."""
    model = read_model(content)
    found: dict[str, float] = {}
    for graph in model.subgraphs:
        readers: dict[int, list[str]] = {int(index): ["OUTPUT"] for index in graph.outputs}
        for operation in graph.operators or []:
            for index in operation.inputs:
                readers.setdefault(int(index), []).append(kind_of(model, operation))
        found |= {text_of(graph.tensors[i].name): -3.0 for i, kinds in readers.items() if set(kinds) == {"HARD_SWISH"}}
    return found


def named_apart(content: bytes) -> bytes:
    """The same file, in which no two tensors have one name."""
    model = read_model(content)
    for graph in model.subgraphs:
        _name_apart(graph)
    return write_model(compacted(model))


def _hard_swish(model: Any, graph: Any, operation: Any, constants: dict[float, int]) -> list[Any]:
    for value in (3.0, 1 / 6):
        if value not in constants:
            constants[value] = add_constant(model, graph, f"hard_swish/{value:.3f}", np.array([value], np.float32))
    x, y = int(operation.inputs[0]), int(operation.outputs[0])
    name = text_of(graph.tensors[y].name)
    shifted, gate = (add_tensor(model, graph, f"{name}/{part}", graph.tensors[y].shape) for part in ("relu6", "gate"))
    return [
        new_operation(model, "ADD", [x, constants[3.0]], [shifted], activation="RELU6"),
        new_operation(model, "MUL", [shifted, constants[1 / 6]], [gate], activation="NONE"),
        new_operation(model, "MUL", [x, gate], [y], activation="NONE"),
    ]


def _name_apart(graph: Any) -> None:
    """Numbers names that occur again: quantizers tell tensors apart by them."""
    seen: set[str] = set()
    for tensor in graph.tensors:
        name = text_of(tensor.name)
        if name in seen:
            name = next(new for i in range(2, 1 << 30) if (new := f"{name}#{i}") not in seen)
            tensor.name = name.encode()
        seen.add(name)
