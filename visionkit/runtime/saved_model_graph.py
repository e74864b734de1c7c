"""What a SavedModel says of itself, read from its files without loading it: loading can run code."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionkit.errors import ModelError
from visionkit.runtime.quiet import import_tensorflow, quiet

__all__ = ["SavedModelFacts", "read_saved_model"]

MAX_BYTES = 2 << 30  # a protocol buffer holds no more
# Operations that reach beyond the model's own tensors; those of the checkpoint (SaveV2, RestoreV2) are in every file.
REACHING = frozenset(
    {
        "EagerPyFunc",
        "FixedLengthRecordDataset",
        "MatchingFiles",
        "Print",
        "PrintV2",
        "PyFunc",
        "PyFuncStateless",
        "ReadFile",
        "ReaderReadV2",
        "TFRecordDataset",
        "TextLineDataset",
        "WholeFileReaderV2",
        "WriteFile",
        "XlaCallModule",
    }
)


@dataclass(frozen=True, slots=True)
class SavedModelFacts:
    """A SavedModel, unopened.

    Args:
        signatures: by name: `inputs` and `outputs`, each name -> [type, shape with None for open sizes].
        variables: shape by name, of those that a signature uses; Keras writes each twice into the files.
        parameters: numbers in them.
        operations: how often each kind stands in the graphs, the most frequent first.
        reaching: kinds among them that read or write files, print, or call Python.
        bytes: of all its files.
    """

    signatures: Mapping[str, Mapping[str, Mapping[str, list[Any]]]]
    variables: Mapping[str, list[int]]
    parameters: int
    operations: Mapping[str, int]
    reaching: tuple[str, ...]
    bytes: int


def read_saved_model(path: Path) -> SavedModelFacts:
    """Facts of the SavedModel in the folder `path`.

    Raises:
        ModelError: `model-corrupt`.
    """
    tf = import_tensorflow()
    from tensorflow.core.protobuf import saved_model_pb2

    file = path / "saved_model.pb"
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ValueError(f"saved_model.pb has {file.stat().st_size:,} bytes")
        saved = saved_model_pb2.SavedModel()
        saved.ParseFromString(file.read_bytes())
        graph = saved.meta_graphs[0]
        with quiet():
            variables = _used_variables(graph.object_graph_def) or _stored_variables(tf, path)
    except Exception as error:  # DecodeError, IndexError, OSError, and what a damaged checkpoint leads to
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError("model-corrupt", f"{str(path)!r} is not a readable SavedModel: {reason}") from error
    counts = Counter(node.op for node in graph.graph_def.node)
    for function in graph.graph_def.library.function:
        counts.update(node.op for node in function.node_def)
    return SavedModelFacts(
        signatures={
            name: {"inputs": _tensors(tf, signature.inputs), "outputs": _tensors(tf, signature.outputs)}
            for name, signature in sorted(graph.signature_def.items())
            if not name.startswith("__saved_model")
        },
        variables=variables,
        parameters=sum(math.prod(shape) for shape in variables.values()),
        operations=dict(counts.most_common()),
        reaching=tuple(sorted(REACHING & set(counts))),
        bytes=sum(part.stat().st_size for part in path.rglob("*") if part.is_file()),
    )


def _used_variables(graph: Any) -> dict[str, list[int]]:
    """Variables that the signatures' functions are bound to; of a file that does not say so, all there are."""
    bound = {
        index
        for name, function in graph.concrete_functions.items()
        if "signature_wrapper" in name
        for index in function.bound_inputs
    }
    found: dict[str, list[int]] = {}
    for index, node in enumerate(graph.nodes):
        if node.WhichOneof("kind") == "variable" and (not bound or index in bound):
            name = node.variable.name or f"variable_{index}"
            shape = [dim.size for dim in node.variable.shape.dim]
            found[f"{name}_{index}" if name in found else name] = shape
    return found


def _stored_variables(tf: Any, path: Path) -> dict[str, list[int]]:
    """What the checkpoint holds, without the optimizer's and its own."""
    prefix = path / "variables" / "variables"
    if not prefix.with_suffix(".index").is_file():
        return {}
    reader = tf.train.load_checkpoint(str(prefix))
    types, shapes = reader.get_variable_to_dtype_map(), reader.get_variable_to_shape_map()
    return {
        name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"): list(shapes[name])
        for name in sorted(shapes)
        if types[name] != tf.string and not any(word in name for word in ("save_counter", "optimizer", "iterations"))
    }


def _tensors(tf: Any, entries: Any) -> dict[str, list[Any]]:
    found = {}
    for name, info in sorted(entries.items()):
        shape = (
            None if info.tensor_shape.unknown_rank else [d.size if d.size >= 0 else None for d in info.tensor_shape.dim]
        )
        found[name] = [tf.dtypes.as_dtype(info.dtype).name, shape]
    return found
