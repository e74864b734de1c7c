"""Maxout units."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

__all__ = ["Maxout"]


@keras.saving.register_keras_serializable(package="visionkit")
class Maxout(keras.layers.Layer):
    """The largest of `pieces` affine maps for each output channel, (..., D) -> (..., channels).

    Goodfellow, Warde-Farley, Mirza, Courville, Bengio, Maxout networks, ICML 2013, section 3:
    `h_i(x) = max over j of x^T W[:, i, j] + b[i, j]`. On a map it acts at each position, as a 1x1 convolution does.

    Args:
        channels: outputs.
        pieces: affine maps to choose from; 1 is a plain linear layer.
    """

    def __init__(self, channels: int, pieces: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name, value in (("channels", channels), ("pieces", pieces)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}.")
        self.channels = channels
        self.pieces = pieces

    def build(self, input_shape: Any) -> None:
        """Make W (D, channels * pieces), a unit's pieces side by side, and the bias."""
        if len(input_shape) < 2 or input_shape[-1] is None:
            raise ValueError(f"`inputs` must be (B, ..., D), D known. Received: shape={tuple(input_shape)}.")
        units = self.channels * self.pieces
        self.kernel = self.add_weight(shape=(input_shape[-1], units), initializer="glorot_uniform", name="kernel")
        self.bias = self.add_weight(shape=(units,), initializer="zeros", name="bias")
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The maximum over the pieces, see the class."""
        affine = ops.add(ops.matmul(inputs, self.kernel), self.bias)
        shape = ops.shape(inputs)[:-1]
        return ops.max(ops.reshape(affine, (*shape, self.channels, self.pieces)), axis=-1)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """The shape of the input with `channels` at the end."""
        return (*input_shape[:-1], self.channels)

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        return {**super().get_config(), "channels": self.channels, "pieces": self.pieces}
