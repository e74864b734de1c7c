"""Keras models: their signature, the quickest call of their backend, and a digest that names them."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from visionkit.errors import ModelError
from visionkit.runtime.base import Array, Runner, Signature, TensorSpec
from visionkit.runtime.quiet import import_keras, quiet

if TYPE_CHECKING:
    import keras

__all__ = ["KerasRunner", "has_gpu", "model_digest", "ordered_call", "signature_of"]


def functional(model: keras.Model) -> keras.Model:
    """The model with the structure of its inputs and outputs: a Sequential is seen through its functional twin."""
    keras = import_keras()
    if not getattr(model, "inputs", None):
        raise ModelError(
            "model-not-functional",
            f"{model.name} has no symbolic inputs; build it with keras.Input (functional or Sequential)",
        )
    if hasattr(model, "_inputs_struct"):
        return model
    outputs = model.outputs
    return keras.Model(model.inputs, outputs[0] if len(outputs) == 1 else outputs, name=model.name)


def signature_of(model: keras.Model, batch: int) -> Signature:
    """Inputs by the names of their `keras.Input`; outputs by dict key, else by the layer that makes them.

    Raises:
        ModelError: `model-shape`, where a size other than the batch is open.
    """
    keras = import_keras()
    model = functional(model)
    inputs = tuple(input_spec(tensor, batch) for tensor in model.inputs)
    symbols = [keras.KerasTensor(spec.shape, dtype=spec.dtype.name, name=spec.name) for spec in inputs]
    outputs = model.compute_output_spec(keras.tree.pack_sequence_as(model.input, symbols))
    names = unique([output_name(path, tensor) for path, tensor in keras.tree.flatten_with_path(model.output)])
    specs = zip(names, keras.tree.flatten(outputs), strict=True)
    return Signature(inputs, tuple(TensorSpec(name, tuple(spec.shape), np.dtype(spec.dtype)) for name, spec in specs))


def input_spec(tensor: Any, batch: int) -> TensorSpec:
    sizes = tuple(tensor.shape[1:])
    if None in sizes:
        raise ModelError(
            "model-shape",
            f"input {tensor.name!r} is {tuple(tensor.shape)}; every size but the batch must be fixed to compile it",
        )
    first = batch if tensor.shape[0] is None else int(tensor.shape[0])
    return TensorSpec(tensor.name, (first, *(int(size) for size in sizes)), np.dtype(tensor.dtype))


def output_name(path: tuple[Any, ...], tensor: Any) -> str:
    keys = [part for part in path if isinstance(part, str)]
    return "/".join(keys) if keys else str(tensor._keras_history.operation.name)


def unique(names: list[str]) -> list[str]:
    """The names, a second `x` called `x_1`, a third `x_2`."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        count = seen.get(name, 0)
        seen[name] = count + 1
        result.append(f"{name}_{count}" if count else name)
    return result


def ordered_call(model: keras.Model) -> Callable[[list[Any]], list[Any]]:
    """Inference as a function of the list of inputs, in order, to the list of outputs, in order."""
    keras = import_keras()
    model = functional(model)

    def call(tensors: list[Any]) -> list[Any]:
        outputs = model(keras.tree.pack_sequence_as(model.input, tensors), training=False)
        return list(keras.tree.flatten(outputs))

    return call


class KerasRunner(Runner):
    """The Keras model itself, traced once for one static shape and compiled where the backend gains by it."""

    def __init__(self, model: keras.Model, *, batch: int = 1, threads: int) -> None:
        signature = signature_of(model, batch)
        backend = import_keras().backend.backend()
        if backend == "tensorflow":
            from visionkit.runtime.tensorflow_runtime import tensorflow_threads

            threads = tensorflow_threads()
        super().__init__("keras", signature, threads=threads)
        makers = {"tensorflow": tensorflow_call, "jax": jax_call, "torch": torch_call}
        if backend not in makers:
            raise ModelError("backend-unknown", f"the Keras backend {backend!r} has no runner; use one of {[*makers]}")
        with quiet():
            self._call: Callable[[list[Array]], Sequence[Array]] | None = makers[backend](model, signature)

    def _run(self, feed: list[Array]) -> Sequence[Array]:
        if self._call is None:
            raise ValueError("this keras runner is closed.")
        return self._call(feed)

    def _release(self) -> None:
        self._call = None


