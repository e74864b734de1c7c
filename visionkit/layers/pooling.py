"""Pooling with torch's and Caffe's rules of size, adaptive average pooling, and pooling by a p-norm."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from visionkit.layers.windows import Window, pair

__all__ = ["AdaptiveAveragePooling2D", "CeilAveragePooling2D", "CeilMaxPooling2D", "LpPooling2D"]


class _Pooling(keras.layers.Layer):
    """What the pooling layers have in common: windows along the two axes, and an output as large as they are many."""

    def __init__(self, pool_size: Any, strides: Any, padding: Any, *, ceil_mode: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pool_size = pair(pool_size, "pool_size", least=1)
        self.strides = self.pool_size if strides is None else pair(strides, "strides", least=1)
        self.padding = pair(padding, "padding", least=0)
        self.ceil_mode = ceil_mode
        if any(2 * p > k for p, k in zip(self.padding, self.pool_size, strict=True)):
            raise ValueError(
                "`padding` must be at most half of `pool_size`. "
                f"Received: padding={self.padding}, pool_size={self.pool_size}."
            )
        self._windows = tuple(
            Window(*sizes, ceil_mode) for sizes in zip(self.pool_size, self.strides, self.padding, strict=True)
        )

    def build(self, input_shape: Any) -> None:
        """Check that one window fits at least."""
        if len(input_shape) != 4:
            raise ValueError(f"`inputs` must be (B, H, W, C). Received: shape={tuple(input_shape)}.")
        if any(n is not None and n < 1 for n in self.compute_output_shape(input_shape)[1:3]):
            raise ValueError(
                "No window fits into the map. "
                f"Received: shape={tuple(input_shape)}, pool_size={self.pool_size}, padding={self.padding}."
            )
        self.built = True

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(B, H', W', C): H' by the floor or ceil rule."""
        batch, *sizes, channels = input_shape
        counts = (None if n is None else window.count(n) for window, n in zip(self._windows, sizes, strict=True))
        return batch, *counts, channels

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        names = ("pool_size", "strides", "padding")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    def _margins(self, sizes: tuple[Any, Any]) -> list[Any]:
        return [window.margins(n) for window, n in zip(self._windows, sizes, strict=True)]

    def _is_same(self, shape: Any) -> bool:
        """Whether the framework's own "same" has these very windows: one operation less, and one that quantizes."""
        sizes = tuple(shape[1:3])
        return None not in sizes and all(w.is_same(n) for w, n in zip(self._windows, sizes, strict=True))


def _sizes(x: Any) -> tuple[Any, Any]:
    """Height and width: integers where they are known, else scalar tensors."""
    shape = ops.shape(x)
    return shape[1], shape[2]


def _pad(x: Any, margins: list[Any], value: float) -> Any:
    if all(isinstance(n, int) and n == 0 for pair_ in margins for n in pair_):
        return x
    return ops.pad(x, [(0, 0), *margins, (0, 0)], constant_values=value)


@keras.saving.register_keras_serializable(package="visionkit")
class CeilMaxPooling2D(_Pooling):
    """The largest value of each window, (B, H, W, C) -> (B, H', W', C), `H' = ceil((H + 2 padding - k) / s) + 1`.

    Caffe's and torch's `ceil_mode`: a last window may hang over the edge, but must start inside the map or its
    left padding. That is not Keras's "same": 55 pixels, window 3, stride 2 give 27 here and 28 there. What lies
    outside counts as minus infinity.

    Args:
        pool_size: window (height, width) in pixels, or one integer for both.
        strides: step; None is `pool_size`.
        padding: pixels on each side, at most half of the window.
    """

    def __init__(self, pool_size: Any, strides: Any = None, padding: Any = 0, **kwargs: Any) -> None:
        super().__init__(pool_size, strides, padding, ceil_mode=True, **kwargs)

    def call(self, inputs: Any) -> Any:
        """The pooled map, see the class."""
        if self._is_same(inputs.shape):
            return ops.max_pool(inputs, self.pool_size, self.strides, "same", "channels_last")
        padded = _pad(inputs, self._margins(_sizes(inputs)), -math.inf)
        return ops.max_pool(padded, self.pool_size, self.strides, "valid", "channels_last")


