"""A Keras network run layer by layer, so that what lies inside can be watched or replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from visionkit.inspection.walk import functional_of, given_to, is_network, name_of, nodes_of

__all__ = ["Watch", "run"]

# Gets the row's name (`branch/conv1`), the layer, and its outputs; gives the outputs to go on with.
Watch = Callable[[str, Any, list[Any]], list[Any]]


def run(model: keras.Model, inputs: Sequence[Any], watch: Watch | None = None) -> Any:
    """The outputs of `model` in inference, in the structure the model gives them.

    Args:
        model: a functional or a built sequential model.
        inputs: tensors or arrays (B, ...) in the order of `model.inputs`.
        watch: sees the outputs of every layer, inside nested models too, and may put others in their place.
    """
    functional = functional_of(model)
    tensors = [keras.ops.convert_to_tensor(value) for value in inputs]
    outputs = _through(functional, tensors, watch, "")
    return keras.tree.pack_sequence_as(functional._outputs_struct, outputs)


def _through(functional: Any, inputs: Sequence[Any], watch: Watch | None, prefix: str) -> list[Any]:
    values = {id(tensor): value for tensor, value in zip(functional.inputs, inputs, strict=True)}
    for node in nodes_of(functional):
        if any(id(tensor) not in values for tensor in node.input_tensors):
            continue  # belongs to another model over the same layers
        args, kwargs = node.arguments.fill_in(values)
        operation, name = node.operation, f"{prefix}{name_of(node.operation)}"
        if is_network(operation):
            inner = functional_of(operation)
            made = _through(inner, [values[id(tensor)] for tensor in given_to(node, inner)], watch, f"{name}/")
        else:
            if "training" in getattr(operation, "_call_context_args", {}):
                kwargs["training"] = False
            made = keras.tree.flatten(operation(*args, **kwargs))
        if watch is not None:
            made = watch(name, operation, made)
        values |= {id(tensor): value for tensor, value in zip(node.outputs, made, strict=True)}
    return [values[id(tensor)] for tensor in functional.outputs]
