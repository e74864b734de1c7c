"""The flatbuffer of a `.tflite` taken apart and put together: one signature at a time, equal weights kept once."""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError

__all__ = [
    "add_constant",
    "add_tensor",
    "compacted",
    "constant_of",
    "data_of",
    "kind_of",
    "main_graph",
    "merge_signatures",
    "new_operation",
    "read_model",
    "set_scale",
    "split_signatures",
    "text_of",
    "type_of",
    "write_model",
]


def read_model(content: bytes, label: str = "the LiteRT model") -> Any:
    """The flatbuffer as objects (`ModelT`); whatever is appended to it is left out.

    The reader trusts offsets, so content of unknown origin is vetted before (`runtime.vet`).

    Raises:
        ModelError: `model-corrupt`.
    """
    if content[4:8] != b"TFL3":
        raise ModelError("model-corrupt", f"{label} ({len(content):,} bytes) is not a LiteRT flatbuffer")
    try:
        model = _schema().ModelT.InitFromPackedBuf(content, 0)
        for buffer in model.buffers:
            if buffer.offset > 1:  # it lies behind the flatbuffer
                buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
                buffer.offset = buffer.size = 0
        return model
    except Exception as error:  # whatever damaged offsets lead to
        raise ModelError("model-corrupt", f"{label} is a damaged LiteRT model: {error}; get it again") from error


def write_model(model: Any) -> bytes:
    """The objects as a flatbuffer, in which tensors with equal scales share them: signatures repeat each other."""
    import flatbuffers

    once: dict[bytes, _Once] = {}
    vectors: dict[bytes, int] = {}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.quantization is not None:
                shared = _Once(tensor.quantization, vectors)
                tensor.quantization = once.setdefault(shared.key, shared)
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.quantization is not None:
                tensor.quantization = tensor.quantization.parameters
    return bytes(builder.Output())


class _Once:
    """Scales and zero points that are written when they are first asked for, and referred to from then on.

    Zero points are eight bytes a channel and nearly always 0, so that tensors share theirs even where scales differ.
    """

    def __init__(self, parameters: Any, vectors: dict[bytes, int]) -> None:
        self.parameters, self.vectors, self.offset = parameters, vectors, 0
        known = sorted(vars(parameters).items())
        self.key = b"".join(
            name.encode() + (np.asarray(value).tobytes() if value is not None else b"-") for name, value in known
        )

    def Pack(self, builder: Any) -> int:  # noqa: N802 - as the schema's objects are called
        if not self.offset:
            self.offset = self.parameters.Pack(builder) if self.parameters.details is not None else self._pack(builder)
        return self.offset

    def _pack(self, builder: Any) -> int:
        schema, own = _schema(), self.parameters
        fields = {"Min": own.min, "Max": own.max, "Scale": own.scale, "ZeroPoint": own.zeroPoint}
        places = {name: self._vector(builder, values) for name, values in fields.items() if values is not None}
        schema.QuantizationParametersStart(builder)
        for name, place in places.items():
            getattr(schema, f"QuantizationParametersAdd{name}")(builder, place)
        schema.QuantizationParametersAddQuantizedDimension(builder, own.quantizedDimension)
        return int(schema.QuantizationParametersEnd(builder))

    def _vector(self, builder: Any, values: Any) -> int:
        array = np.asarray(values)
        key = array.dtype.str.encode() + array.tobytes()
        if key not in self.vectors:
            self.vectors[key] = int(builder.CreateNumpyVector(array))
        return self.vectors[key]


def text_of(raw: bytes | str | None) -> str:
    """A name in the file as text."""
    return raw.decode("utf-8", errors="replace") if isinstance(raw, bytes) else raw or ""


