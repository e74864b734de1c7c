"""A network's twin in tf_keras: the same layers under the same names, with the same weights, and the way back.

For tensorflow-model-optimization, which does not know Keras 3 (`tfmot_bridge`).
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.compress.graph import Part, Value, read_graph
from visionkit.compress.tfmot_modules import load_tfmot
from visionkit.errors import ModelError
from visionkit.runtime.quiet import import_keras, import_tensorflow, quiet

if TYPE_CHECKING:
    import keras

__all__ = ["bring_back", "cloned", "copied", "own_functions", "train_twin", "twin_of"]

Batch = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]

# tf_keras has another function under the first name, and none under the others
ACTIVATIONS = {
    "hard_sigmoid": "visionkit_hard_sigmoid",
    "hard_silu": "visionkit_hard_silu",
    "hard_swish": "visionkit_hard_silu",
}
SAME = 1e-4  # of the largest answer
LEFT_OUT = re.compile(r".*_(initializer|regularizer|constraint)$|dtype|synchronized")
SHORT = {"depthwise_kernel": "kernel"}  # what a variable is called in Keras 3


def twin_of(model: keras.Model) -> Any:
    """The same network in tf_keras: layers of the same class, name and weights; `model` stays as it is.

    Raises:
        ModelError: `twin-impossible`; a layer that tf_keras does not have, or an operation that is no layer.
    """
    _, tf_keras = load_tfmot()
    graph = read_graph(model)
    tensors: dict[Any, Any] = {}
    for value, source in zip(graph.inputs, graph.sources, strict=True):
        tensors[value] = tf_keras.Input(batch_shape=tuple(source.shape), dtype=source.dtype, name=source.name)
    inputs = list(tensors.values())
    layers: dict[int, Any] = {}
    keras = import_keras()
    with quiet():
        for step in graph.steps:
            if id(step.part) not in layers:
                layers[id(step.part)] = _twin_layer(tf_keras, step.part)
            given = keras.tree.map_structure(functools.partial(_tensor, tensors), step.args)
            told = {name: value for name, value in step.kwargs.items() if value is not None and name != "training"}
            tensors |= zip(step.outputs, keras.tree.flatten(layers[id(step.part)](*given, **told)), strict=True)
        for step in graph.steps:
            if step.part.weights:
                layers[id(step.part)].set_weights(step.part.weights)
        outputs = keras.tree.map_structure(tensors.__getitem__, graph.outputs)
        twin = tf_keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs, name=model.name)
    _check_same(model, twin)
    return twin


def bring_back(twin: Any, model: keras.Model) -> None:
    """Put the twin's weights into the network that it was made of, by the names of layers and variables.

    Raises:
        ModelError: `twin-differs`; a variable of the network has none in the twin, or one of another shape.
    """
    there = dict(_variables(twin))
    found: list[tuple[Any, npt.NDArray[Any]]] = []
    wrong = []
    for layer in model._flatten_layers(include_self=False, recursive=True):
        for variable in layer._trainable_variables + layer._non_trainable_variables:
            if variable.dtype not in ("float32", "float16", "float64") or "seed" in variable.name:
                continue
            value = there.get((layer.name, variable.name))
            if value is None or value.shape != tuple(variable.shape):
                wrong.append(f"{layer.name}/{variable.name}")
            else:
                found.append((variable, value))
    if wrong:
        raise ModelError("twin-differs", f"{len(wrong)} variables have no twin of their shape: {', '.join(wrong[:5])}")
    for variable, value in found:
        variable.assign(value)


def train_twin(
    twin: Any,
    batches: Iterator[Batch],
    *,
    epochs: int,
    steps_per_epoch: int,
    learning_rate: float,
    callbacks: Sequence[Any] = (),
    report: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Train a twin to classify: logits against one-hot classes, by Adam with a rate that falls as a cosine.

    Args:
        batches: endless: images float32 (B, H, W, 3), classes one-hot float32 (B, L).
        report: is given a row of numbers after each epoch.

    Raises:
        ModelError: `training-diverged`.
    """
    _, tf_keras = load_tfmot()
    rate = tf_keras.optimizers.schedules.CosineDecay(learning_rate, epochs * steps_per_epoch, alpha=0.02)
    loss = tf_keras.losses.CategoricalCrossentropy(from_logits=True)
    twin.compile(tf_keras.optimizers.Adam(rate, clipnorm=5.0), loss, metrics=["accuracy"], jit_compile=False)
    with quiet():
        for epoch in range(epochs):
            # `fit` wants to draw from a generator that it may close
            rows = ((x, y) for x, y in batches)
            history = twin.fit(
                rows,
                steps_per_epoch=steps_per_epoch,
                initial_epoch=epoch,
                epochs=epoch + 1,
                callbacks=list(callbacks),
                verbose=0,
            ).history
            row = {"epoch": epoch + 1, **{name: round(float(values[-1]), 6) for name, values in history.items()}}
            if not np.isfinite(row["loss"]):
                raise ModelError("training-diverged", f"The loss became {row['loss']}; train with a lower rate.")
            if report is not None:
                report(row)


