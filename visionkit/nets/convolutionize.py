"""A classifier becomes fully convolutional: its dense layers turn into convolutions, and its answer into a map.

Sermanet et al., OverFeat, ICLR 2014, section 3.5; Long, Shelhamer, Darrell, Fully convolutional networks, CVPR 2015,
section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from visionkit.layers.neighbourhood import NeighbourhoodAverage2D
from visionkit.nets.crop_windows import (
    ADAPTIVE,
    GLOBAL_POOLING,
    Survey,
    Value,
    crop_input,
    equals_crops,
    refusal,
    run,
    shapes_of,
    spec_of,
    values_in,
    window_grid,
)
from visionkit.nets.layer_steps import is_pointwise, step_of

__all__ = ["equals_crops", "fully_convolutional", "window_grid"]

Size = tuple[int, int]
Matrix = npt.NDArray[np.float64]

DROPPED = (layers.Dropout, layers.SpatialDropout2D, layers.GaussianDropout, layers.AlphaDropout, layers.GaussianNoise)


def fully_convolutional(model: keras.Model, size_hw: Size | None = None) -> keras.Model:
    """The classifier (B, H, W, 3) -> logits (B, L) as a network (B, H', W', 3) -> (B, h, w, L) of its windows.

    The weights of a dense layer behind a flattened map (h, w, c) become a kernel (h, w, c, n) in (row, column, channel)
    order, later dense layers 1x1 convolutions. Adaptive average pooling goes into the kernel behind it. Global pooling
    becomes pooling over the window's map; where its mean goes back to the map (squeeze and excitation), a mean over
    each cell's neighbourhood of that size. Dropout is left out. A dict of heads stays one. Layers and weights are
    copies. An image of the window's size gives what `model` gives; `equals_crops` tells about larger ones.

    Args:
        model: functional or sequential, of one input with fixed sizes, which are the window.
        size_hw: height and width of the images; None leaves them open. The window plus multiples of the stride gives
            just the windows that lie inside, and keeps layers with "same" padding on the grid of the crops.

    Raises:
        ModelError: `model-not-dense`; names the layer that cannot be turned.
        ValueError: `size_hw` is smaller than the window.
    """
    survey = Survey(model)
    if size_hw is not None and any(n < least for n, least in zip(size_hw, survey.window_hw, strict=True)):
        raise ValueError(f"`size_hw` must be at least the window {survey.window_hw}. Received: size_hw={size_hw}.")
    given = model.inputs[0]
    image = keras.Input((*(size_hw or (None, None)), given.shape[3]), name=given.name, dtype=given.dtype)
    conversion = _Conversion(survey.stride_hw, survey.rejoining)
    outputs = run(model, _Turned(crop_input(model), (1, 1), tensor=image), conversion)
    answers = keras.tree.map_structure(conversion.answer, outputs)
    return keras.Model(image, answers, name=f"{model.name}_dense")


@dataclass(frozen=True, kw_only=True)
class _Turned(Value):
    """What stands in the dense network for a tensor of the classifier.

    Args:
        tensor: (B, H', W', C), the map of the whole image, or a vector for each window.
        maker: the layer that made the classifier's tensor, for errors.
        flat: the vector is this map (H, W) flattened, which waits for its dense layer.
        mixing: matrices (rows, H) and (columns, W) of an adaptive pooling, which wait as well.
    """

    tensor: Any
    maker: Any = None
    flat: Size | None = None
    mixing: tuple[Matrix, Matrix] | None = None


class _Conversion:
    """Builds the dense network, layer by layer."""

    def __init__(self, stride_hw: Size, rejoining: set[int]) -> None:
        self._stride_hw, self._rejoining = stride_hw, rejoining
        self._copies: dict[Any, Any] = {}
        self._turns: list[tuple[Any, Callable[[Any, _Turned], _Turned]]] = [
            (DROPPED, lambda layer, value: value),
            (layers.Dense, self._dense),
            (layers.Flatten, lambda layer, value: _flattened(value)),
            (layers.Reshape, self._reshape),
            (GLOBAL_POOLING, self._pool),
        ]

    def __call__(self, layer: Any, *args: Any, **kwargs: Any) -> _Turned:
        values: list[_Turned] = values_in(args, kwargs)
        made = spec_of(layer, args, kwargs)
        turn = next((turn for kinds, turn in self._turns if isinstance(layer, kinds)), None)
        if type(layer).__name__ == ADAPTIVE:
            turn = self._adapt
        result = turn(layer, values[0]) if turn is not None else self._apply(layer, args, kwargs, made)
        return replace(result, crop=made, maker=layer)

    def answer(self, value: _Turned) -> Any:
        """The output tensor of a value, which must be one vector for each window."""
        if value.flat or value.mixing or (value.is_map and value.hw != (1, 1)) or value.stride != self._stride_hw:
            raise refusal(
                value.maker, f"ends the network with {tuple(value.crop.shape[1:])} for a window, not a vector"
            )
        return value.tensor

    def _dense(self, layer: Any, value: _Turned) -> _Turned:
        """A convolution over the map that the dense layer sees flattened, or over one cell."""
        if value.mixing and not value.flat:
            raise refusal(layer, "works on an adaptively pooled map that is not flattened")
        size, strides = (value.flat, self._strides(value)) if value.flat else ((1, 1), (1, 1))
        twin = layers.Conv2D(
            layer.units,
            size,
            strides,
            activation=layer.activation,
            use_bias=layer.use_bias,
            kernel_initializer="zeros",
            dtype=layer.dtype_policy,
            name=layer.name,
        )
        twin = self._copies.setdefault((id(layer), size, strides), twin)
        tensor = twin(value.tensor)
        bias = [keras.ops.convert_to_numpy(layer.bias)] if layer.use_bias else []
        twin.set_weights([_kernel(keras.ops.convert_to_numpy(layer.kernel), size, value.mixing), *bias])
        stride = self._stride_hw if value.flat else value.stride
        return replace(value, tensor=tensor, stride=stride, flat=None, mixing=None)

    def _reshape(self, layer: Any, value: _Turned) -> _Turned:
        """Reshape where it flattens, or makes one cell of a vector."""
        made = tuple(layer.compute_output_spec(value.crop).shape)
        if value.is_map and len(made) == 2:
            return _flattened(value)
        if made[1:] in (tuple(value.crop.shape[1:]), (1, 1, value.crop.shape[-1])) and not (value.flat or value.mixing):
            return value
        raise refusal(layer, f"reshapes {tuple(value.crop.shape[1:])} to {made[1:]}")

    def _pool(self, layer: Any, value: _Turned) -> _Turned:
        """Pooling over the window's map at each window, or over each cell's neighbourhood of that size."""
        if value.mixing:
            raise refusal(layer, "pools an adaptively pooled map")
        is_mean = isinstance(layer, layers.GlobalAveragePooling2D)
        if id(layer) not in self._rejoining:
            kind = layers.AveragePooling2D if is_mean else layers.MaxPooling2D
            tensor = kind(value.hw, self._strides(value), name=layer.name)(value.tensor)
            return replace(value, tensor=tensor, stride=self._stride_hw)
        if not is_mean:
            raise refusal(layer, "sends a maximum over the whole map back to it")
        return replace(value, tensor=NeighbourhoodAverage2D(value.hw, name=layer.name)(value.tensor))

    def _adapt(self, layer: Any, value: _Turned) -> _Turned:
        """Adaptive pooling as two matrices, for the kernel behind it to take up; nothing where it keeps the size."""
        made = layer.compute_output_spec(value.crop).shape[1:3]
        if tuple(made) == value.hw:
            return value
        if value.mixing:
            raise refusal(layer, "pools an adaptively pooled map")
        return replace(value, mixing=(_cells(value.hw[0], made[0]), _cells(value.hw[1], made[1])))

    def _apply(self, layer: Any, args: Any, kwargs: Any, made: Any) -> _Turned:
        """The layer itself, where it does to the larger map what it does to the crop's."""
        values: list[_Turned] = values_in(args, kwargs)
        source = max(values, key=lambda value: value.hw if value.is_map else (0, 0))
        copy = self._copies.get(id(layer)) or _copied(layer, source.is_map)
        self._copies[id(layer)] = copy
        _check(layer, copy, values, made)
        inputs = keras.tree.map_structure(
            lambda leaf: leaf.tensor if isinstance(leaf, _Turned) else leaf, (args, kwargs)
        )
        try:
            tensor = copy(*inputs[0], **inputs[1])
            if isinstance(layer, layers.Layer) and layer.variables:
                copy.set_weights(layer.get_weights())
        except (ValueError, TypeError, NotImplementedError) as error:
            reason = " ".join(str(error).split())[:200]
            raise refusal(layer, f"does not take a map of another size ({reason})") from error
        step = step_of(layer, shapes_of(values), made.shape) if source.is_map else None
        down, right = step.stride if step else (1, 1)
        return replace(source, tensor=tensor, stride=(source.stride[0] * down, source.stride[1] * right))

    def _strides(self, value: _Turned) -> Size:
        """Cells of a map from one window to the next."""
        return self._stride_hw[0] // value.stride[0], self._stride_hw[1] // value.stride[1]