def kind_of(model: Any, operation: Any) -> str:
    """`CONV_2D` …, or the name of a custom operation."""
    code = model.operatorCodes[operation.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    kind = _names("BuiltinOperator").get(number, f"OPERATION_{number}")
    return text_of(code.customCode) or kind if kind == "CUSTOM" else kind


def type_of(tensor: Any) -> str:
    """`float32`, `int8` …"""
    return _names("TensorType").get(tensor.type, f"type_{tensor.type}").lower()


def data_of(model: Any, tensor: Any) -> npt.NDArray[np.uint8] | None:
    """The bytes of a tensor that lies in the file; None for one that is computed."""
    data = model.buffers[tensor.buffer].data
    return None if data is None or len(data) == 0 else np.asarray(data, np.uint8)


def constant_of(model: Any, tensor: Any) -> npt.NDArray[Any] | None:
    """The values of a tensor that lies in the file; None for one that is computed."""
    data = data_of(model, tensor)
    shape = tuple(tensor.shape) if tensor.shape is not None else ()
    return None if data is None else np.frombuffer(data.tobytes(), type_of(tensor)).reshape(shape)


def add_tensor(model: Any, graph: Any, name: str, shape: Any, kind: str = "float32") -> int:
    """The number of a new tensor that is computed."""
    schema = _schema()
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name.encode(), np.asarray(shape, np.int32), 0
    tensor.type = getattr(schema.TensorType, kind.upper())
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def add_constant(model: Any, graph: Any, name: str, values: npt.NDArray[Any]) -> int:
    """The number of a new tensor that lies in the file."""
    index = add_tensor(model, graph, name, values.shape, values.dtype.name)
    buffer = _schema().BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    model.buffers.append(buffer)
    graph.tensors[index].buffer = len(model.buffers) - 1
    return index


def set_scale(
    tensor: Any,
    scale: npt.NDArray[np.float32] | None = None,
    *,
    axis: int = 0,
    limits: tuple[float, float] | None = None,
) -> None:
    """Gives a tensor scales (all zero points are 0), or with `limits` the least and largest value that were seen."""
    parameters = _schema().QuantizationParametersT()
    if limits is not None:
        parameters.min, parameters.max = (np.array([limit], np.float32) for limit in limits)
    if scale is not None:
        parameters.scale = np.asarray(scale, np.float32)
        parameters.zeroPoint = np.zeros(len(parameters.scale), np.int64)
        parameters.quantizedDimension = axis
    tensor.quantization = parameters


def new_operation(
    model: Any, kind: str, inputs: Iterable[int], outputs: Iterable[int], *, activation: str | None = None
) -> Any:
    """An operation of this kind, which is put among the model's kinds where it is not there.

    Args:
        model: whose operation it will be.
        kind: `DEQUANTIZE`, `ADD`, `MUL` …
        inputs, outputs: numbers of tensors.
        activation: fused into it, such as `NONE` or `RELU6`, where the kind has settings.
    """
    schema = _schema()
    operation = schema.OperatorT()
    operation.opcodeIndex = _opcode(model, getattr(schema.BuiltinOperator, kind))
    operation.inputs, operation.outputs = (np.array(list(part), np.int32) for part in (inputs, outputs))
    if activation is not None:
        name = f"{kind.title()}Options"
        operation.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        operation.builtinOptions = getattr(schema, f"{name}T")()
        operation.builtinOptions.fusedActivationFunction = getattr(schema.ActivationFunctionType, activation)
    return operation


def _opcode(model: Any, number: int) -> int:
    for index, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == number:
            return index
    code = _schema().OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


@functools.cache
def _names(enumeration: str) -> dict[int, str]:
    return {value: key for key, value in vars(getattr(_schema(), enumeration)).items() if isinstance(value, int)}


def _schema() -> Any:
    from ai_edge_litert import schema_py_generated

    return schema_py_generated


def main_graph(model: Any, signature: str | None = None) -> dict[str, Any]:
    """Graphs by signature: of all, or of the one named; a file without signatures has the main graph as ""."""
    graphs = {
        text_of(entry.signatureKey): model.subgraphs[entry.subgraphIndex] for entry in model.signatureDefs or []
    } or {"": model.subgraphs[0]}
    if signature is None:
        return graphs
    if signature not in graphs:
        raise ModelError("model-signature", f"there is no signature {signature!r}; there are {', '.join(graphs)}")
    return {signature: graphs[signature]}


def split_signatures(content: bytes) -> dict[str, bytes]:
    """Each signature as a file of its own, with the graphs it calls and the weights it reads, by its name."""
    keys = [text_of(entry.signatureKey) for entry in read_model(content).signatureDefs or []]
    parts = {}
    for key in keys:
        model = read_model(content)
        entry = next(entry for entry in model.signatureDefs if text_of(entry.signatureKey) == key)
        order = _called(model, entry.subgraphIndex)
        places = {old: new for new, old in enumerate(order)}
        model.subgraphs = [model.subgraphs[index] for index in order]
        for graph in model.subgraphs:
            for operation in graph.operators or []:
                _redirect(operation, places)
        entry.subgraphIndex = 0
        model.signatureDefs = [entry]
        parts[key] = write_model(compacted(model))
    return parts


def merge_signatures(parts: Mapping[str, bytes]) -> bytes:
    """One file with all the signatures of `parts`, in which every weight lies once.

    Args:
        parts: files with one signature each, by its name.
    """
    merged: Any = None
    for key, content in parts.items():
        model = read_model(content)
        (entry,) = model.signatureDefs
        entry.signatureKey = key.encode()
        if merged is None:
            merged = model
            continue
        _append(merged, model)
    if merged is None:
        raise ValueError("`parts` must hold a signature at least.")
    return write_model(compacted(merged))


def compacted(model: Any) -> Any:
    """The model without metadata, kinds, tensors and buffers that nothing refers to, with equal buffers once."""
    model.metadata, model.metadataBuffer = None, None
    for number, graph in enumerate(model.subgraphs):
        _drop_tensors(graph, [entry for entry in model.signatureDefs or [] if entry.subgraphIndex == number])
    used = sorted({operation.opcodeIndex for graph in model.subgraphs for operation in graph.operators or []})
    model.operatorCodes = [model.operatorCodes[index] for index in used]
    codes = {old: new for new, old in enumerate(used)}
    buffers: list[Any] = [_schema().BufferT()]
    places: dict[bytes, int] = {}
    for graph in model.subgraphs:
        for operation in graph.operators or []:
            operation.opcodeIndex = codes[operation.opcodeIndex]
        for tensor in graph.tensors:
            data = data_of(model, tensor)
            if data is None:
                tensor.buffer = 0  # of what is computed
                continue
            digest = hashlib.blake2b(data.tobytes(), digest_size=20).digest()
            if digest not in places:
                places[digest] = len(buffers)
                buffers.append(model.buffers[tensor.buffer])
            tensor.buffer = places[digest]
    model.buffers = buffers
    return model


def _drop_tensors(graph: Any, entries: list[Any]) -> None:
    """Takes away the tensors that nothing reads or writes, and numbers the others anew."""
    operations = graph.operators if graph.operators is not None else []
    used = {int(i) for op in operations for part in _ends(op) for i in part if i >= 0}
    used |= {int(index) for part in (graph.inputs, graph.outputs) for index in part}
    order = sorted(used)
    places = {old: new for new, old in enumerate(order)} | {-1: -1}
    graph.tensors = [graph.tensors[index] for index in order]
    for operation in operations:
        operation.inputs, operation.outputs, inside = (
            np.array([places[int(index)] for index in part], np.int32) for part in _ends(operation)
        )
        operation.intermediates = inside if len(inside) else None
    graph.inputs, graph.outputs = (
        np.array([places[int(index)] for index in part], np.int32) for part in (graph.inputs, graph.outputs)
    )
    for entry in entries:
        for end in (*entry.inputs, *entry.outputs):
            end.tensorIndex = places[int(end.tensorIndex)]


def _ends(operation: Any) -> tuple[Any, Any, Any]:
    """Numbers of the tensors that an operation reads, makes and keeps."""
    found = (operation.inputs, operation.outputs, operation.intermediates)
    return tuple(() if part is None else part for part in found)  # type: ignore[return-value]


def _append(merged: Any, model: Any) -> None:
    graphs, codes, buffers = len(merged.subgraphs), len(merged.operatorCodes), len(merged.buffers)
    places = {index: index + graphs for index in range(len(model.subgraphs))}
    for graph in model.subgraphs:
        for operation in graph.operators or []:
            operation.opcodeIndex += codes
            _redirect(operation, places)
        for tensor in graph.tensors:
            tensor.buffer += buffers
    for entry in model.signatureDefs:
        entry.subgraphIndex = places[entry.subgraphIndex]
    merged.subgraphs += model.subgraphs
    merged.operatorCodes += [copy.copy(code) for code in model.operatorCodes]
    merged.buffers += model.buffers
    merged.signatureDefs += model.signatureDefs
    _join_codes(merged)


def _join_codes(model: Any) -> None:
    """Makes operations of one kind and version refer to one entry."""
    places: dict[tuple[Any, ...], int] = {}
    first = []
    for index, code in enumerate(model.operatorCodes):
        key = (max(code.builtinCode, code.deprecatedBuiltinCode), text_of(code.customCode), code.version)
        first.append(places.setdefault(key, index))
    for graph in model.subgraphs:
        for operation in graph.operators or []:
            operation.opcodeIndex = first[operation.opcodeIndex]


def _called(model: Any, start: int) -> list[int]:
    """Numbers of the graph `start` and of those it calls, itself first."""
    found, waiting = [], [start]
    while waiting:
        index = waiting.pop(0)
        if index in found:
            continue
        found.append(index)
        for operation in model.subgraphs[index].operators or []:
            waiting += [int(getattr(options, name)) for options, name in _references(operation)]
    return found


def _redirect(operation: Any, places: Mapping[int, int]) -> None:
    for options, name in _references(operation):
        setattr(options, name, places[int(getattr(options, name))])


def _references(operation: Any) -> Iterable[tuple[Any, str]]:
    """Where an operation names graphs: the branches of an IF, the body of a WHILE, a composite's meaning."""
    for options in (operation.builtinOptions, operation.builtinOptions2):
        for name in vars(options) if options is not None else ():
            is_reference = name.lower().endswith("subgraphindex") or name == "subgraph"
            if is_reference and int(getattr(options, name)) >= 0:
                yield options, name
