"""A classifier's graph seen as windows of a larger image: how far apart they lie, and whether they equal the crops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import layers

from visionkit.errors import ModelError
from visionkit.geometry.window_grid import WindowGrid
from visionkit.nets.layer_steps import step_of

__all__ = ["ADAPTIVE", "GLOBAL_POOLING", "Value", "equals_crops", "refusal", "window_grid"]

Size = tuple[int, int]

GLOBAL_POOLING = (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)
ADAPTIVE = "AdaptiveAveragePooling2D"  # ours and Keras's


def equals_crops(model: keras.Model) -> tuple[bool, str]:
    """Whether the dense network answers at each window exactly as `model` does for that crop, and why (not).

    Only without padding: inside a larger image the layers see pixels where a crop has zeros at its edge.
    """
    edge = window_grid(model).edge
    return edge is None, edge or "no layer pads its map, so each window's answer is that of its crop"


def window_grid(model: keras.Model) -> WindowGrid:
    """Size, stride and exactness of the windows that `fully_convolutional(model)` answers for.

    Raises:
        ModelError: `model-not-dense`, as `fully_convolutional`.
    """
    survey = Survey(model)
    return WindowGrid(survey.window_hw, survey.stride_hw, survey.edge)


@dataclass(frozen=True)
class Value:
    """A tensor of the classifier as it is for one crop, on its way through the graph.

    Args:
        crop: its shape: a map (1, H, W, C) or a vector (1, N).
        stride: pixels of the image from one cell to the next.
        pools: the layers that made this vector, or map of one cell, out of a whole map.
    """

    crop: Any
    stride: Size
    pools: frozenset[int] = frozenset()

    @property
    def is_map(self) -> bool:
        return len(self.crop.shape) == 4

    @property
    def hw(self) -> Size:
        return int(self.crop.shape[1]), int(self.crop.shape[2])


def refusal(layer: Any, why: str) -> ModelError:
    """The error that names a layer."""
    name, kind = getattr(layer, "name", "?"), type(layer).__name__
    return ModelError(
        "model-not-dense",
        f"The classifier cannot be made fully convolutional: its layer {name!r} ({kind}) {why}. Run it on crops.",
    )


def functional(model: Any) -> Any:
    """The model as a graph of layers: a Sequential is seen through its functional twin."""
    if not getattr(model, "inputs", None) or len(model.inputs) != 1:
        raise refusal(model, "is no functional or sequential model of one input")
    return getattr(model, "_functional", None) or model


def crop_input(model: Any) -> Any:
    """The input of one crop (1, H, W, C), whose sizes must be fixed."""
    given = functional(model).inputs[0]
    if len(given.shape) != 4 or None in given.shape[1:]:
        raise refusal(model, f"takes {tuple(given.shape)}, and a window (None, H, W, C) of fixed size is needed")
    return keras.KerasTensor((1, *given.shape[1:]), dtype=given.dtype)


def run(model: Any, value: Value, visit: Callable[..., Any]) -> Any:
    """Send `value` through the graph of `model`; `visit(layer, *args, **kwargs)` stands for the call of each layer."""

    def call(operation: Any) -> Callable[..., Any]:
        def visited(*args: Any, **kwargs: Any) -> Any:
            if isinstance(operation, keras.Model):
                return run(operation, args[0], visit)
            return visit(operation, *args, **kwargs)

        return visited

    # Keras's own walk over its nodes, which hands on whatever the calls return. Private, so pinned and tested.
    return functional(model)._run_through_graph([value], operation_fn=call)


def values_in(args: Any, kwargs: Any) -> list[Any]:
    """The values among the arguments of a call."""
    return [leaf for leaf in keras.tree.flatten((args, kwargs)) if isinstance(leaf, Value)]


def spec_of(layer: Any, args: Any, kwargs: Any) -> Any:
    """The layer's output for one crop, a symbolic tensor."""
    crops = keras.tree.map_structure(lambda leaf: leaf.crop if isinstance(leaf, Value) else leaf, (args, kwargs))
    made = layer.compute_output_spec(*crops[0], **crops[1])
    if not isinstance(made, keras.KerasTensor):
        raise refusal(layer, "has several outputs")
    return made


def shapes_of(values: Sequence[Value]) -> list[tuple[int | None, ...]]:
    """Shapes for one crop, the largest map first; a vector is a map of one cell."""
    shapes = [tuple(v.crop.shape) if v.is_map else (v.crop.shape[0], 1, 1, v.crop.shape[-1]) for v in values]
    return sorted(shapes, key=lambda shape: shape[1:3], reverse=True)


class Survey:
    """Strides and edges of a classifier's graph, layer by layer.

    Attributes:
        window_hw: size of the crop.
        stride_hw: from one window to the next.
        edge: as in `WindowGrid`.
        rejoining: global pooling layers (by `id`) whose result goes back to the map, as in squeeze and excitation.
    """

    def __init__(self, model: keras.Model) -> None:
        image = crop_input(model)
        self.window_hw: Size = (int(image.shape[1]), int(image.shape[2]))
        self.edge: str | None = None
        self.rejoining: set[int] = set()
        self._ends: dict[int, Size] = {}  # strides of the maps that become vectors, by layer
        run(model, Value(image, (1, 1)), self)
        ends = [stride for layer, stride in self._ends.items() if layer not in self.rejoining] or [(1, 1)]
        self.stride_hw: Size = (max(s[0] for s in ends), max(s[1] for s in ends))
        if any(whole % part for s in ends for whole, part in zip(self.stride_hw, s, strict=True)):
            raise refusal(model, f"has heads whose strides do not divide each other, {sorted(set(ends))}")

    def __call__(self, layer: Any, *args: Any, **kwargs: Any) -> Value:
        values = values_in(args, kwargs)
        source = max(values, key=lambda value: value.hw if value.is_map else (0, 0))
        made = replace(source, crop=spec_of(layer, args, kwargs), pools=_pools(values))
        if source.is_map and isinstance(layer, (layers.Flatten, layers.Reshape, *GLOBAL_POOLING)):
            self._ends.setdefault(id(layer), source.stride)
            return replace(made, pools=frozenset({id(layer)}) if isinstance(layer, GLOBAL_POOLING) else frozenset())
        if not (source.is_map and made.is_map) or type(layer).__name__ == ADAPTIVE:
            return made
        if made.hw == (1, 1):
            return replace(made, stride=self._stride(layer, values, source, made))
        self._rejoin(layer, values)
        return replace(made, stride=self._stride(layer, values, source, made), pools=frozenset())

    def _rejoin(self, layer: Any, values: list[Value]) -> None:
        back = _pools([value for value in values if not value.is_map or value.hw == (1, 1)])
        if back - self.rejoining:
            self._note(layer, "weighs its map by what was pooled over the whole of it")
        self.rejoining |= back

    def _stride(self, layer: Any, values: list[Value], source: Value, made: Value) -> Size:
        step = step_of(layer, shapes_of(values), made.crop.shape)
        if step is not None:
            if step.edge:
                self._note(layer, step.edge)
            return source.stride[0] * step.stride[0], source.stride[1] * step.stride[1]
        if made.hw != source.hw:
            raise refusal(layer, f"turns a map of {source.hw} into one of {made.hw} by a rule that is not known here")
        self._note(layer, "is of a kind of which it is not known here whether it treats all positions alike")
        return source.stride

    def _note(self, layer: Any, why: str) -> None:
        if self.edge is None:
            self.edge = f"the layer {layer.name!r} ({type(layer).__name__}) {why}"


def _pools(values: list[Value]) -> frozenset[int]:
    return frozenset[int]().union(*(value.pools for value in values))
