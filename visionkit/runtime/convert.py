"""The one module with TensorFlow's converters: a network becomes a frozen graph, and that a `.tflite` or an `.onnx`."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from visionkit.errors import ModelError
from visionkit.runtime.base import Signature, TensorSpec
from visionkit.runtime.quiet import import_tensorflow, quiet
from visionkit.runtime.tensorflow_runtime import graph_function, tensor_specs, traced_function

__all__ = [
    "NamedCall",
    "convert_call",
    "convert_graph",
    "convert_named_onnx",
    "convert_saved_model",
    "first_name",
    "freeze",
    "select_operations",
    "write_openvino",
    "write_saved_model",
]

OPSET = 18
DEFAULT = "serving_default"
MAX_TOLD = 4


@dataclass(frozen=True)
class NamedCall:
    """A signature of an exported model: tensors by name in, tensors by name out.

    Args:
        call: (**tensors) -> dict of tensors.
        inputs: of each, in order, its specification; None in a shape stays open.
    """

    call: Callable[..., Mapping[str, Any]]
    inputs: tuple[TensorSpec, ...]

    def traced(self) -> Any:
        """The concrete function."""
        tf = import_tensorflow()

        def serve(**tensors: Any) -> dict[str, Any]:
            # A tensor may be given back twice, or as it came.
            return {name: tf.identity(tensor) for name, tensor in self.call(**tensors).items()}

        specs = {spec.name: tf.TensorSpec(spec.shape, spec.dtype, name=spec.name) for spec in self.inputs}
        return traced_function(serve, **specs)

    def with_batch(self, batch: int) -> NamedCall:
        """The same of a fixed number, where that is open."""
        first = (replace(spec, shape=(batch, *spec.shape[1:])) for spec in self.inputs)
        inputs = tuple(new if spec.shape[:1] == (None,) else spec for new, spec in zip(first, self.inputs, strict=True))
        return NamedCall(self.call, inputs)


def write_saved_model(folder: str | Path, functions: Mapping[str, Any], variables: Iterable[Any]) -> None:
    """Write traced functions, as signatures of their names, and the variables they read, into a folder."""
    tf = import_tensorflow()
    with quiet():
        module = tf.Module()  # owns the variables, without which they would not be saved
        module.kept = list(variables)
        module.traced = list(functions.values())
        tf.saved_model.save(module, str(folder), signatures=dict(functions))


def convert_saved_model(
    folder: str | Path,
    names: Sequence[str],
    *,
    select_tf_ops: bool = False,
    quantized: bool = False,
    layers: Iterable[str] = (),
) -> bytes:
    """The signatures of a SavedModel as the bytes of one `.tflite`, in which they share their weights.

    `serving_default` is its first graph, which runs where nobody asks for a signature: the converter orders them by
    name, so it is called otherwise until the file is there.

    Args:
        folder: the SavedModel, in which `serving_default` is called `first_name`.
        names: of the signatures.
        select_tf_ops: take TensorFlow's own operations where there is no builtin one.
        quantized: in eight bits whatever lies between the graph's own roundings (`fake_quant_with_min_max_args`).
        layers: names that may stand in an operation's scope, for the error.

    Raises:
        ModelError: `export-builtins`, naming operations and layers; `conversion-failed`.
    """
    tf = import_tensorflow()
    try:
        with quiet():
            keys = [first_name(name) for name in names]
            converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=keys)
            if quantized:
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if select_tf_ops:
                converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
            content = bytes(converter.convert())
    except Exception as error:  # converters raise whatever they like
        if told := lacking(error, layers):
            raise ModelError(
                "export-builtins",
                f"no builtin operation of LiteRT does what {told}; allow_select_tf_ops=True (--allow-select-tf-ops) "
                "takes TensorFlow's own, which run only where its kernels are linked in",
            ) from error
        raise failure(".tflite", error) from error
    return content.replace(pascal(first_name(DEFAULT)), pascal(DEFAULT))


def select_operations(content: bytes) -> list[str]:
    """TensorFlow's own operations in a `.tflite`, which only an interpreter with their kernels runs."""
    return sorted({name.decode() for name in re.findall(rb"\x00(Flex[A-Z][A-Za-z0-9]+)\x00", content)})


