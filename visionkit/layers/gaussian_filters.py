"""Filtering by Gaussian kernels without approximation, of Keras operations only: over all pairs, and over a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops

__all__ = ["AllPairs", "GridBlur"]

KEPT_VALUES = 2**24  # of kernel matrices that are kept from call to call, 64 MiB; larger ones are made slab by slab
REACH = 5.0  # widths; what lies beyond adds 6e-7


class AllPairs:
    """Multiplication of (B, N, L) by exp(-|f_i - f_j|^2 / 2) of all pairs of points of a sample.

    Features are constants. Where N is open the matrix is made at once, however large.

    Args:
        features: float32 (B, N, d).
    """

    def __init__(self, features: Any) -> None:
        self.features = ops.stop_gradient(features)
        batch, points = self.features.shape[:2]
        fits = points is None or (batch or 1) * points * points <= KEPT_VALUES
        self.kernel = self._rows(0, points) if fits else None
        step = 0 if fits else max(1, KEPT_VALUES // points)
        self.slabs = [] if fits else [(i, min(i + step, points)) for i in range(0, points, step)]

    def __call__(self, values: Any) -> Any:
        """The filtered values, float32 (B, N, L)."""
        if self.kernel is not None:
            return ops.matmul(self.kernel, values)
        return ops.concatenate([ops.matmul(self._rows(a, b), values) for a, b in self.slabs], axis=1)

    def _rows(self, start: int, stop: int | None) -> Any:
        """Rows of the matrix, (B, rows, N). Differences, not products of features: those cancel at narrow widths."""
        squares: Any = 0.0
        for k in range(self.features.shape[2]):
            column = self.features[:, :, k]
            squares = squares + ops.square(column[:, start:stop, None] - column[:, None, :])
        return ops.exp(-0.5 * squares)


class GridBlur:
    """Multiplication of (B, H, W, L) by exp(-|p_i - p_j|^2 / 2) of all pairs of pixels, p in units of the widths.

    Args:
        width_xy: in pixels.
        size_hw: None where open.
    """

    def __init__(self, width_xy: Sequence[float], size_hw: Sequence[int | None]) -> None:
        self.windows = [_window(width, size) for width, size in zip(width_xy[::-1], size_hw, strict=True)]

    def __call__(self, values: Any) -> Any:
        """The filtered values, float32 (B, H, W, L)."""
        labels = values.shape[-1]
        for axis, window in enumerate(self.windows):
            shape = [1, 1, 1, 1]
            shape[axis] = len(window)
            kernel = ops.convert_to_tensor(np.tile(window.reshape(shape), (1, 1, labels, 1)))
            values = ops.depthwise_conv(values, kernel, strides=1, padding="same", data_format="channels_last")
        return values


def _window(width: float, size: int | None) -> npt.NDArray[np.float32]:
    radius = math.ceil(REACH * width)
    if size is not None:
        radius = min(radius, size - 1)
    steps = np.arange(-radius, radius + 1) / width
    return np.asarray(np.exp(-0.5 * steps**2), np.float32)