def _check(layer: Any, copy: Any, values: list[_Turned], made: Any) -> None:
    """Refuse a layer that does not treat the larger map, or its windows' vectors, as it treats the crop's."""
    is_map = any(value.is_map for value in values)
    waiting = [value for value in values if value.flat or value.mixing]
    if waiting and len(values) > 1:
        raise refusal(layer, "joins several tensors of which one is a flattened or adaptively pooled map")
    cell = (made.shape[0], 1, 1, made.shape[-1])
    pointwise = is_map or is_pointwise(copy, shapes_of(values), cell)
    if waiting and (is_map or not pointwise or getattr(layer, "variables", None) or hasattr(layer, "axis")):
        raise refusal(layer, "stands between a flattened or adaptively pooled map and its dense layer")
    if not pointwise:
        raise refusal(layer, "mixes the features of a window in a way that is not known here")
    if is_map and len(made.shape) != 4:
        raise refusal(layer, "makes a vector of a map in a way that is not known here")


def _flattened(value: _Turned) -> _Turned:
    """The vector of a map: of one cell it is the cell; else it waits for its dense layer."""
    if not value.is_map or (value.hw == (1, 1) and not value.mixing):
        return value
    rows, columns = value.mixing or (None, None)
    size = value.hw if rows is None or columns is None else (rows.shape[1], columns.shape[1])
    return replace(value, flat=size)


