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
    (torch's `align_corners=False`), nothing is smoothed on the way down. `keras.ops.image.resize`, and with it
    `UpSampling2D`, cannot be compiled for sizes that are open, so rows and columns are gathered and weighed here.
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
        for axis in (1, 2):
            x = _stretched(x, axis, ops.shape(like)[axis])
        return x

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(B, h, w, C)."""
        x, like = input_shape
        return x[0], like[1], like[2], x[3]


def _stretched(x: Any, axis: int, wanted: Any) -> Any:
    """One axis of a map (B, H, W, C) resized to `wanted`, an integer or a scalar tensor."""
    size = ops.shape(x)[axis]
    if isinstance(size, int) and size == 1:
        return ops.repeat(x, wanted, axis=axis) if isinstance(wanted, int) else ops.take(x, _zeros(wanted), axis=axis)
    ratio = ops.cast(size, "float32") / ops.cast(wanted, "float32")
    place = (ops.arange(wanted, dtype="float32") + 0.5) * ratio - 0.5
    place = ops.clip(place, 0.0, ops.cast(size, "float32") - 1)
    low = ops.cast(ops.floor(place), "int32")
    high = ops.minimum(low + 1, size - 1)
    share = ops.reshape(ops.cast(place - ops.cast(low, "float32"), x.dtype), (-1, 1, 1) if axis == 1 else (-1, 1))
    first, second = ops.take(x, low, axis=axis), ops.take(x, high, axis=axis)
    return first + (second - first) * share


def _zeros(count: Any) -> Any:
    return ops.arange(count, dtype="int32") * 0
