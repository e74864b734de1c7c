"""Bilinear enlarging: as weights of a transposed convolution, and as a resizing to the size of another map."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

__all__ = ["Bilinear", "ResizeLike", "bilinear_window"]


def bilinear_window(size: int) -> npt.NDArray[np.float64]:
    """The window (size, size) that interpolates between cells `(size + 1) // 2` pixels apart.

    Along each axis `1 - |i - c| / f` with `f = (size + 1) // 2`, and c the middle. At stride f, `2 f` puts the output's
    pixels between the cells, and equals a resizing with aligned centres away from the edge; `2 f - 1` puts one on each
    cell. Long, Shelhamer, Darrell, Fully convolutional networks, CVPR 2015, section 3.3.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"`size` must be a positive integer. Received: size={size!r}.")
    line = 1 - np.abs(np.arange(size) - (size - 1) / 2) / ((size + 1) // 2)
    return np.outer(line, line)


@keras.saving.register_keras_serializable(package="visionkit")
class Bilinear(keras.initializers.Initializer):
    """The kernel (k, k, C, C) of a transposed convolution that enlarges each channel by itself."""

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """The kernel, see the class."""
        if len(shape) != 4 or shape[0] != shape[1] or shape[2] != shape[3]:
            raise ValueError(f"`shape` must be (k, k, C, C). Received: shape={tuple(shape)}.")
        kernel = bilinear_window(int(shape[0]))[:, :, None, None] * np.eye(shape[2])
        return ops.convert_to_tensor(kernel.astype("float32"), dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        """No arguments."""
        return {}


@keras.saving.register_keras_serializable(package="visionkit")
class ResizeLike(keras.layers.Layer):
    """A map resized bilinearly to the size of another one; for open sizes, Keras's `Resizing` knows fixed ones.

    Called with `[map, like]`, (B, H, W, C) and (B, h, w, D), it gives (B, h, w, C). The centres of pixels are aligned
    (torch's `align_corners=False`), nothing is smoothed on the way down.
    """

    def build(self, input_shape: Any) -> None:
        """Check the shapes."""
        if len(input_shape) != 2 or any(len(shape) != 4 for shape in input_shape):
            raise ValueError(
                f"`inputs` must be [map, like], both (B, H, W, C). Received: {[tuple(s) for s in input_shape]}."
            )
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The resized map, see the class."""
        x, like = inputs
        return ops.image.resize(x, ops.shape(like)[1:3], interpolation="bilinear", data_format="channels_last")

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(B, h, w, C)."""
        x, like = input_shape
        return x[0], like[1], like[2], x[3]
