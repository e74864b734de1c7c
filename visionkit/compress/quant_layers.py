"""Keras's layers with weights, calculating with weights that are rounded to eight bits at every call. Any backend.

Each has the arguments and the variables of its parent, so that weights go from one to the other by name. Without an
activation: what is quantized is what comes behind it.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from visionkit.compress.fake_quant import fake_quantize_weights, quantize_weights

__all__ = ["TWINS", "QuantConv2D", "QuantConv2DTranspose", "QuantDense", "QuantDepthwiseConv2D", "kernel_axes"]

Floats = npt.NDArray[np.float32]


class _Twin:
    """What the twins share; `linear` is the operation itself, on any kernel.

    Attributes:
        kernel_axes: of the kernel, all but the output channels'.
    """

    kernel_axes: tuple[int, ...]
    kernel: Any
    bias: Any

    def linear(self, inputs: Any, kernel: Any) -> Any:
        """The operation with another kernel, without the bias."""
        raise NotImplementedError

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The operation with rounded weights, in training and in inference alike."""
        outputs = self.linear(inputs, fake_quantize_weights(self.kernel, self.kernel_axes))
        return outputs if self.bias is None else outputs + self.bias

    def rounded(self) -> Floats:
        """The kernel that `call` calculates with."""
        levels, scales = quantize_weights(np.asarray(ops.convert_to_numpy(self.kernel)), self.kernel_axes)
        return levels.astype(np.float32) * scales


@keras.saving.register_keras_serializable(package="visionkit")
class QuantConv2D(_Twin, keras.layers.Conv2D):
    """`Conv2D` with rounded weights."""

    kernel_axes = (0, 1, 2)  # (h, w, C / groups, filters)

    def linear(self, inputs: Any, kernel: Any) -> Any:
        """(B, H, W, C) and (h, w, C / groups, filters) -> (B, H', W', filters)."""
        return self.convolution_op(inputs, kernel)


@keras.saving.register_keras_serializable(package="visionkit")
class QuantDepthwiseConv2D(_Twin, keras.layers.DepthwiseConv2D):
    """`DepthwiseConv2D` with rounded weights."""

    kernel_axes = (0, 1)  # (h, w, C, multiplier)

    def linear(self, inputs: Any, kernel: Any) -> Any:
        """(B, H, W, C) and (h, w, C, multiplier) -> (B, H', W', C * multiplier)."""
        how = {"strides": self.strides, "padding": self.padding, "dilation_rate": self.dilation_rate}
        return ops.depthwise_conv(inputs, kernel, data_format=self.data_format, **how)


@keras.saving.register_keras_serializable(package="visionkit")
class QuantConv2DTranspose(_Twin, keras.layers.Conv2DTranspose):
    """`Conv2DTranspose` with rounded weights."""

    kernel_axes = (0, 1, 3)  # (h, w, filters, C)

    def linear(self, inputs: Any, kernel: Any) -> Any:
        """(B, H, W, C) and (h, w, filters, C) -> (B, H', W', filters)."""
        return ops.conv_transpose(
            inputs,
            kernel,
            strides=list(self.strides),
            padding=self.padding,
            output_padding=self.output_padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )


@keras.saving.register_keras_serializable(package="visionkit")
class QuantDense(_Twin, keras.layers.Dense):
    """`Dense` with rounded weights."""

    kernel_axes = (0,)  # (C, units)

    def linear(self, inputs: Any, kernel: Any) -> Any:
        """(…, C) and (C, units) -> (…, units)."""
        return ops.matmul(inputs, kernel)


TWINS: dict[type, type] = {
    keras.layers.Conv2D: QuantConv2D,
    keras.layers.DepthwiseConv2D: QuantDepthwiseConv2D,
    keras.layers.Conv2DTranspose: QuantConv2DTranspose,
    keras.layers.Dense: QuantDense,
}


def kernel_axes(layer: Any) -> tuple[int, ...]:
    """Of a layer that has a twin, the axes of its kernel that share a scale."""
    return TWINS[type(layer)].kernel_axes  # type: ignore[attr-defined]
