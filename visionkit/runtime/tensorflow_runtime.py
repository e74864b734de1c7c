"""Frozen TensorFlow graphs with static shapes: the quickest way to run a network in TensorFlow itself.

Measured on MobileNetV2-224, batch 1, milliseconds: this 9.5, a SavedModel loaded back 9.5, the concrete function of the
Keras model with its variables 14.1, `predict_on_batch` 14.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from visionkit.runtime.base import Array, Runner, Signature
from visionkit.runtime.quiet import import_tensorflow, quiet

__all__ = ["graph_function", "open_savedmodel", "tensor_specs", "traced_function"]


def open_savedmodel(content: bytes, signature: Signature, *, threads: int, precision: str = "float32") -> Runner:
    """A runner over a frozen graph (`visionkit.runtime.convert.freeze`).

    `threads` is not ours to set: TensorFlow's pool belongs to the whole process and is sized before its first use.
    """
    del threads
    with quiet():
        return GraphRunner(graph_function(content, signature), signature, precision=precision)


class GraphRunner(Runner):
    """Calls a concrete function; `.numpy()` copies, so the outputs are the caller's own."""

    def __init__(self, function: Any, signature: Signature, *, precision: str) -> None:
        super().__init__("savedmodel", signature, threads=tensorflow_threads(), precision=precision)
        self._function = function
        self._constant = import_tensorflow().constant
        self._input_keys, self._output_keys = signature.input_keys, signature.output_keys

    def _run(self, feed: list[Array]) -> Sequence[Array]:
        tensors = {key: self._constant(array) for key, array in zip(self._input_keys, feed, strict=True)}
        results = self._function(**tensors)
        return [results[key].numpy() for key in self._output_keys]

    def _release(self) -> None:
        self._function = None


def graph_function(content: bytes, signature: Signature) -> Any:
    """A concrete function (input_0=, …) -> {output_0: …} over a frozen graph."""
    tf = import_tensorflow()
    graph = tf.compat.v1.GraphDef.FromString(content)
    names = [f"{key}:0" for key in signature.output_keys]

    def call(**inputs: Any) -> dict[str, Any]:
        tensors = {f"{key}:0": tensor for key, tensor in inputs.items()}
        results = tf.graph_util.import_graph_def(graph, input_map=tensors, return_elements=names, name="")
        return dict(zip(signature.output_keys, results, strict=True))

    return traced_function(call, **tensor_specs(signature))


def traced_function(call: Any, *specs: Any, jit_compile: bool | None = None, **named: Any) -> Any:
    """`call` as a concrete function of tensors of these specifications.

    AutoGraph, which rewrites Python's own conditions on tensors, takes a quarter of an export's time: it has its turn
    only where a layer has such conditions.
    """
    tf = import_tensorflow()
    try:
        return tf.function(call, jit_compile=jit_compile, autograph=False).get_concrete_function(*specs, **named)
    except tf.errors.OperatorNotAllowedInGraphError:
        return tf.function(call, jit_compile=jit_compile).get_concrete_function(*specs, **named)


def tensor_specs(signature: Signature) -> dict[str, Any]:
    tf = import_tensorflow()
    pairs = zip(signature.input_keys, signature.inputs, strict=True)
    return {key: tf.TensorSpec(spec.shape, spec.dtype, name=key) for key, spec in pairs}


def tensorflow_threads() -> int:
    """The size of TensorFlow's pool: what was configured, else one thread a core."""
    from visionkit.runtime.machine import default_threads

    return import_tensorflow().config.threading.get_intra_op_parallelism_threads() or default_threads()