def cloned(tf_keras: Any, model: Any, clone_function: Any = None) -> Any:
    """The layers again, changed by `clone_function`, where activations of ours are known."""
    with tf_keras.utils.custom_object_scope(own_functions()):
        return tf_keras.models.clone_model(model, clone_function=clone_function)


def copied(tf_keras: Any, twin: Any) -> Any:
    """A copy of the twin, of layers of its own: what wraps layers takes these very ones."""
    copy = cloned(tf_keras, twin)
    copy.set_weights(twin.get_weights())
    return copy


@functools.cache
def own_functions() -> dict[str, Any]:
    """Activations as Keras 3 computes them, by the names that tf_keras is to know them by."""
    tf = import_tensorflow()

    def visionkit_hard_sigmoid(x: Any) -> Any:
        return tf.nn.relu6(x + 3.0) * (1.0 / 6.0)

    def visionkit_hard_silu(x: Any) -> Any:
        return x * tf.nn.relu6(x + 3.0) * (1.0 / 6.0)

    return {function.__name__: function for function in (visionkit_hard_sigmoid, visionkit_hard_silu)}


def _tensor(tensors: Mapping[Value, Any], leaf: Any) -> Any:
    return tensors[leaf] if isinstance(leaf, Value) else leaf


def _twin_layer(tf_keras: Any, part: Part) -> Any:
    name = part.kind.__name__
    cls = getattr(tf_keras.layers, name, None)
    if cls is None or not part.config or not part.kind.__module__.startswith("keras."):
        raise ModelError(
            "twin-impossible",
            f"{part.name} ({name}) has no counterpart in tf_keras, which this way of compressing goes through",
        )
    known = {"name", "trainable"}
    for base in cls.__mro__:
        if "__init__" in vars(base):
            known |= set(inspect.signature(base.__init__).parameters)
    config = {key: _plain(value) for key, value in part.config.items() if key in known and not LEFT_OUT.match(key)}
    if config.get("activation") in ACTIVATIONS:
        config["activation"] = own_functions()[ACTIVATIONS[config["activation"]]]
    try:
        return cls.from_config(config)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError("twin-impossible", f"{part.name} ({name}) cannot be made in tf_keras: {reason}") from error


def _plain(value: Any) -> Any:
    """A value of a configuration without Keras 3's wrapping; an activation is its name."""
    if isinstance(value, Mapping) and "class_name" in value:
        return value.get("config") if isinstance(value.get("config"), str) else value["class_name"]
    return value


def _check_same(model: keras.Model, twin: Any) -> None:
    """Raises ModelError `twin-differs` where the two do not answer the same to noise."""
    keras = import_keras()
    random = np.random.default_rng(0)
    shapes = [[size or 1 for size in tensor.shape] for tensor in model.inputs]
    noise = [random.standard_normal(shape).astype(np.float32) for shape in shapes]
    given = noise if len(noise) > 1 else noise[0]
    answers = [keras.tree.flatten(one(given, training=False)) for one in (model, twin)]
    for first, second in zip(*answers, strict=True):
        ours, theirs = np.asarray(first), np.asarray(second)
        apart = float(np.abs(ours - theirs).max(initial=0.0))
        if not apart <= SAME * max(1.0, float(np.abs(ours).max(initial=0.0))):
            raise ModelError(
                "twin-differs", f"{model.name} answers {apart:.2g} apart in tf_keras; it is not compressed"
            )


def _variables(twin: Any) -> Iterator[tuple[tuple[str, str], npt.NDArray[Any]]]:
    """By layer and variable as Keras 3 calls them."""
    for layer in twin.layers:
        inner = getattr(layer, "layer", layer)  # of a wrapper
        for variable in layer.weights:
            short = variable.name.split("/")[-1].partition(":")[0]
            yield (inner.name, SHORT.get(short, short)), np.asarray(variable)
