"""RoIAlign over a map and over a pyramid of maps: `geometry.roi.roi_align` over a batch.

The maps are laid out as one table, a row for each cell. Each bin reads `sampling_ratio` squared points of four cells,
and a point's weight is a product of one number for its row and one for its column. So one gather is done for each of
the (2 n)^2 combinations, and added up: a result as large as the features of the boxes is the largest thing in memory,
whatever the size of the maps, and no box is read from more than one level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from visionkit.layers.windows import pair

__all__ = ["PyramidRoIAlign", "RoIAlign"]

Shape = tuple[int | None, ...]
Axis = tuple[Any, Any]  # cells (R, bins, 2 n) and their weights


def _axis_points(start: Any, size: Any, bins: int, cells: Any, ratio: int) -> Axis:
    """The cells that the points of each bin lie between, int32 (R, bins, 2 n), and their weights.

    Args:
        start, size: of each box along the axis, in cells (R, 1, 1).
        bins: along the axis.
        cells: of the map along the axis, float (R, 1, 1).
        ratio: n, points a bin.
    """
    places = ops.arange(bins, dtype="float32")[:, None]
    within = (ops.arange(ratio, dtype="float32") + 0.5) / ratio
    side = size / bins
    points = start + places * side + within * side  # (R, bins, n)
    there = ops.cast(ops.logical_and(points >= -1.0, points <= cells), "float32") / ratio
    points = ops.minimum(ops.maximum(points, 0.0), cells - 1)
    low = ops.floor(points)
    high = ops.minimum(low + 1, cells - 1)
    share = points - low
    index = ops.cast(ops.concatenate([low, high], axis=-1), "int32")
    return index, ops.concatenate([(1 - share) * there, share * there], axis=-1)


def _read(table: Any, first: Any, width: Any, rows: Axis, columns: Axis) -> Any:
    """Features (R, h, w, C): the weighted sum of the table's rows (T, C)."""
    (y, y_share), (x, x_share) = rows, columns
    line = first + y * width  # (R, h, 2 n), where a row of cells begins
    result: Any = 0.0
    for i in range(line.shape[-1]):
        for j in range(x.shape[-1]):
            cells = ops.cast(ops.take(table, line[:, :, None, i] + x[:, None, :, j], axis=0), "float32")
            result = result + cells * (y_share[:, :, None, i] * x_share[:, None, :, j])[..., None]
    return result


