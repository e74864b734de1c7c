"""RoI pooling and spatial pyramid pooling: the largest value in each of a fixed number of bins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from visionkit.layers.windows import pair

__all__ = ["RoIPool", "SpatialPyramidPooling"]

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="visionkit")
class RoIPool(keras.layers.Layer):
    """The largest value in each of h x w bins of each box: called with `[map, boxes]`, (B, N, h, w, C).

    The map is (B, H, W, C), H and W fixed, the boxes (B, N, 4) xyxy in pixels of the image. Girshick, Fast R-CNN, ICCV
    2015, section 2.1; the bins are those of `geometry.roi.roi_pool`, 0 where one holds no cell. The gradient goes to
    the largest cell alone.

    Bins differ in size, so the largest values of all windows of 1, 2, 4, 8 … cells are made first, each from the one
    before; two of these cover any bin along an axis, four cover it in both. That takes log2(H) log2(W) maps of memory.

    Args:
        output_hw: bins down and across, or one integer for both.
        scale: cells per pixel, 1 / stride.
    """

    def __init__(self, output_hw: Any, *, scale: float, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.output_hw = pair(output_hw, "output_hw", least=1)
        if not scale > 0:
            raise ValueError(f"`scale` must be positive. Received: scale={scale}.")
        self.scale = float(scale)

    def build(self, input_shape: Any) -> None:
        """Check the shapes."""
        feature, boxes = input_shape
        if len(feature) != 4 or None in feature[1:] or len(boxes) != 3 or boxes[-1] != 4:
            raise ValueError(
                "`inputs` must be [map, boxes], (B, H, W, C) with H, W and C fixed, and (B, N, 4). "
                f"Received: {tuple(feature)} and {tuple(boxes)}."
            )
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The features, see the class."""
        feature, boxes = inputs
        _, height, width, channels = feature.shape
        batch, count = ops.shape(boxes)[:2]
        powers = (height.bit_length(), width.bit_length())
        table = ops.reshape(_windows(feature, powers), (-1, channels))
        edges = _rounded(ops.reshape(ops.cast(ops.stop_gradient(boxes), "float32"), (-1, 4)) * self.scale)
        y, y_power, y_there = _bins(edges[:, 1], edges[:, 3], self.output_hw[0], height)
        x, x_power, x_there = _bins(edges[:, 0], edges[:, 2], self.output_hw[1], width)
        image = ops.arange(batch, dtype="int32")[:, None] + ops.zeros((1, count), dtype="int32")
        which = y_power[:, :, None] * powers[1] + x_power[:, None]  # (R, h, w)
        first = (which * batch + ops.reshape(image, (-1, 1, 1))) * (height * width)
        best = None
        for top in y:
            for left in x:
                found = ops.take(table, first + top[:, :, None] * width + left[:, None], axis=0)
                best = found if best is None else ops.maximum(best, found)
        there = ops.logical_and(y_there[:, :, None], x_there[:, None])[..., None]
        found = ops.reshape(ops.where(there, best, ops.zeros_like(best)), (batch, count, *self.output_hw, channels))
        return ops.cast(found, self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """(B, N, h, w, C)."""
        feature, boxes = input_shape
        return feature[0], boxes[1], *self.output_hw, feature[3]

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        return {**super().get_config(), "output_hw": self.output_hw, "scale": self.scale}


def _rounded(values: Any) -> Any:
    """Whole numbers int32, halves away from 0, as C rounds."""
    size = ops.abs(values)
    whole = ops.floor(size)
    whole = whole + ops.cast(size - whole >= 0.5, "float32")
    return ops.cast(ops.where(values < 0, -whole, whole), "int32")


def _windows(feature: Any, powers: tuple[int, int]) -> Any:
    """The largest value of the 2^i x 2^j cells from each cell on, (i, j, B, H, W, C); beyond the edge anything."""
    tall = [feature]
    for power in range(1, powers[0]):
        tall.append(_doubled(tall[-1], 1, 2 ** (power - 1)))
    every = []
    for row in tall:
        every.append(row)
        for power in range(1, powers[1]):
            every.append(_doubled(every[-1], 2, 2 ** (power - 1)))
    return ops.stack(every)


def _doubled(x: Any, axis: int, step: int) -> Any:
    """The larger of each cell and the one `step` on."""
    ahead = [x[:, step:], x[:, :step]] if axis == 1 else [x[:, :, step:], x[:, :, :step]]
    return ops.maximum(x, ops.concatenate(ahead, axis=axis))


def _bins(first: Any, last: Any, bins: int, cells: int) -> tuple[tuple[Any, Any], Any, Any]:
    """Of each bin (R, bins): where two windows that cover it begin, their size's power of two, and if it has cells."""
    count = ops.maximum(last - first + 1, 1)[:, None]
    steps = ops.arange(bins, dtype="int32")
    low = ops.floor_divide(steps * count, bins) + first[:, None]
    high = ops.floor_divide((steps + 1) * count + (bins - 1), bins) + first[:, None]
    low, high = (ops.minimum(ops.maximum(edge, 0), cells) for edge in (low, high))
    there, length = high > low, high - low
    power = ops.zeros_like(length)
    size = ops.ones_like(length)
    for exponent in range(1, cells.bit_length()):
        larger = length >= 2**exponent
        power = power + ops.cast(larger, "int32")
        size = ops.where(larger, 2**exponent, size)
    begin = ops.minimum(low, cells - 1)  # an empty bin reads somewhere, and is set to 0
    return (begin, ops.maximum(high - size, 0)), power, there


@keras.saving.register_keras_serializable(package="visionkit")
class SpatialPyramidPooling(keras.layers.Layer):
    """The largest value in the bins of several grids over a map, (B, H, W, C) -> (B, sum of n^2 * C), any H and W.

    He et al., Spatial pyramid pooling, ECCV 2014, section 2.2: of a grid of n x n, bin i takes the cells from
    floor(i H / n) to ceil((i + 1) H / n). Grid after grid, row by row, channels fastest.

    Args:
        levels: n of each grid.
    """

    def __init__(self, levels: Sequence[int] = (1, 2, 3, 6), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not len(levels) or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in levels):
            raise ValueError(f"`levels` must be positive integers. Received: levels={levels}.")
        self.levels = tuple(levels)

    def build(self, input_shape: Any) -> None:
        """Check the shape."""
        if len(input_shape) != 4:
            raise ValueError(f"`inputs` must be (B, H, W, C). Received: shape={tuple(input_shape)}.")
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The bins, see the class."""
        _, height, width, _ = ops.shape(inputs)
        found = []
        for n in self.levels:
            for top, bottom in _edges(height, n):
                line = ops.max(inputs[:, top:bottom], axis=1)
                found += [ops.max(line[:, left:right], axis=1) for left, right in _edges(width, n)]
        return ops.concatenate(found, axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """(B, sum of n^2 * C)."""
        channels = input_shape[3]
        return input_shape[0], None if channels is None else channels * sum(n * n for n in self.levels)

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        return {**super().get_config(), "levels": self.levels}


def _edges(cells: Any, bins: int) -> list[tuple[Any, Any]]:
    return [(i * cells // bins, ((i + 1) * cells + bins - 1) // bins) for i in range(bins)]
