"""`summarize`: the table of a Keras network at any size of its input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras

from visionkit.errors import ModelError, UsageError
from visionkit.geometry.receptive_field import Pair, ReceptiveField
from visionkit.inspection.behaviour import map_of
from visionkit.inspection.effects import Trace
from visionkit.inspection.facts import LayerFacts, Shape, Summary
from visionkit.inspection.keras_rules import behaviour_of
from visionkit.inspection.walk import (
    functional_of,
    given_to,
    is_network,
    name_of,
    nodes_of,
    parameters_of,
    trainable_parameters,
)

__all__ = ["summarize"]

Sizes = Pair | Mapping[str, Pair] | None


class Value(NamedTuple):
    """What is known of one tensor: shape and type, what it sees, and the row that made it."""

    spec: Any
    trace: Trace
    row: str


def summarize(model: keras.Model, size_hw: Sizes = None) -> Summary:
    """One row for each use of a layer: size, parameters, multiply-adds, receptive field, with the sums.

    Nested models are walked through, a layer's parameters are counted where it is used first. Nothing is run.

    Args:
        model: a functional or a built sequential model.
        size_hw: (height, width) of the image to reckon with, or a mapping from an input's name to it; None takes the
            model's own.

    Raises:
        UsageError: `size-needed`; the model leaves its sizes open. `size-unclear`; the sizes name no input of its, or
            one size was given for several images.
        ModelError: `size-unfit`; the network cannot take that size. `model-graph`; there is no graph to walk.
    """
    functional = functional_of(model)
    specs = sized_inputs(functional.inputs, size_hw)
    walk = _Walk()
    outputs = walk.through(functional, [walk.start(name, spec) for name, spec in specs.items()], "")
    return Summary(
        name=model.name,
        inputs={name: _shape(spec) for name, spec in specs.items()},
        outputs={name: _shape(value.spec) for name, value in zip(_output_names(functional), outputs, strict=True)},
        layers=tuple(walk.rows),
        parameters=parameters_of(model),
        trainable=trainable_parameters(model),
        notes=("MACs count multiplications by weights; pooling, normalisation and elementwise layers count 0.",),
    )


class _Walk:
    """The rows found so far, and which layers have been counted."""

    def __init__(self) -> None:
        self.rows: list[LayerFacts] = []
        self._counted: set[int] = set()

    def start(self, name: str, spec: Any) -> Value:
        """The value of an input, and its row; only maps have receptive fields."""
        shape = tuple(spec.shape)
        fields = {name: ReceptiveField()} if len(shape) == 4 else {}
        self.rows.append(LayerFacts(name, "Input", _shape(spec), fields=fields))
        return Value(spec, Trace(fields, map_of(shape)), name)

    def through(self, functional: Any, inputs: Sequence[Value], prefix: str) -> list[Value]:
        """The outputs of a graph for these inputs; every layer on the way gets its row."""
        values = {id(tensor): value for tensor, value in zip(functional.inputs, inputs, strict=True)}
        for node in nodes_of(functional):
            if any(id(tensor) not in values for tensor in node.input_tensors):
                continue  # belongs to another model over the same layers
            given = [values[id(tensor)] for tensor in node.input_tensors]
            if is_network(node.operation):
                inner = functional_of(node.operation)
                inputs_inside = [values[id(tensor)] for tensor in given_to(node, inner)]
                made = self.through(inner, inputs_inside, f"{prefix}{name_of(node.operation)}/")
            else:
                made = self._layer(node, given, _specs(node, values), prefix)
            values |= {id(tensor): value for tensor, value in zip(node.outputs, made, strict=True)}
        return [values[id(tensor)] for tensor in functional.outputs]

    def _layer(self, node: Any, given: Sequence[Value], specs: Sequence[Any], prefix: str) -> list[Value]:
        layer, name = node.operation, f"{prefix}{name_of(node.operation)}"
        shapes, result = [tuple(value.spec.shape) for value in given], tuple(specs[0].shape)
        try:
            behaviour = behaviour_of(layer, shapes, result)
        except ValueError as error:
            raise _unfit(name, shapes, error) from error
        trace, notes = behaviour.effect([value.trace for value in given], map_of(result))
        shared = id(layer) in self._counted
        self._counted.add(id(layer))
        row = LayerFacts(
            name=name,
            kind=type(layer).__name__,
            output_shape=_shape(specs[0]),
            parameters=0 if shared else parameters_of(layer),
            trainable=0 if shared else trainable_parameters(layer),
            macs=behaviour.macs,
            fields=trace.fields,
            window=behaviour.window,
            shared=shared,
            notes=notes,
            inputs=tuple(dict.fromkeys(value.row for value in given)),
        )
        self.rows.append(row)
        return [Value(spec, trace, name) for spec in specs]


def _specs(node: Any, values: Mapping[int, Value]) -> list[Any]:
    """Shapes of what a node makes: as they stand in the graph, or worked out anew where its inputs have other sizes."""
    if all(values[id(tensor)].spec.shape == tensor.shape for tensor in node.input_tensors):
        return list(node.outputs)
    shapes = [tuple(values[id(tensor)].spec.shape) for tensor in node.input_tensors]
    args, kwargs = node.arguments.fill_in({key: value.spec for key, value in values.items()})
    try:
        _check_built(node.operation, shapes)
        made = keras.tree.flatten(node.operation.compute_output_spec(*args, **kwargs))
        if any(size is not None and size < 1 for spec in made for size in spec.shape):
            raise ValueError(f"nothing would be left of it: {[tuple(spec.shape) for spec in made]}")
    except (ValueError, TypeError) as error:
        raise _unfit(name_of(node.operation), shapes, error) from error
    return list(made)


def _check_built(layer: Any, shapes: Sequence[Shape]) -> None:
    """A layer's weights fit the features they were made for only, and its shape rules do not look at them."""
    spec = getattr(layer, "input_spec", None)
    for wanted, shape in zip(keras.tree.flatten(spec) if spec is not None else [], shapes, strict=False):
        for axis, size in (getattr(wanted, "axes", None) or {}).items():
            if size is not None and shape[axis] is not None and shape[axis] != size:
                raise ValueError(f"its weights are for {size} features, this size would give it {shape[axis]}")


