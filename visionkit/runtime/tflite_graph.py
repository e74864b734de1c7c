"""The operations of a `.tflite`, read from the file without running it."""

from __future__ import annotations

from typing import Any

import numpy as np

from visionkit.errors import ModelError
from visionkit.inspection.ops_graph import Operation, OpsGraph, TensorFacts

__all__ = ["can_run_code", "read_tflite_graph"]

SMALL = 4096  # values of larger integer constants are not needed


def read_tflite_graph(content: bytes, *, label: str = "the LiteRT model", name: str = "model") -> OpsGraph:
    """The main graph of a `.tflite`.

    The reader trusts offsets and lengths, so content of unknown origin is tried by `vet_tflite` and opened by
    `open_litert` first, which check them.

    Raises:
        ModelError: `model-corrupt`.
    """
    from ai_edge_litert import schema_py_generated as schema

    try:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        return _graph(model, schema, name)
    except Exception as error:  # whatever damaged offsets lead to: struct.error, IndexError, MemoryError …
        raise ModelError("model-corrupt", f"{label} is a damaged LiteRT model: {error}; get it again") from error


def can_run_code(graph: OpsGraph) -> list[str]:
    """Kinds of operation that are not LiteRT's own: custom ones, and TensorFlow's (Flex)."""
    return sorted({operation.kind for operation in graph.operations if operation.custom})


def _graph(model: Any, schema: Any, name: str) -> OpsGraph:
    graph = model.subgraphs[0]
    kinds = [_kind(code, schema) for code in model.operatorCodes]
    tensors = tuple(_tensor(tensor, model.buffers, schema) for tensor in graph.tensors)
    operations = tuple(_operation(op, kinds, schema) for op in (graph.operators if graph.operators is not None else []))
    inputs, outputs = _names(model, graph, tensors)
    notes = []
    if len(model.subgraphs) > 1:
        notes.append(f"The file holds {len(model.subgraphs)} graphs; this is the main one.")
    if any(tensors[index].is_open for index in inputs.values()):
        notes.append("The file leaves sizes open: those shown are its placeholders.")
    return OpsGraph(name, tensors, operations, inputs, outputs, tuple(notes))


def _names(model: Any, graph: Any, tensors: tuple[TensorFacts, ...]) -> tuple[dict[str, int], dict[str, int]]:
    """Inputs and outputs by their names in the signature, or by the tensors' where there is none."""
    for signature in model.signatureDefs or []:
        if signature.subgraphIndex == 0:
            found = [
                {_text(entry.name): int(entry.tensorIndex) for entry in entries or []}
                for entries in (signature.inputs, signature.outputs)
            ]
            if len(found[0]) == len(graph.inputs):
                return found[0], found[1]
    return tuple({tensors[i].name: int(i) for i in entries} for entries in (graph.inputs, graph.outputs))  # type: ignore[return-value]


def _kind(code: Any, schema: Any) -> tuple[str, bool]:
    """Name of an operation, and whether it is none of LiteRT's own."""
    names = {value: key for key, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    if number == schema.BuiltinOperator.CUSTOM:
        return _text(code.customCode) or "CUSTOM", True
    return names.get(number, f"OPERATION_{number}"), False


def _tensor(tensor: Any, buffers: list[Any], schema: Any) -> TensorFacts:
    shape = tuple(int(n) for n in (tensor.shape if tensor.shape is not None else []))
    signature = [int(n) for n in (tensor.shapeSignature if tensor.shapeSignature is not None else [])]
    data = buffers[tensor.buffer].data if 0 < tensor.buffer < len(buffers) else None
    data = np.zeros(0, np.uint8) if data is None else np.asarray(data, np.uint8)
    constant = data.size > 0
    integers: dict[int, Any] = {schema.TensorType.INT32: np.int32, schema.TensorType.INT64: np.int64}
    values = None
    quantized = tensor.quantization is not None and tensor.quantization.scale is not None
    if constant and tensor.type in integers and not quantized and data.size <= SMALL:
        values = np.frombuffer(data.tobytes(), integers[tensor.type]).reshape(shape).astype(np.int64)
    numbers = tensor.type not in (*integers, schema.TensorType.BOOL, schema.TensorType.STRING)
    return TensorFacts(
        _text(tensor.name), shape, constant, constant and (numbers or quantized), values, -1 in signature[1:]
    )


def _operation(operation: Any, kinds: list[tuple[str, bool]], schema: Any) -> Operation:
    kind, custom = kinds[operation.opcodeIndex]
    raw = vars(operation.builtinOptions) if operation.builtinOptions is not None else {}
    options: dict[str, Any] = {}
    if "strideH" in raw:
        options["stride_hw"] = int(raw["strideH"]), int(raw["strideW"])
    if "dilationHFactor" in raw:
        options["dilation_hw"] = int(raw["dilationHFactor"]), int(raw["dilationWFactor"])
    if "filterHeight" in raw:
        options["kernel_hw"] = int(raw["filterHeight"]), int(raw["filterWidth"])
    if "padding" in raw:
        options["same"] = raw["padding"] == schema.Padding.SAME
    if "axis" in raw:
        options["axis"] = int(raw["axis"])
    if "alignCorners" in raw:
        options |= {"align_corners": bool(raw["alignCorners"]), "half_pixel_centers": bool(raw["halfPixelCenters"])}
    if raw.get("fusedActivationFunction"):
        names = {value: key for key, value in vars(schema.ActivationFunctionType).items() if isinstance(value, int)}
        options["activation"] = names.get(raw["fusedActivationFunction"], "?")
    inputs, outputs = (tuple(int(i) for i in part) for part in (operation.inputs, operation.outputs))
    return Operation(kind, inputs, outputs, options, custom)


def _text(raw: bytes | str | None) -> str:
    return raw.decode("utf-8", errors="replace") if isinstance(raw, bytes) else raw or ""