@keras.saving.register_keras_serializable(package="visionkit")
class CeilAveragePooling2D(_Pooling):
    """The mean of each window, (B, H, W, C) -> (B, H', W', C), with the sizes of `CeilMaxPooling2D` or the floor rule.

    Args:
        pool_size: window (height, width) in pixels, or one integer for both.
        strides: step; None is `pool_size`.
        padding: pixels of zeros on each side, at most half of the window.
        ceil_mode: a last window may hang over the edge (True), or the rest is left out (False).
        count_include_pad: the zeros of the padding count in the mean (torch's default, Caffe), or only the map's pixels
            do (Keras's "same"). What hangs over the padding never counts.
    """

    def __init__(
        self,
        pool_size: Any,
        strides: Any = None,
        padding: Any = 0,
        *,
        ceil_mode: bool = True,
        count_include_pad: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(pool_size, strides, padding, ceil_mode=ceil_mode, **kwargs)
        self.count_include_pad = count_include_pad

    def call(self, inputs: Any) -> Any:
        """The pooled map, see the class."""
        sizes = _sizes(inputs)
        padded = _pad(inputs, self._margins(sizes), 0.0)
        mean = ops.average_pool(padded, self.pool_size, self.strides, "valid", "channels_last")
        shares = [w.shares(n, self.count_include_pad) for w, n in zip(self._windows, sizes, strict=True)]
        if all(isinstance(share, np.ndarray) and (share == 1).all() for share in shares):
            return mean
        rows, columns = (ops.cast(share, mean.dtype) for share in shares)
        return mean / (ops.reshape(rows, (1, -1, 1, 1)) * ops.reshape(columns, (1, 1, -1, 1)))

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        return {**super().get_config(), "ceil_mode": self.ceil_mode, "count_include_pad": self.count_include_pad}


@keras.saving.register_keras_serializable(package="visionkit")
class LpPooling2D(_Pooling):
    """The p-norm mean of each window, `(mean of |x|^p)^(1/p)`: (B, H, W, C) -> (B, H', W', C), floor rule.

    p = 1 is the mean of magnitudes, 2 the root of the mean square, infinity the largest magnitude; p = 64 is within
    3.4 % of that for 9 values. Sermanet, Chintala, LeCun, Convolutional neural networks applied to house numbers digit
    classification, ICPR 2012, section 2.2 (there with weights). Torch's `LPPool2d` sums where this takes the mean.

    Args:
        p: from 1 to infinity.
        pool_size: window (height, width) in pixels, or one integer for both.
        strides: step; None is `pool_size`.
        padding: pixels of zeros on each side, which count as values of the window.
    """

    def __init__(self, p: float, pool_size: Any = 2, strides: Any = None, padding: Any = 0, **kwargs: Any) -> None:
        super().__init__(pool_size, strides, padding, ceil_mode=False, **kwargs)
        if not p >= 1:
            raise ValueError(f"`p` must be from 1 to infinity. Received: p={p!r}.")
        self.p = float(p)

    def call(self, inputs: Any) -> Any:
        """The pooled map, see the class."""
        x = _pad(ops.absolute(inputs), self._margins(_sizes(inputs)), 0.0)
        window = (self.pool_size, self.strides, "valid", "channels_last")
        if self.p == 1:
            return ops.average_pool(x, *window)
        largest = ops.max_pool(x, *window)
        if math.isinf(self.p):
            return largest
        return self._norm(x, largest)

    def _norm(self, x: Any, largest: Any) -> Any:
        """The norm of each window in units of its largest value, or 3^64 and the like would leave float32."""
        (k_h, k_w), (s_h, s_w) = self.pool_size, self.strides
        (height, width), tiny = _sizes(largest), 1e-30
        unit = ops.maximum(largest, tiny)
        total = 0.0
        for i in range(k_h):
            for j in range(k_w):
                value = x[:, i : i + (height - 1) * s_h + 1 : s_h, j : j + (width - 1) * s_w + 1 : s_w]
                total = total + ops.power(value / unit, self.p)
        total = ops.where(largest > tiny, total, 1.0)  # the root has no slope at 0, and ReLU leaves empty windows
        return largest * ops.power(total / (k_h * k_w), 1 / self.p)

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        return {**super().get_config(), "p": self.p}


@keras.saving.register_keras_serializable(package="visionkit")
class AdaptiveAveragePooling2D(keras.layers.Layer):
    """Means of `output_hw` cells that cover the map, (B, H, W, C) -> (B, *output_hw, C), for any H and W, open or not.

    Torch's rule: cell i of n spans pixels floor(i H / n) to ceil((i + 1) H / n), so cells may overlap, and repeat
    pixels where the map is smaller than the grid. Keras's layer of that name needs the sizes known.

    Args:
        output_hw: cells (rows, columns), or one integer for both.
    """

    def __init__(self, output_hw: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.output_hw = pair(output_hw, "output_hw", least=1)

    def build(self, input_shape: Any) -> None:
        """Check the shape."""
        if len(input_shape) != 4:
            raise ValueError(f"`inputs` must be (B, H, W, C). Received: shape={tuple(input_shape)}.")
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The means, see the class."""
        sizes, cells = tuple(inputs.shape[1:3]), self.output_hw
        if cells == (1, 1):
            return ops.mean(inputs, axis=(1, 2), keepdims=True)
        if None not in sizes and all(n % cell == 0 for n, cell in zip(sizes, cells, strict=True)):
            window = tuple(n // cell for n, cell in zip(sizes, cells, strict=True))
            return inputs if window == (1, 1) else ops.average_pool(inputs, window, window, "valid", "channels_last")
        rows, columns = (_cells(n, cell, inputs.dtype) for n, cell in zip(_sizes(inputs), cells, strict=True))
        x = ops.transpose(inputs, (0, 3, 1, 2))  # (B, C, H, W)
        x = ops.matmul(ops.matmul(rows, x), ops.transpose(columns))  # (B, C, rows, columns)
        return ops.transpose(x, (0, 2, 3, 1))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(B, rows, columns, C)."""
        return input_shape[0], *self.output_hw, input_shape[3]

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        return {**super().get_config(), "output_hw": self.output_hw}


def _cells(size: Any, count: int, dtype: Any) -> Any:
    """The matrix (count, size) that takes the mean of each cell's pixels; `size` is an integer or a scalar tensor."""
    xp: Any = np if isinstance(size, int) else ops
    cell = xp.reshape(xp.arange(count, dtype="int32"), (-1, 1))
    pixel = xp.reshape(xp.arange(size, dtype="int32"), (1, -1))
    start, stop = cell * size // count, -(-(cell + 1) * size // count)
    inside = (pixel >= start) & (pixel < stop)
    return ops.cast(inside, dtype) / ops.cast(stop - start, dtype)
