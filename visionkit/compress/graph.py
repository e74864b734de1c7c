"""A Keras network's graph as a list of steps that can be changed, and built into a new network. Any Keras backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from visionkit.inspection.walk import functional_of, given_to, is_network, nodes_of

__all__ = ["Graph", "Part", "Step", "Value", "layer_part", "read_graph"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Value:
    """A tensor of the graph, by its number; `shape` with the batch, `dtype` its name."""

    number: int
    shape: tuple[int | None, ...] = field(compare=False)
    dtype: str = field(compare=False, default="float32")


@dataclass(eq=False)
class Part:
    """A layer to be: it is made once, whatever the number of steps that call it.

    Args:
        name: of the layer.
        kind: its class.
        config: as `get_config` gives it.
        weights: in the order of `get_weights`; None leaves them as they are made.
        make: the layer, where it is not `kind.from_config(config)`; a raw operation is itself.
    """

    name: str
    kind: type
    config: dict[str, Any]
    weights: list[Array] | None = None
    make: Callable[[], Any] | None = None

    def made(self) -> Any:
        """A new layer, without its weights."""
        return self.make() if self.make is not None else self.kind.from_config(self.config)  # type: ignore[attr-defined]


@dataclass(eq=False)
class Step:
    """One call of a layer.

    Args:
        args, kwargs: of the call, `Value` where a tensor stands.
        outputs: what it gives, flat.
    """

    part: Part
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Value]

    @property
    def inputs(self) -> list[Value]:
        """The tensors that are given to it, in order."""
        return [value for value in keras.tree.flatten((self.args, self.kwargs)) if isinstance(value, Value)]

    @property
    def output(self) -> Value:
        """Its only output."""
        (value,) = self.outputs
        return value

    def renamed(self, values: dict[Value, Value]) -> None:
        """Put other tensors in the place of some that are given to it."""
        self.args, self.kwargs = _replaced((self.args, self.kwargs), Value, lambda value: values.get(value, value))


class Graph:
    """The steps of a network in the order in which they run.

    Attributes:
        inputs: values; `sources` the model's own inputs, of which names and shapes are taken.
        outputs: of the model, any structure of values.
    """

    def __init__(self, name: str, sources: Sequence[Any], structure: Any) -> None:
        self.name, self.sources, self.structure = name, list(sources), structure
        self.inputs: list[Value] = []
        self.steps: list[Step] = []
        self.outputs: Any = None
        self._count = 0

    def value(self, like: Any) -> Value:
        """A new value of the shape and type of `like`."""
        self._count += 1
        return Value(self._count, tuple(like.shape), str(like.dtype))

    def users(self) -> dict[Value, list[Step | None]]:
        """Of each value the steps that take it, once for each time; None stands for the model's output."""
        found: dict[Value, list[Step | None]] = {value: [] for value in self.inputs}
        for step in self.steps:
            for value in step.inputs:
                found.setdefault(value, []).append(step)
            for value in step.outputs:
                found.setdefault(value, [])
        for value in keras.tree.flatten(self.outputs):
            found.setdefault(value, []).append(None)
        return found

    def maker(self) -> dict[Value, Step]:
        """Of each value the step that gives it; inputs have none."""
        return {value: step for step in self.steps for value in step.outputs}

    def rename(self, values: dict[Value, Value]) -> None:
        """Put other values in the place of some, wherever they are taken."""
        for step in self.steps:
            step.renamed(values)
        self.outputs = keras.tree.map_structure(lambda value: values.get(value, value), self.outputs)

    def build(self) -> keras.Model:
        """A new network of new layers."""
        tensors: dict[Value, Any] = {}
        sources = []
        for value, source in zip(self.inputs, self.sources, strict=True):
            tensors[value] = keras.Input(batch_shape=source.shape, dtype=source.dtype, name=source.name)
            sources.append(tensors[value])
        layers: dict[Part, Any] = {}
        for step in self.steps:
            if step.part not in layers:
                layers[step.part] = step.part.made()
            args, kwargs = _replaced((step.args, step.kwargs), Value, tensors.__getitem__)
            tensors |= zip(step.outputs, keras.tree.flatten(layers[step.part](*args, **kwargs)), strict=True)
        for part, layer in layers.items():
            if part.weights is not None:
                layer.set_weights(part.weights)
        outputs = keras.tree.map_structure(tensors.__getitem__, self.outputs)
        structure = keras.tree.pack_sequence_as(self.structure, sources)
        return keras.Model(structure, outputs, name=self.name)


def _replaced(structure: Any, kind: type, new: Callable[[Any], Any]) -> Any:
    """A structure with something else in the place of all that is of one kind."""
    return keras.tree.map_structure(lambda leaf: new(leaf) if isinstance(leaf, kind) else leaf, structure)


def _looked_up(values: dict[int, Value], tensor: Any) -> Value:
    return values[id(tensor)]


def layer_part(layer: Any) -> Part:
    """A layer as it is, copied with its weights; a raw operation has none and is used itself."""
    if not isinstance(layer, keras.layers.Layer):
        return Part(str(layer.name), type(layer), {}, make=lambda: layer)
    return Part(layer.name, type(layer), layer.get_config(), [np.array(weight) for weight in layer.get_weights()])


def read_graph(model: keras.Model) -> Graph:
    """The graph of a functional or built sequential model; networks inside it are laid open.

    Raises:
        ModelError: `model-graph`; the model is written as a subclass.
    """
    functional = functional_of(model)
    graph = Graph(model.name, functional.inputs, functional._inputs_struct)
    graph.inputs = [graph.value(tensor) for tensor in functional.inputs]
    outputs = _read(graph, functional, graph.inputs, {})
    graph.outputs = keras.tree.pack_sequence_as(functional._outputs_struct, outputs)
    return graph


def _read(graph: Graph, functional: Any, inputs: Sequence[Value], parts: dict[int, Part]) -> list[Value]:
    """Append the steps of a functional graph; its outputs for these inputs."""
    values = {id(tensor): value for tensor, value in zip(functional.inputs, inputs, strict=True)}
    for node in nodes_of(functional):
        if any(id(tensor) not in values for tensor in node.input_tensors):
            continue  # belongs to another model over the same layers
        if is_network(node.operation):
            inner = functional_of(node.operation)
            made = _read(graph, inner, [values[id(tensor)] for tensor in given_to(node, inner)], parts)
        else:
            given = (node.arguments.args, node.arguments.kwargs)
            args, kwargs = _replaced(given, keras.KerasTensor, partial(_looked_up, values))
            made = [graph.value(tensor) for tensor in node.outputs]
            if id(node.operation) not in parts:
                parts[id(node.operation)] = layer_part(node.operation)
            graph.steps.append(Step(parts[id(node.operation)], args, kwargs, made))
        values |= {id(tensor): value for tensor, value in zip(node.outputs, made, strict=True)}
    return [values[id(tensor)] for tensor in functional.outputs]
