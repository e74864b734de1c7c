"""Local response normalisation, AlexNet's."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

__all__ = ["LocalResponseNormalization"]


@keras.saving.register_keras_serializable(package="visionkit")
class LocalResponseNormalization(keras.layers.Layer):
    """Divides each value by the energy of its neighbours across channels, (B, H, W, C) -> the same shape.

    `y_c = x_c / (k + a * sum of x_j^2)^beta`, where j runs over the `size` channels centred on c (those that exist).
    Krizhevsky, Sutskever, Hinton, ImageNet classification with deep convolutional neural networks, NIPS 2012,
    section 3.3, has `a = alpha`, as TensorFlow does; cuda-convnet, Caffe and torch divide by the window:
    `a = alpha / size`. Weights trained with one are wrong in the other, so an importer must say which.

    Args:
        size: channels in a window, n in the paper; not a radius (TensorFlow's `depth_radius` is `size // 2`).
        alpha: weight of the sum of squares.
        beta: the exponent.
        k: added to the sum, positive.
        divide_by_size: the paper's formula (False) or Caffe's and torch's reading of alpha (True).
    """

    def __init__(
        self,
        size: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 2.0,
        *,
        divide_by_size: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"`size` must be a positive integer. Received: size={size!r}.")
        if alpha < 0 or k <= 0:
            raise ValueError(f"`alpha` must not be negative, `k` must be positive. Received: alpha={alpha}, k={k}.")
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k
        self.divide_by_size = divide_by_size

    def build(self, input_shape: Any) -> None:
        """Check the shape: the sum is over channels, the last axis."""
        if len(input_shape) != 4 or input_shape[-1] is None:
            raise ValueError(f"`inputs` must be (B, H, W, C), C known. Received: shape={tuple(input_shape)}.")
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The normalised map, see the class."""
        channels = inputs.shape[-1]
        before = self.size // 2  # torch's side of an even window
        padded = ops.pad(ops.square(inputs), [[0, 0], [0, 0], [0, 0], [before, self.size - 1 - before]])
        energy = padded[..., :channels]
        for offset in range(1, self.size):
            energy = energy + padded[..., offset : offset + channels]
        weight = self.alpha / self.size if self.divide_by_size else self.alpha
        return inputs * ops.power(self.k + weight * energy, -self.beta)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """The shape of the input."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        names = ("size", "alpha", "beta", "k", "divide_by_size")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
