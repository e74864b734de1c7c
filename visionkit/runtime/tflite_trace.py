"""What every operation of a `.tflite` computes: for finding the layer from which two files part."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError
from visionkit.runtime.quiet import quiet
from visionkit.runtime.steps import from_steps, to_steps
from visionkit.runtime.tflite_file import kind_of, main_graph, read_model, text_of

__all__ = ["TracedOperation", "layers_of", "trace_tflite"]

Array = npt.NDArray[Any]

FLOATS = (np.float16, np.float32, np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class TracedOperation:
    """One operation's first result.

    Args:
        kind: `CONV_2D` …
        tensor: its name in the file.
        layers: Keras layers that the name tells, the last of a chain that became one operation first.
        value: float32; integers with a scale as what they stand for.
        scale: one step of such integers; None of real numbers.
    """

    kind: str
    tensor: str
    layers: tuple[str, ...]
    value: npt.NDArray[np.float32]
    scale: float | None


def trace_tflite(content: bytes, inputs: Mapping[str, Array], signature: str | None = None) -> list[TracedOperation]:
    """Every operation of a signature with what it computes from `inputs`, in the order in which they run.

    Operations on integers that stand for nothing else (shapes, indices) are left out, and so is what lies inside of
    branches and loops.

    Args:
        content: the file, vetted where its origin is unknown.
        inputs: by the signature's names; floats are rounded to steps where the file takes integers.
        signature: None for the only one.

    Raises:
        ModelError: `model-corrupt`, `model-signature`.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    model = read_model(content)
    graphs = main_graph(model, signature)
    if len(graphs) != 1:
        raise ModelError("model-signature", f"the file has the signatures {', '.join(graphs)}; name one")
    ((key, graph),) = graphs.items()
    index = next(k for k, other in enumerate(model.subgraphs) if other is graph)
    with quiet():
        # A delegate would keep what lies between its operations to itself.
        interpreter = Interpreter(
            model_content=content,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
        run = interpreter.get_signature_runner(key or None)
        details = run.get_input_details()
        if set(details) != set(inputs):
            raise ModelError(
                "model-signature", f"signature {key!r} takes {', '.join(details)}; received {', '.join(inputs)}"
            )
        for name, detail in details.items():
            if tuple(detail["shape"]) != np.shape(inputs[name]):
                told = f"{tuple(map(int, detail['shape']))}; received {np.shape(inputs[name])}"
                raise ModelError("model-signature", f"signature {key!r} takes {name} of the shape {told}")
        run(**{name: _fed(inputs[name], details[name]) for name in details})
        return [
            traced
            for operation in graph.operators or []
            if (traced := _traced(interpreter, model, graph, index, operation)) is not None
        ]


def layers_of(tensor: str) -> tuple[str, ...]:
    """Layers in a tensor's name: `net_1/bn1.relu_1/Relu;net_1/conv1_1/convolution` is of `bn1.relu` and `conv1`.

    TensorFlow's converter joins the names of operations that became one by `;`, the last one first; Keras counts how
    often it calls a layer by `_1`, `_2` …
    """
    found = []
    for part in tensor.split(";"):
        steps = part.split("/")
        if len(steps) >= 3:
            found.append(re.sub(r"_\d+$", "", steps[1]))
    return tuple(dict.fromkeys(found))


def _fed(array: Array, detail: Mapping[str, Any]) -> Array:
    dtype = np.dtype(detail["dtype"])
    if array.dtype == dtype:
        return array
    scale, zero_point = detail["quantization"]
    return to_steps(array, dtype, (float(scale), int(zero_point)) if scale else None)


def _traced(interpreter: Any, model: Any, graph: Any, index: int, operation: Any) -> TracedOperation | None:
    place = int(operation.outputs[0])
    tensor = graph.tensors[place]
    try:
        value = interpreter.get_tensor(place, index)
    except ValueError:  # nothing was put there: the operation is not run, or its result is not kept
        return None
    quantization = _quantization(tensor)
    if value.dtype not in FLOATS and quantization is None:
        return None
    name = text_of(tensor.name)
    plain = np.array(from_steps(value, quantization), np.float32)
    return TracedOperation(kind_of(model, operation), name, layers_of(name), plain, quantization and quantization[0])


def _quantization(tensor: Any) -> tuple[float, int] | None:
    told = tensor.quantization
    if told is None or told.scale is None or len(told.scale) != 1:
        return None
    zero_point = told.zeroPoint[0] if told.zeroPoint is not None and len(told.zeroPoint) else 0
    return float(told.scale[0]), int(zero_point)