class _Align(keras.layers.Layer):
    """What the two layers have in common: the grid of points, and how the boxes lie on it."""

    def __init__(self, output_hw: Any, sampling_ratio: int, aligned: bool, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.output_hw = pair(output_hw, "output_hw", least=1)
        if isinstance(sampling_ratio, bool) or not isinstance(sampling_ratio, int) or sampling_ratio < 1:
            raise ValueError(
                "`sampling_ratio` must be a positive integer: in a graph of fixed shapes every bin has as many points. "
                "As many as a box has cells (0) is for `geometry.roi.roi_align`. "
                f"Received: sampling_ratio={sampling_ratio!r}."
            )
        self.sampling_ratio, self.aligned = sampling_ratio, bool(aligned)

    def _align(self, table: Any, boxes: Any, batch: Any, place: tuple[Any, Any, Any, Any]) -> Any:
        """Features (B, N, h, w, C) in the layer's type; `place` is of each box: scale, cells down, across, first."""
        count = boxes.shape[1] if boxes.shape[1] is not None else ops.shape(boxes)[1]
        scale, down, across, first = place
        flat = ops.reshape(ops.cast(ops.stop_gradient(boxes), "float32"), (-1, 4)) * scale - 0.5 * self.aligned
        start, size = flat[:, :2], flat[:, 2:] - flat[:, :2]
        size = size if self.aligned else ops.maximum(size, 1.0)
        (height, width), n = self.output_hw, self.sampling_ratio
        rows = _axis_points(start[:, 1, None, None], size[:, 1, None, None], height, _column(down), n)
        columns = _axis_points(start[:, 0, None, None], size[:, 0, None, None], width, _column(across), n)
        found = _read(table, first[:, None, None], ops.cast(across, "int32")[:, None, None], rows, columns)
        return ops.cast(ops.reshape(found, (batch, count, height, width, table.shape[-1])), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        names = ("output_hw", "sampling_ratio", "aligned")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _column(cells: Any) -> Any:
    return ops.cast(cells, "float32")[:, None, None]


def _check(feature: Any, boxes: Any) -> None:
    if len(feature) != 4 or len(boxes) != 3 or boxes[-1] != 4 or feature[-1] is None:
        raise ValueError(f"A map must be (B, H, W, C), boxes (B, N, 4). Received: {tuple(feature)} and {tuple(boxes)}.")


@keras.saving.register_keras_serializable(package="visionkit")
class RoIAlign(_Align):
    """The map read at points spread over each box: called with `[map, boxes]`, (B, N, h, w, C).

    The map is (B, H, W, C), the boxes (B, N, 4) xyxy in pixels of the image, of the same place in the batch. He et al.,
    Mask R-CNN, ICCV 2017, section 3; see `geometry.roi.roi_align` for the points and the rule at the edge. The boxes
    have no gradient.

    Args:
        output_hw: bins down and across, or one integer for both.
        scale: cells per pixel, 1 / stride.
        sampling_ratio: points along a bin's side.
        aligned: take the half cell away between continuous coordinates and cell indices.
    """

    def __init__(
        self, output_hw: Any, *, scale: float, sampling_ratio: int = 2, aligned: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(output_hw, sampling_ratio, aligned, **kwargs)
        if not scale > 0:
            raise ValueError(f"`scale` must be positive. Received: scale={scale}.")
        self.scale = float(scale)

    def build(self, input_shape: Any) -> None:
        """Check the shapes."""
        _check(*input_shape)
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The features, see the class."""
        feature, boxes = inputs
        batch, height, width, channels = ops.shape(feature)
        image = _image_of(boxes)
        every = ops.ones_like(image)
        place = (self.scale, every * height, every * width, image * (height * width))
        return self._align(ops.reshape(feature, (-1, channels)), boxes, batch, place)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """(B, N, h, w, C)."""
        feature, boxes = input_shape
        return feature[0], boxes[1], *self.output_hw, feature[3]

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        return {**super().get_config(), "scale": self.scale}


def _image_of(boxes: Any) -> Any:
    """Of each box (B, N, 4) its place in the batch, int32 (B * N,)."""
    shape = ops.shape(boxes)
    return ops.reshape(ops.arange(shape[0], dtype="int32")[:, None] + ops.zeros((1, shape[1]), dtype="int32"), (-1,))


@keras.saving.register_keras_serializable(package="visionkit")
class PyramidRoIAlign(_Align):
    """RoIAlign from that map of a pyramid that suits a box's size: called with `[maps, boxes]`, (B, N, h, w, C).

    Maps (B, H, W, C), finest first, of as many channels; boxes (B, N, 4) xyxy in pixels of the image. Lin et al.,
    Feature pyramid networks, CVPR 2017, equation 1, as `geometry.roi.pyramid_level` has it.

    Args:
        output_hw: bins down and across, or one integer for both.
        scales: cells per pixel of each map, 1 / stride; powers of two.
        sampling_ratio: points along a bin's side.
        aligned: take the half cell away between continuous coordinates and cell indices.
        canonical: side of a box in pixels, and log2 of the stride of the map that it is read from.
    """

    def __init__(
        self,
        output_hw: Any,
        *,
        scales: Sequence[float],
        sampling_ratio: int = 2,
        aligned: bool = False,
        canonical: Sequence[float] = (224, 4),
        **kwargs: Any,
    ) -> None:
        super().__init__(output_hw, sampling_ratio, aligned, **kwargs)
        if not len(scales) or any(not s > 0 or not math.log2(s).is_integer() for s in scales):
            raise ValueError(f"`scales` must be powers of two. Received: scales={scales}.")
        self.scales, self.canonical = tuple(float(s) for s in scales), tuple(canonical)

    def build(self, input_shape: Any) -> None:
        """Check the shapes."""
        maps, boxes = input_shape
        if len(maps) != len(self.scales) or len({shape[-1] for shape in maps}) != 1:
            raise ValueError(
                f"There must be {len(self.scales)} maps of as many channels. Received: {[tuple(s) for s in maps]}."
            )
        for shape in maps:
            _check(shape, boxes)
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The features, see the class."""
        maps, boxes = inputs
        batch, channels = ops.shape(maps[0])[0], maps[0].shape[-1]
        sizes = [ops.shape(x)[1:3] for x in maps]
        table = ops.concatenate(
            [ops.reshape(x, (batch, h * w, channels)) for x, (h, w) in zip(maps, sizes, strict=True)], axis=1
        )
        begins = [0]
        for h, w in sizes:
            begins.append(begins[-1] + h * w)
        level = ops.reshape(self._levels(boxes), (-1,))
        of_level = ops.take(_rows([(h, w, begin) for (h, w), begin in zip(sizes, begins, strict=False)]), level, axis=0)
        down, across, first = (of_level[:, k] for k in range(3))
        scale = ops.take(ops.convert_to_tensor(self.scales, dtype="float32"), level, axis=0)[:, None]
        place = (scale, down, across, first + _image_of(boxes) * begins[-1])
        return self._align(ops.reshape(table, (-1, channels)), boxes, batch, place)

    def _levels(self, boxes: Any) -> Any:
        """int32 (B, N), 0 the finest."""
        lowest, highest = (round(-math.log2(s)) for s in (self.scales[0], self.scales[-1]))
        boxes = ops.cast(ops.stop_gradient(boxes), "float32")
        area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
        side = ops.sqrt(ops.maximum(area, 1.2e-38))
        level = ops.floor(self.canonical[1] + ops.log(side / self.canonical[0]) / math.log(2) + 1e-6)
        return ops.cast(ops.clip(level, lowest, highest), "int32") - lowest

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """(B, N, h, w, C)."""
        maps, boxes = input_shape
        return maps[0][0], boxes[1], *self.output_hw, maps[0][3]

    def compute_output_spec(self, inputs: Any) -> Any:
        """The layer's type."""
        maps, boxes = inputs
        shape = self.compute_output_shape([[x.shape for x in maps], boxes.shape])
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        return {**super().get_config(), "scales": self.scales, "canonical": self.canonical}


def _rows(rows: Sequence[tuple[Any, Any, Any]]) -> Any:
    """A table int32 (levels, 3) of integers and scalar tensors."""
    return ops.stack([ops.stack([ops.cast(n, "int32") for n in row]) for row in rows])