def _kernel(kernel: npt.NDArray[Any], size: Size, mixing: tuple[Matrix, Matrix] | None) -> npt.NDArray[Any]:
    """(h * w * c, n) of a dense layer as (h, w, c, n), what an adaptive pooling did before it included."""
    count = kernel.shape[-1]
    if mixing is None:
        return kernel.reshape(*size, -1, count)
    rows, columns = mixing
    cells = kernel.reshape(len(rows), len(columns), -1, count)
    return np.einsum("pi,qj,pqcn->ijcn", rows, columns, cells, optimize=True).astype(kernel.dtype)


def _cells(size: int, count: int) -> Matrix:
    """(count, size): the mean over pixels floor(i H / n) to ceil((i + 1) H / n) as a matrix."""
    matrix = np.zeros((count, size))
    for i in range(count):
        start, stop = i * size // count, -(-(i + 1) * size // count)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix


def _copied(layer: Any, is_map: bool) -> Any:
    """A layer of the same arguments; an operation between layers has no weights and is used as it is."""
    if not isinstance(layer, layers.Layer):
        return layer
    try:
        config = layer.get_config()
        if not is_map and "axis" in config:
            config["axis"] = -1  # of vectors; counted from the front it is another one where they make a map
        return type(layer).from_config(config)
    except (NotImplementedError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise refusal(layer, f"cannot be copied ({reason})") from error
