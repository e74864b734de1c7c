"""The flatbuffer of a `.tflite` taken apart and put together: one signature at a time, equal weights kept once."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from visionkit.errors import ModelError

__all__ = [
    "kind_of",
    "main_graph",
    "merge_signatures",
    "opcode_of",
    "read_model",
    "split_signatures",
    "text_of",
    "write_model",
]


def read_model(content: bytes, label: str = "the LiteRT model") -> Any:
    """The flatbuffer as objects (`ModelT`); whatever is appended to it is left out.

    The reader trusts offsets, so content of unknown origin is vetted before (`runtime.vet`).

    Raises:
        ModelError: `model-corrupt`.
    """
    from ai_edge_litert import schema_py_generated as schema

    if content[4:8] != b"TFL3":
        raise ModelError("model-corrupt", f"{label} ({len(content):,} bytes) is not a LiteRT flatbuffer")
    try:
        return schema.ModelT.InitFromPackedBuf(content, 0)
    except Exception as error:  # whatever damaged offsets lead to
        raise ModelError("model-corrupt", f"{label} is a damaged LiteRT model: {error}; get it again") from error


def write_model(model: Any) -> bytes:
    """The objects as a flatbuffer."""
    import flatbuffers

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def text_of(raw: bytes | str | None) -> str:
    """A name in the file as text."""
    return raw.decode("utf-8", errors="replace") if isinstance(raw, bytes) else raw or ""


def kind_of(model: Any, operation: Any) -> str:
    """`CONV_2D` …, or the name of a custom operation."""
    from ai_edge_litert import schema_py_generated as schema

    code = model.operatorCodes[operation.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    if number == schema.BuiltinOperator.CUSTOM:
        return text_of(code.customCode) or "CUSTOM"
    names = {value: key for key, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    return names.get(number, f"OPERATION_{number}")


def opcode_of(model: Any, kind: str) -> int:
    """Place of an operation among the model's kinds, where it is put if it is not there."""
    from ai_edge_litert import schema_py_generated as schema

    number = getattr(schema.BuiltinOperator, kind)
    for index, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == number:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


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
        model.metadata, model.metadataBuffer = None, None
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
        model.metadata, model.metadataBuffer = None, None
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
    """The model without operations' kinds and buffers that nothing refers to, and with equal buffers once."""
    used = sorted({operation.opcodeIndex for graph in model.subgraphs for operation in graph.operators or []})
    model.operatorCodes = [model.operatorCodes[index] for index in used]
    codes = {old: new for new, old in enumerate(used)}
    buffers: list[Any] = [_empty_buffer()]
    places: dict[bytes, int] = {}
    for graph in model.subgraphs:
        for operation in graph.operators or []:
            operation.opcodeIndex = codes[operation.opcodeIndex]
        for tensor in graph.tensors:
            buffer = model.buffers[tensor.buffer]
            if buffer.data is None or len(buffer.data) == 0:
                tensor.buffer = 0  # of what is computed
                continue
            digest = hashlib.blake2b(np.asarray(buffer.data, np.uint8).tobytes(), digest_size=20).digest()
            if digest not in places:
                places[digest] = len(buffers)
                buffers.append(buffer)
            tensor.buffer = places[digest]
    model.buffers = buffers
    return model


def _empty_buffer() -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.BufferT()


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