def tensorflow_call(model: keras.Model, signature: Signature) -> Callable[[list[Array]], Sequence[Array]]:
    """A `tf.function` for one signature; XLA on a GPU only (on a CPU depthwise convolutions get ten times slower)."""
    import tensorflow as tf

    from visionkit.runtime.tensorflow_runtime import traced_function

    call = ordered_call(model)
    specs = [tf.TensorSpec(spec.shape, spec.dtype) for spec in signature.inputs]
    function = traced_function(lambda *tensors: call(list(tensors)), *specs, jit_compile=has_gpu())

    def run(feed: list[Array]) -> Sequence[Array]:
        return [tensor.numpy() for tensor in function(*[tf.constant(array) for array in feed])]

    return run


def jax_call(model: keras.Model, signature: Signature) -> Callable[[list[Array]], Sequence[Array]]:
    """`jax.jit` over the stateless call; the weights are passed in, so that they are not compiled in as constants."""
    import jax

    keras = import_keras()
    model = functional(model)
    state = [
        [variable.value for variable in group] for group in (model.trainable_variables, model.non_trainable_variables)
    ]

    @jax.jit
    def function(trainable: list[Any], fixed: list[Any], tensors: list[Any]) -> list[Any]:
        structure = keras.tree.pack_sequence_as(model.input, tensors)
        outputs, _ = model.stateless_call(trainable, fixed, structure, training=False)
        return list(keras.tree.flatten(outputs))

    def run(feed: list[Array]) -> Sequence[Array]:
        return [np.array(tensor) for tensor in function(*state, feed)]

    return run


def torch_call(model: keras.Model, signature: Signature) -> Callable[[list[Array]], Sequence[Array]]:
    """An eager call in torch's inference mode."""
    import torch

    keras = import_keras()
    call = ordered_call(model)

    def run(feed: list[Array]) -> Sequence[Array]:
        with torch.inference_mode():
            return [
                np.array(keras.ops.convert_to_numpy(t)) for t in call([keras.ops.convert_to_tensor(a) for a in feed])
            ]

    return run


def has_gpu() -> bool:
    """Whether the Keras backend sees a GPU."""
    backend = import_keras().backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    if backend == "jax":
        import jax

        return jax.default_backend() == "gpu"
    if backend == "torch":
        import torch

        return torch.cuda.is_available()
    return False


def model_digest(model: keras.Model, weights_digest: str | None = None) -> str | None:
    """sha256 over architecture, the source of layers that are not Keras's own, and weights; None if it has no config.

    Args:
        model: a built model.
        weights_digest: a digest of the weights that is already known; saves hashing them.
    """
    keras = import_keras()
    try:
        facts = {**keras.saving.serialize_keras_object(model)["config"], "name": ""}  # counted up with each model built
        config = json.dumps(facts, sort_keys=True, default=str)
    except Exception:  # a layer without get_config: the model cannot be named, so it is not cached
        return None
    digest = hashlib.sha256(config.encode())
    for path in sorted(source_files(model)):
        digest.update(Path(path).read_bytes())
    if weights_digest is not None:
        digest.update(weights_digest.encode())
        return digest.hexdigest()
    for variable in model.variables:
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def source_files(model: keras.Model) -> set[str]:
    """Files of the layers' classes outside Keras: the same config means something else once their code changes."""
    layers = model._flatten_layers() if hasattr(model, "_flatten_layers") else model.layers
    kinds = {type(layer) for layer in layers}
    files = set()
    for kind in kinds:
        if not kind.__module__.startswith(("keras.", "builtins")):
            try:
                files.add(inspect.getfile(kind))
            except (TypeError, OSError):
                continue
    return {path for path in files if Path(path).is_file()}