def first_name(name: str) -> str:
    """What a signature is called while it is converted, as long as its own name."""
    return "0" + name[1:] if name == DEFAULT else name


def pascal(text: str) -> bytes:
    """A string as it lies in a flatbuffer."""
    return len(text).to_bytes(4, "little") + text.encode()


def lacking(error: Exception, layers: Iterable[str]) -> str:
    """The operations without a builtin, each with the layer it stands in; empty for another error."""
    known = {scope_name(layer): layer for layer in layers}
    found: dict[str, None] = {}
    for entry in getattr(error, "errors", ()):
        name = entry.operator.name.removeprefix("tf.")
        if not name or "NEEDS" not in entry.ErrorCode.Name(entry.error_code):
            continue
        scope = next((call.name.partition("@")[0] for call in entry.location.call if "/" in call.name), "")
        steps = [re.sub(r"_\d+$", "", step) for step in scope.split("/")] + scope.split("/")
        layer = next((known[step] for step in steps if step in known), None)
        where = f"in layer {layer!r}" if layer else f"at {scope}" if scope else "around the network"
        found[f"{name} {where} does"] = None
    rest = len(found) - MAX_TOLD
    return ", ".join([*list(found)[:MAX_TOLD], *([f"and {rest} more do"] if rest > 0 else [])])


def scope_name(layer: str) -> str:
    """A layer's name as TensorFlow writes it into a graph."""
    return re.sub(r"[^A-Za-z0-9_.\\/>-]", "_", layer)


def write_openvino(content: bytes, path: Path) -> None:
    """The bytes of an `.onnx` as OpenVINO's `.xml`, with its `.bin` beside.

    Raises:
        ModelError: `conversion-failed`.
    """
    with quiet():
        import openvino

        try:
            model = openvino.Core().read_model(io.BytesIO(content))
            openvino.save_model(model, path, compress_to_fp16=False)
        except RuntimeError as error:
            raise failure(path.suffix, error) from error


def convert_named_onnx(call: NamedCall) -> bytes:
    """A call of static shapes as the bytes of an `.onnx`, whose inputs and outputs keep their names.

    Raises:
        ModelError: `conversion-failed`.
    """
    try:
        with quiet():
            traced = call.traced()
        outputs = tuple(
            TensorSpec(name, tuple(tensor.shape), np.dtype(tensor.dtype.as_numpy_dtype))
            for name, tensor in traced.structured_outputs.items()
        )
        signature = Signature(call.inputs, outputs)

        def ordered(tensors: list[Any]) -> list[Any]:
            found = call.call(**{spec.name: tensor for spec, tensor in zip(call.inputs, tensors, strict=True)})
            return [found[spec.name] for spec in outputs]

        content = to_onnx(freeze(ordered, signature, lower=False), signature, "float32")
        with quiet():
            import onnx

            model = onnx.load_from_string(content)
            for key, spec in zip(
                (*signature.input_keys, *signature.output_keys), (*call.inputs, *outputs), strict=True
            ):
                rename(model.graph, key, spec.name)
            return bytes(model.SerializeToString())
    except Exception as error:  # converters raise whatever they like
        raise failure(".onnx", error) from error


def freeze(call: Callable[[list[Any]], Sequence[Any]], signature: Signature, *, lower: bool = True) -> bytes:
    """`call` (tensors in, tensors out, in the signature's order) as a GraphDef with its weights as constants.

    The graph's placeholders are `input_0` …, its results `output_0` …; shapes are static. With `lower`, loops become
    TensorFlow 1's switches and merges, which tf2onnx cannot read.
    """
    import_tensorflow()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    def serve(**inputs: Any) -> list[Any]:
        return list(call([inputs[key] for key in signature.input_keys]))

    with quiet():
        concrete = traced_function(serve, **tensor_specs(signature))
        frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=lower)
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
            module.serve = traced_function(serve, **tensor_specs(signature))
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
