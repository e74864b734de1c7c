"""The graph of a Keras network, node by node, as Keras itself runs it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from visionkit.errors import ModelError

__all__ = ["functional_of", "given_to", "is_network", "name_of", "nodes_of", "parameters_of", "trainable_parameters"]


def functional_of(model: keras.Model) -> Any:
    """The functional graph of a model; a Sequential holds one once it is built.

    Raises:
        ModelError: `model-graph`; the model is written as a subclass, and its graph is in its code alone.
    """
    inner = getattr(model, "_functional", model)
    if inner is not None and hasattr(inner, "_nodes_by_depth"):
        return inner
    raise ModelError(
        "model-graph",
        f"The model {model.name!r} ({type(model).__name__}) has no graph to walk: it was not built, or its layers are "
        "called in code of its own. Make it a functional model, or export it and inspect the .tflite or SavedModel.",
    )


def is_network(operation: Any) -> bool:
    """Whether a node's operation is a network with a graph of its own."""
    inner = getattr(operation, "_functional", operation)
    return inner is not None and hasattr(inner, "_nodes_by_depth")


def nodes_of(functional: Any) -> Iterator[Any]:
    """The nodes of a graph in the order in which Keras runs them, inputs left out."""
    for depth in sorted(functional._nodes_by_depth, reverse=True):
        for node in functional._nodes_by_depth[depth]:
            if node.operation and not node.is_input:
                yield node


def given_to(node: Any, inner: Any) -> list[Any]:
    """The tensors that a node gives to a nested graph, in the order of its inputs."""
    struct = node.arguments.args[0] if node.arguments.args else None
    if isinstance(struct, Mapping) and not isinstance(inner._inputs_struct, Mapping):
        return [struct[name_of(tensor._keras_history.operation)] for tensor in inner.inputs]
    return list(node.input_tensors)


def name_of(operation: Any) -> str:
    """The layer's or operation's name."""
    return str(operation.name)


def parameters_of(operation: Any) -> int:
    """How many numbers the layer's variables hold; a raw operation has none."""
    return sum(math.prod(weight.shape) for weight in getattr(operation, "weights", []))


def trainable_parameters(operation: Any) -> int:
    """How many of them training changes."""
    return sum(math.prod(weight.shape) for weight in getattr(operation, "trainable_weights", []))
