"""Anchors of maps, and the boxes that a network's numbers make of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from visionkit.geometry.anchors import Ratios, ssd_boxes, ssd_cell_sizes
from visionkit.geometry.box_codec import DELTA_CLIP
from visionkit.layers.rows import clip_boxes

__all__ = ["Anchors", "BoxDecode", "SSDBoxes", "decoded"]

Shape = tuple[int | None, ...]


def _maps(shapes: Any, least: int = 2) -> list[Shape]:
    maps = [tuple(shape) for shape in shapes] if isinstance(shapes, list | tuple) else []
    if len(maps) < least or any(len(shape) != 4 for shape in maps):
        raise ValueError(f"`inputs` must be a list of maps (B, H, W, C), the image last. Received: shapes={shapes}.")
    return maps


@keras.saving.register_keras_serializable(package="visionkit")
class Anchors(keras.layers.Layer):
    """Anchors (h * w * A, 4) xyxy of a map in pixels of the image: `geometry.anchors.shifted_anchors`.

    Called with `[map, image]`, (B, h, w, C) and (B, H, W, 3), of which only the sizes are read; the stride is
    `H // h`, `W // w` as in torchvision. Sizes may be open.

    Args:
        cell: (A, 4), the anchors of the first cell.
    """

    def __init__(self, cell: Any, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        rows = np.asarray(cell, np.float32)
        if rows.ndim != 2 or rows.shape[1] != 4 or not len(rows):
            raise ValueError(f"`cell` must be (A, 4). Received: shape={rows.shape}.")
        self.cell = tuple(tuple(row) for row in rows.tolist())

    def build(self, input_shape: Any) -> None:
        """Check the shapes."""
        _maps(input_shape)
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The anchors, see the class."""
        feature, image = (ops.shape(x) for x in inputs)
        y, x = (
            ops.cast(ops.arange(feature[axis], dtype="int32") * (image[axis] // feature[axis]), "float32")
            for axis in (1, 2)
        )
        down, across = ops.meshgrid(y, x, indexing="ij")
        shifts = ops.reshape(ops.stack([across, down, across, down], axis=-1), (-1, 1, 4))
        return ops.reshape(shifts + ops.convert_to_tensor(self.cell, dtype="float32"), (-1, 4))

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """(h * w * A, 4)."""
        _, height, width, _ = input_shape[0]
        return None if height is None or width is None else height * width * len(self.cell), 4

    def compute_output_spec(self, inputs: Any) -> Any:
        """float32 under any policy."""
        return keras.KerasTensor(self.compute_output_shape([x.shape for x in inputs]), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        return {**super().get_config(), "cell": self.cell}


@keras.saving.register_keras_serializable(package="visionkit")
class SSDBoxes(keras.layers.Layer):
    """SSD's default boxes (N, 4) xyxy of several maps in pixels of the image: `geometry.anchors.ssd_boxes`.

    Called with `[map, …, image]`, finest first, of which only the sizes are read; they must be fixed.

    Args:
        ratios: one row for all maps, or one for each.
        scales: of the first and the last map, or of each and one more, in parts of the image.
        clip: sizes to the image's.
    """

    def __init__(
        self, ratios: Ratios = (2, 3), scales: Sequence[float] = (0.2, 0.95), clip: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.ratios, self.scales, self.clip = ratios, tuple(scales), clip

    def build(self, input_shape: Any) -> None:
        """Check the shapes."""
        if any(n is None for shape in _maps(input_shape) for n in shape[1:3]):
            raise ValueError(f"The maps' sizes must be fixed. Received: shapes={input_shape}.")
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The boxes, see the class."""
        *grids, size = [tuple(x.shape[1:3]) for x in inputs]
        boxes = ssd_boxes(grids, size, ratios=self.ratios, scales=self.scales, clip=self.clip)
        return ops.convert_to_tensor(boxes, dtype="float32")

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """(N, 4)."""
        *maps, _ = _maps(input_shape)
        cells = ssd_cell_sizes(len(maps), ratios=self.ratios, scales=self.scales)
        counts = [shape[1] * shape[2] * len(sizes) for shape, sizes in zip(maps, cells, strict=True)]  # type: ignore[operator]
        return sum(counts), 4

    def compute_output_spec(self, inputs: Any) -> Any:
        """float32 under any policy."""
        return keras.KerasTensor(self.compute_output_shape([x.shape for x in inputs]), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        return {**super().get_config(), "ratios": self.ratios, "scales": self.scales, "clip": self.clip}


def decoded(deltas: Any, anchors: Any, weights: Any, clip: float | None, pixel_offset: int) -> Any:
    """Boxes (..., 4) of deltas and anchors (..., 4), broadcast, in float32: `geometry.box_codec.decode_boxes`."""
    change, base = ops.cast(deltas, "float32"), ops.cast(anchors, "float32")
    change = change / ops.convert_to_tensor(weights, dtype="float32")
    size = base[..., 2:] - base[..., :2] + float(pixel_offset)
    middle = change[..., :2] * size + (base[..., :2] + 0.5 * size)
    growth = change[..., 2:] if clip is None else ops.minimum(change[..., 2:], clip)
    half = 0.5 * (ops.exp(growth) * size)
    return ops.concatenate([middle - half, middle + half], axis=-1)


@keras.saving.register_keras_serializable(package="visionkit")
class BoxDecode(keras.layers.Layer):
    """Boxes xyxy that deltas make of anchors, float32 (B, N, 4), or (B, N, L, 4) of deltas (B, N, 4 L).

    Called with `[deltas, anchors]` or `[deltas, anchors, size_hw]`: anchors (N, 4) or (B, N, 4); `size_hw` (B, 2) cuts
    the boxes to the image. The rule is `geometry.box_codec.decode_boxes`.

    Args:
        weights: of the four deltas.
        clip: the largest logarithm of a growth; None for none.
        pixel_offset: 1 counts both edge pixels, as py-faster-rcnn does.
        classes: how many boxes each anchor has; None is one, without an axis of its own.
    """

    def __init__(
        self,
        weights: Sequence[float] = (1, 1, 1, 1),
        *,
        clip: float | None = DELTA_CLIP,
        pixel_offset: int = 0,
        classes: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        if len(weights) != 4 or min(weights) <= 0:
            raise ValueError(f"`weights` must be four positive numbers. Received: weights={weights}.")
        self.weights_xywh, self.clip = tuple(float(w) for w in weights), clip
        self.pixel_offset, self.classes = pixel_offset, classes

    def build(self, input_shape: Any) -> None:
        """Check the shapes."""
        if len(input_shape) not in {2, 3}:
            raise ValueError(f"`inputs` must be [deltas, anchors] or with size_hw. Received: shapes={input_shape}.")
        deltas, anchors = (tuple(shape) for shape in input_shape[:2])
        if len(deltas) != 3 or deltas[2] != 4 * (self.classes or 1) or len(anchors) not in {2, 3} or anchors[-1] != 4:
            raise ValueError(
                f"Deltas must be (B, N, {4 * (self.classes or 1)}), anchors (N, 4) or (B, N, 4). "
                f"Received: {deltas} and {anchors}."
            )
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The boxes, see the class."""
        deltas, anchors = inputs[:2]
        if self.classes is not None:
            shape = ops.shape(deltas)
            deltas = ops.reshape(deltas, (shape[0], shape[1], self.classes, 4))
            anchors = anchors[..., None, :]
        boxes = decoded(deltas, anchors, self.weights_xywh, self.clip, self.pixel_offset)
        return clip_boxes(boxes, inputs[2], self.pixel_offset) if len(inputs) == 3 else boxes

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """(B, N, 4) or (B, N, L, 4)."""
        batch, count, _ = input_shape[0]
        count = input_shape[1][-2] if count is None else count
        return (batch, count, 4) if self.classes is None else (batch, count, self.classes, 4)

    def compute_output_spec(self, inputs: Any) -> Any:
        """float32 under any policy."""
        return keras.KerasTensor(self.compute_output_shape([x.shape for x in inputs]), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        return {
            **super().get_config(),
            "weights": self.weights_xywh,
            "clip": self.clip,
            "pixel_offset": self.pixel_offset,
            "classes": self.classes,
        }
