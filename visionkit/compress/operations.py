"""What a `.tflite` computes in which numbers: its operations with their types, islands of float arithmetic, sizes."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionkit.runtime.tflite_file import data_of, kind_of, main_graph, read_model, text_of, type_of

__all__ = [
    "OperationRow",
    "float_islands",
    "float_operations",
    "layer_of",
    "layers_of",
    "list_operations",
    "zipped_size",
]

CROSSINGS = ("QUANTIZE", "DEQUANTIZE")
OTHER = (*CROSSINGS, "CAST")  # a CAST makes pixels or class numbers of bytes, which are not quantized
INTEGERS = ("int8", "uint8", "int16", "int4", "int2")
FLOATS = ("float32", "float16", "bfloat16", "float64")
WEIGHTY = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
WEIGHTED = ("convolution", "depthwise", "MatMul", "conv_transpose", "BiasAdd")


@dataclass(frozen=True, slots=True)
class OperationRow:
    """One operation of a signature.

    Args:
        signature: whose graph it is in.
        index: its place there, in the order in which they run.
        kind: `CONV_2D` …
        name: of its first output tensor.
        layer: the Keras layer in that name, as the network's author called it; empty where there is none.
        inputs, outputs: types of the tensors, without those left out: `int8`, `float32` …
        reads, writes: their numbers in the graph.
        constants: which of `reads` lie in the file.
    """

    signature: str
    index: int
    kind: str
    name: str
    layer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    constants: frozenset[int]

    @property
    def is_float(self) -> bool:
        """Whether it computes in floating point; a crossing between the two does not count."""
        if self.kind in CROSSINGS:
            return False
        flows = [kind for kind, index in zip(self.inputs, self.reads, strict=True) if index not in self.constants]
        return any(kind in FLOATS for kind in (*flows, *self.outputs))

    @property
    def is_integer(self) -> bool:
        """Whether it computes on quantized integers."""
        return not self.is_float and self.kind not in OTHER and any(kind in INTEGERS for kind in self.outputs)

    @property
    def types(self) -> str:
        """In one word, such as `int8` or `int8+float32`, what flows in and out."""
        flows = [kind for kind, index in zip(self.inputs, self.reads, strict=True) if index not in self.constants]
        return "+".join(dict.fromkeys((*flows, *self.outputs)))


def list_operations(content: bytes, signature: str | None = None) -> list[OperationRow]:
    """The operations of a signature in the order in which they run; of all signatures without a name.

    Raises:
        ModelError: `model-corrupt`, or `model-signature` if there is none of that name.
    """
    model = read_model(content)
    rows = []
    for key, graph in main_graph(model, signature).items():
        for index, operation in enumerate(graph.operators or []):
            rows.append(_row(key, index, operation, graph, model))
    return rows


def float_islands(rows: Sequence[OperationRow]) -> list[list[OperationRow]]:
    """Runs of float arithmetic between integer operations, each as its operations in order.

    An operation belongs to one if it computes in float, and what it reads comes from an integer operation and what it
    makes goes into one, over whatever float operations. What comes before the first integer operation (an image's
    levels) and after the last (a softmax) does not.
    """
    islands: list[list[OperationRow]] = []
    for signature in dict.fromkeys(row.signature for row in rows):
        own = [row for row in rows if row.signature == signature]
        after = _reached(own, forward=True)
        before = _reached(own, forward=False)
        inside = [row for row in own if row.is_float and row.index in after and row.index in before]
        islands += _joined(inside)
    return islands


def float_operations(rows: Sequence[OperationRow]) -> list[OperationRow]:
    """The operations that compute in floating point, wherever they stand."""
    return [row for row in rows if row.is_float]


def zipped_size(source: Path | bytes) -> int:
    """Bytes of a file, or of all files in a folder, packed by DEFLATE: what a download counts."""
    if isinstance(source, bytes):
        return _deflated([source])
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    return _deflated([path.read_bytes() for path in files])


def layer_of(name: str) -> str:
    """The Keras layer that a tensor's name tells of: `layer1.0.conv1` of `net_1/layer1.0.conv1_1/convolution`.

    The converter joins the names of what it fused by semicolons, the layer with the weights anywhere among them.
    """
    for layer, last in _told(name):
        if any(word in last for word in WEIGHTED):
            return layer
    return next((layer for layer, _ in _told(name)), "")


def layers_of(name: str) -> list[str]:
    """All Keras layers that a tensor's name tells of: the convolution, its BatchNormalization, its activation."""
    return list(dict.fromkeys(layer for layer, _ in _told(name)))


def _told(name: str) -> list[tuple[str, str]]:
    """Layers and last words of the paths in a tensor's name; a second trace appends a number to a layer's name.

    A layer of a network within a network is told with that: `head/conv` of `net_1/head_1/conv_1/convolution`. Only
    paths that end in weights say how deep that is, those of other operations may go on inside of a layer.
    """
    paths = [part.split("/") for part in name.split(";") if part.count("/")]
    depth = max([len(path) - 2 for path in paths if any(word in path[-1] for word in WEIGHTED)], default=1)
    layers = [path[1 : 1 + max(1, depth)] if len(path) > 2 else path[:1] for path in paths]
    told = ["/".join(re.sub(r"_\d+$", "", part) for part in layer) for layer in layers]
    return [(layer, path[-1]) for layer, path in zip(told, paths, strict=True)]


def _row(key: str, index: int, operation: Any, graph: Any, model: Any) -> OperationRow:
    reads, writes = (tuple(int(i) for i in part if i >= 0) for part in (operation.inputs, operation.outputs))
    name = text_of(graph.tensors[writes[0]].name) if writes else ""
    inputs, outputs = (tuple(type_of(graph.tensors[i]) for i in part) for part in (reads, writes))
    constants = frozenset(i for i in reads if data_of(model, graph.tensors[i]) is not None)
    kind = kind_of(model, operation)
    layer = layer_of(name)
    if not layer and kind in WEIGHTY:  # the signature's output has another name; its weights have not
        layer = next(
            (found for i in reads if i in constants and (found := layer_of(text_of(graph.tensors[i].name)))), ""
        )
    return OperationRow(key, index, kind, name, layer, inputs, outputs, reads, writes, constants)


def _reached(rows: Sequence[OperationRow], *, forward: bool) -> set[int]:
    """Numbers of the operations with an integer operation before them (`forward`), or behind them."""
    tensors: set[int] = set()
    found: set[int] = set()
    for row in rows if forward else reversed(rows):
        near, far = (row.reads, row.writes) if forward else (row.writes, row.reads)
        if not tensors.isdisjoint(near):
            found.add(row.index)
            tensors.update(far)
        if row.is_integer:
            tensors.update(far)
    return found


def _joined(rows: list[OperationRow]) -> list[list[OperationRow]]:
    """The operations in groups that hand tensors to each other."""
    groups: list[tuple[set[int], list[OperationRow]]] = []
    for row in rows:
        own = {index for index in (*row.reads, *row.writes) if index not in row.constants}
        near = [group for group in groups if not group[0].isdisjoint(own)]
        merged = (own.union(*(group[0] for group in near)), [row for group in near for row in group[1]] + [row])
        groups = [group for group in groups if group not in near] + [merged]
    return [group[1] for group in groups]


def _deflated(contents: Sequence[bytes]) -> int:
    return sum(len(zlib.compress(content, 6)) for content in contents)
