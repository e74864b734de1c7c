"""The mean of a cell's surroundings."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from visionkit.layers.windows import pair

__all__ = ["NeighbourhoodAverage2D"]


@keras.saving.register_keras_serializable(package="visionkit")
class NeighbourhoodAverage2D(keras.layers.Layer):
    """At each cell the mean over `size_hw` cells around it, (B, H, W, C) -> (B, H, W, C); H and W may be open.

    Near an edge the window is moved inside, not cut off: every mean is over as many cells, and on a map of `size_hw`
    it is the global mean at every cell. So a network that weighs its map by its global mean (squeeze and excitation)
    weighs each part of a larger map by the mean of its surroundings, as large as the map it was trained on.

    Args:
        size_hw: rows and columns of the window, or one integer for both.
    """

    def __init__(self, size_hw: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size_hw = pair(size_hw, "size_hw", least=1)

    def build(self, input_shape: Any) -> None:
        """Check that the window fits."""
        sizes = input_shape[1:3] if len(input_shape) == 4 else (0, 0)
        if any(n is not None and n < size for n, size in zip(sizes, self.size_hw, strict=True)):
            raise ValueError(
                "`inputs` must be (B, H, W, C), no smaller than the window. "
                f"Received: shape={tuple(input_shape)}, size_hw={self.size_hw}."
            )
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The means, see the class."""
        x = inputs
        for axis, size in enumerate(self.size_hw, 1):  # the mean over rows, then over columns of those
            length = ops.shape(inputs)[axis]
            window = (size, 1) if axis == 1 else (1, size)
            x = ops.average_pool(x, window, 1, "valid", "channels_last")
            x = ops.take(x, ops.clip(ops.arange(length) - size // 2, 0, length - size), axis=axis)
        return x

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """The shape of the input."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        return {**super().get_config(), "size_hw": self.size_hw}