def _unfit(name: str, shapes: Sequence[Shape], error: Exception) -> ModelError:
    got = " and ".join(str(shape[1:]) for shape in shapes)
    reason = " ".join(str(error).split())[:300].rstrip(".")
    return ModelError(
        "size-unfit",
        f"The network cannot take this size: at {name!r}, which would get {got}: {reason}. A network that flattens its "
        "last map works at its own size only; make it fully convolutional, or leave the size out.",
    )


def sized_inputs(tensors: Sequence[Any], size_hw: Sizes) -> dict[str, Any]:
    """The inputs by name, at the sizes asked for."""
    images = [_input_name(tensor) for tensor in tensors if len(tensor.shape) == 4]
    sizes: Mapping[str, Pair]
    if isinstance(size_hw, Mapping):
        sizes = size_hw
    else:
        if size_hw is not None and len(images) != 1:
            raise UsageError("size-unclear", f"The network has the images {_listed(images)}: say each one's size.")
        sizes = {} if size_hw is None else {images[0]: size_hw}
    if strange := set(sizes) - set(images):
        raise UsageError("size-unclear", f"There is no image {_listed(sorted(strange))}; there is {_listed(images)}.")
    return {name: _sized(tensor, name, sizes.get(name)) for tensor in tensors for name in [_input_name(tensor)]}


def _input_name(tensor: Any) -> str:
    return name_of(tensor._keras_history.operation)


def _sized(tensor: Any, name: str, size_hw: Pair | None) -> Any:
    shape = tuple(tensor.shape)
    if size_hw is not None:
        if len(size_hw) != 2 or min(size_hw) < 1:
            raise ValueError(f"`size_hw` must be two positive integers. Received: size_hw={size_hw}.")
        shape = (shape[0], *map(int, size_hw), shape[3])
    if len(shape) == 4 and None in shape[1:3]:
        raise UsageError(
            "size-needed",
            f"The network's input {name!r} is open in size, {shape[1:]}: say the size of the image to reckon "
            "with (--imgsz).",
        )
    return keras.KerasTensor(shape, dtype=tensor.dtype, name=name)


def _output_names(functional: Any) -> list[str]:
    """Keys of a dict of outputs, else the names of the layers that make them."""
    named = keras.tree.flatten_with_path(functional._outputs_struct)
    return [
        "/".join(str(part) for part in path if isinstance(part, str)) or name_of(tensor._keras_history.operation)
        for path, tensor in named
    ]


def _shape(spec: Any) -> Shape:
    return tuple(spec.shape)[1:]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
