"""What can be compiled: a Keras model, a SavedModel, an ONNX file. Each gives files for runtimes, and a reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from visionkit.errors import ModelError
from visionkit.runtime.base import Array, Runner, Signature, TensorSpec
from visionkit.runtime.quiet import import_keras, import_tensorflow, quiet

if TYPE_CHECKING:
    import keras

__all__ = ["KerasProgram", "OnnxProgram", "Program", "SavedModelProgram"]


class Program(Protocol):
    """A network that has not been given to a runtime yet."""

    signature: Signature | None  # None: the file's own names, no conversion
    label: str  # how errors call it

    def artifact(self, suffix: str, precision: str) -> bytes:
        """The content of the file that runtimes of this suffix open; ModelError where there is none."""

    def live(self, threads: int) -> Runner:
        """The network run by Keras itself; ModelError where there is none."""

    def reference(self, probe: Mapping[str, Array], threads: int) -> dict[str, Array] | None:
        """What the network really answers; None where nothing but the runtimes can tell."""


class Graph:
    """A network's files, each made once: most of them from its frozen graph.

    Args:
        call: tensors in, tensors out.
        signature: of them.
        variables: what `call` reads, where it is known: a `.tflite` is then made without the frozen graph.
    """

    def __init__(
        self,
        call: Callable[[list[Any]], list[Any]],
        signature: Signature,
        variables: Callable[[], list[Any]] | None = None,
    ) -> None:
        self._call, self._signature, self._variables = call, signature, variables
        self._files: dict[tuple[str, str], bytes] = {}

    def artifact(self, suffix: str, precision: str) -> bytes:
        # What opens an `.onnx` or a graph chooses the precision itself: one file serves all.
        key = (suffix, precision if suffix == ".tflite" else "float32")
        if key not in self._files:
            self._files[key] = self._make(*key)
        return self._files[key]

    def _make(self, suffix: str, precision: str) -> bytes:
        from visionkit.runtime.convert import convert_call, convert_graph, freeze

        if suffix == ".tflite" and self._variables is not None:
            return convert_call(self._call, self._variables(), self._signature, precision)
        frozen = (".pb", "float32")
        if frozen not in self._files:
            self._files[frozen] = freeze(self._call, self._signature)
        return convert_graph(self._files[frozen], self._signature, suffix, precision)


class KerasProgram:
    """A built Keras model with one batch size."""

    def __init__(self, model: keras.Model, batch: int) -> None:
        from visionkit.runtime.keras_net import ordered_call, signature_of

        self._model, self._batch = model, batch
        self.label = f"the network {model.name!r}"
        self.signature: Signature | None = signature_of(model, batch)
        self._graph = Graph(ordered_call(model), signature_of(model, batch), self._variables)
        self._live: Runner | None = None

    def artifact(self, suffix: str, precision: str) -> bytes:
        backend = import_keras().backend.backend()
        if backend != "tensorflow":
            raise ModelError(
                "conversion-backend", f"conversion needs KERAS_BACKEND=tensorflow; this process runs {backend}"
            )
        return self._graph.artifact(suffix, precision)

    def _variables(self) -> list[Any]:
        """TensorFlow's variables behind Keras's, which the model does not lend to a `tf.Module`."""
        return [variable._value for variable in self._model.variables]

    def live(self, threads: int) -> Runner:
        from visionkit.runtime.keras_net import KerasRunner

        if self._live is None:
            self._live = KerasRunner(self._model, batch=self._batch, threads=threads)
        return self._live

    def reference(self, probe: Mapping[str, Array], threads: int) -> dict[str, Array] | None:
        return self.live(threads)(**probe)


class SavedModelProgram:
    """A signature of a SavedModel with one batch size. Loading it can run code.

    Args:
        path: of the folder.
        batch: in the place of a batch axis that is open.
        signature: its name; None is `serving_default`, or the only one.
    """

    def __init__(self, path: Path, batch: int, signature: str | None = None) -> None:
        tf = import_tensorflow()
        self.label = repr(str(path))
        try:
            with quiet():
                self._loaded = tf.saved_model.load(str(path))
        except Exception as error:  # whatever the loader meets in a damaged folder
            raise ModelError("model-corrupt", f"{self.label} is not a readable SavedModel: {error}") from error
        function = pick_signature(self._loaded.signatures, path, signature)
        specs = function.structured_input_signature[1]
        inputs = tuple(static_spec(name, spec, batch) for name, spec in specs.items())
        names = list(function.structured_outputs)

        def call(tensors: list[Any]) -> list[Any]:
            results = function(**dict(zip(specs, tensors, strict=True)))
            return [results[name] for name in names]

        with quiet():
            self._call = tf.function(call).get_concrete_function(
                [tf.TensorSpec(spec.shape, spec.dtype) for spec in inputs]
            )
        outputs = tuple(output_spec(n, t) for n, t in zip(names, self._call.structured_outputs, strict=True))
        self.signature: Signature | None = Signature(inputs, outputs)
        self._graph = Graph(call, Signature(inputs, outputs))

    def artifact(self, suffix: str, precision: str) -> bytes:
        return self._graph.artifact(suffix, precision)

    def live(self, threads: int) -> Runner:
        raise ModelError("model-not-keras", "a SavedModel is not a Keras model")

    def reference(self, probe: Mapping[str, Array], threads: int) -> dict[str, Array] | None:
        tf = import_tensorflow()
        results = self._call([tf.constant(array) for array in probe.values()])
        names = [spec.name for spec in self.signature.outputs] if self.signature else []
        return {name: tensor.numpy() for name, tensor in zip(names, results, strict=True)}


class OnnxProgram:
    """An `.onnx` file as it is; the runtimes that open it are compared with each other only in speed."""

    signature: Signature | None = None

    def __init__(self, content: bytes, label: str) -> None:
        self._content, self.label = content, label

    def artifact(self, suffix: str, precision: str) -> bytes:
        if suffix != ".onnx":
            raise ModelError("conversion-unknown", f"an .onnx cannot become a {suffix}")
        return self._content

    def live(self, threads: int) -> Runner:
        raise ModelError("model-not-keras", "an .onnx is not a Keras model")

    def reference(self, probe: Mapping[str, Array], threads: int) -> dict[str, Array] | None:
        return None


def pick_signature(signatures: Mapping[str, Any], path: Path, name: str | None = None) -> Any:
    wanted = name or "serving_default"
    if wanted in signatures:
        return signatures[wanted]
    if name is None and len(signatures) == 1:
        return next(iter(signatures.values()))
    raise ModelError("model-signature", f"{str(path)!r} has the signatures {sorted(signatures)}, no {wanted}")


def static_spec(name: str, spec: Any, batch: int) -> TensorSpec:
    if spec.shape.rank is None or None in spec.shape[1:].as_list():
        raise ModelError("model-shape", f"input {name!r} is {spec.shape}; every size but the batch must be fixed")
    sizes = spec.shape.as_list()
    first = [batch if sizes[0] is None else sizes[0]] if sizes else []
    return TensorSpec(name, (*first, *sizes[1:]), array_dtype(name, spec.dtype))


def output_spec(name: str, tensor: Any) -> TensorSpec:
    shape = tensor.shape.as_list() if tensor.shape.rank is not None else []
    return TensorSpec(name, tuple(shape), array_dtype(name, tensor.dtype))


def array_dtype(name: str, dtype: Any) -> np.dtype[Any]:
    if dtype.as_numpy_dtype is object:
        raise ModelError("model-unsupported", f"{name!r} is of type {dtype.name}, not an array of numbers")
    return np.dtype(dtype.as_numpy_dtype)
