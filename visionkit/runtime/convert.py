"""The one module with TensorFlow's converters: a network becomes a frozen graph, and that a `.tflite` or an `.onnx`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from visionkit.errors import ModelError
from visionkit.runtime.base import Signature
from visionkit.runtime.quiet import import_tensorflow, quiet
from visionkit.runtime.tensorflow_runtime import graph_function, tensor_specs

__all__ = ["convert_call", "convert_graph", "freeze"]

OPSET = 18


def freeze(call: Callable[[list[Any]], Sequence[Any]], signature: Signature) -> bytes:
    """`call` (tensors in, tensors out, in the signature's order) as a GraphDef with its weights as constants.

    The graph's placeholders are `input_0` …, its results `output_0` …; shapes are static.
    """
    tf = import_tensorflow()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    def serve(**inputs: Any) -> list[Any]:
        return list(call([inputs[key] for key in signature.input_keys]))

    with quiet():
        concrete = tf.function(serve).get_concrete_function(**tensor_specs(signature))
        frozen = convert_variables_to_constants_v2(concrete)
        graph = frozen.graph.as_graph_def()
        for key, tensor in zip(signature.output_keys, frozen.outputs, strict=True):
            node = graph.node.add(name=key, op="Identity", input=[tensor.name])
            node.attr["T"].type = tensor.dtype.as_datatype_enum
        return graph.SerializeToString()


def convert_graph(graph: bytes, signature: Signature, suffix: str, precision: str = "float32") -> bytes:
    """The frozen graph as the bytes of a file of this suffix: `.pb`, `.tflite` or `.onnx`.

    `float16` stores a `.tflite`'s weights in half the bytes; the other files are the same for every precision, since
    their runtimes choose it when they open them.

    Raises:
        ModelError: `conversion-failed`, with the converter's reason.
    """
    try:
        return CONVERTERS[suffix](graph, signature, precision)
    except Exception as error:  # converters raise whatever they like
        raise failure(suffix, error) from error


def convert_call(
    call: Callable[[list[Any]], Sequence[Any]], variables: Sequence[Any], signature: Signature, precision: str
) -> bytes:
    """`call` over `variables` (TensorFlow's) as the bytes of a `.tflite`.

    By way of a SavedModel, whose variables the converter reads itself: constants in a graph are copied at every step.
    AlexNet (244 MB): 2.3 GB and 27 s at their peak, against 8.5 GB and 126 s from a frozen graph.

    Raises:
        ModelError: `conversion-failed`, with the converter's reason.
    """
    tf = import_tensorflow()

    def serve(**inputs: Any) -> dict[str, Any]:
        results = call([inputs[key] for key in signature.input_keys])
        # a tensor may be given back twice, or as it came
        return {key: tf.identity(tensor) for key, tensor in zip(signature.output_keys, results, strict=True)}

    try:
        with quiet(), tempfile.TemporaryDirectory(prefix="visionkit-") as folder:
            module = tf.Module()
            module.kept = list(variables)
            module.serve = tf.function(serve).get_concrete_function(**tensor_specs(signature))
            tf.saved_model.save(module, folder, signatures={"serving_default": module.serve})
            return converted(tf.lite.TFLiteConverter.from_saved_model(folder), precision)
    except Exception as error:  # converters raise whatever they like
        raise failure(".tflite", error) from error


def to_tflite(graph: bytes, signature: Signature, precision: str) -> bytes:
    tf = import_tensorflow()
    with quiet():
        module = tf.Module()  # without an owner the converter drops the signature
        module.serve = graph_function(graph, signature)
        return converted(tf.lite.TFLiteConverter.from_concrete_functions([module.serve], module), precision)


def converted(converter: Any, precision: str) -> bytes:
    if precision == "float16":
        tf = import_tensorflow()
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    return bytes(converter.convert())


def failure(suffix: str, error: Exception) -> ModelError:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return ModelError("conversion-failed", f"no {suffix} from this network: {reason[0]}")


def to_onnx(graph: bytes, signature: Signature, precision: str) -> bytes:
    tf = import_tensorflow()
    with quiet():
        import tf2onnx

        model, _ = tf2onnx.convert.from_graph_def(
            tf.compat.v1.GraphDef.FromString(graph),
            input_names=[f"{key}:0" for key in signature.input_keys],
            output_names=[f"{key}:0" for key in signature.output_keys],
            opset=OPSET,
        )
    for value in (*model.graph.input, *model.graph.output):
        rename(model.graph, value.name, value.name.removesuffix(":0"))
    return model.SerializeToString()


def rename(graph: Any, old: str, new: str) -> None:
    """Renames a tensor of an ONNX graph wherever it stands."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.name == old:
            value.name = new
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]


def to_graph(graph: bytes, signature: Signature, precision: str) -> bytes:
    return graph


CONVERTERS: dict[str, Callable[[bytes, Signature, str], bytes]] = {
    ".pb": to_graph,
    ".tflite": to_tflite,
    ".onnx": to_onnx,
}
