"""An independent forward pass in NumPy: torch's definitions of the layers on (B, H, W, C), a model's weights by name.

Written from the definitions, with explicit padding in pixels, and never from what the networks' code asks Keras for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

__all__ = ["Weights", "activations", "max_pool", "mean_pool", "randomize", "relu", "worst"]

Pair = int | tuple[int, int]


def pair(value: Pair) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def windows(x: np.ndarray, kernel: Pair, stride: Pair, dilation: int = 1) -> np.ndarray:
    """(B, H', W', k_h, k_w, C): every window that fits."""
    (k_h, k_w), (s_h, s_w) = pair(kernel), pair(stride)
    span = (dilation * (k_h - 1) + 1, dilation * (k_w - 1) + 1)
    view = np.lib.stride_tricks.sliding_window_view(x, span, (1, 2))  # (B, H', W', C, span)
    return view[:, ::s_h, ::s_w, :, ::dilation, ::dilation].transpose(0, 1, 2, 4, 5, 3)


def pad(x: np.ndarray, padding: Pair, value: float = 0.0) -> np.ndarray:
    (p_h, p_w) = pair(padding)
    return np.pad(x, ((0, 0), (p_h, p_h), (p_w, p_w), (0, 0)), constant_values=value)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def max_pool(x: np.ndarray, kernel: int, stride: int, padding: int = 0, *, ceil: bool = False) -> np.ndarray:
    """The largest value of each window; with `ceil` the last window may hang over the edge by less than a stride."""
    x = pad(x, padding, -math.inf)
    if ceil:
        after = [-(n - kernel) % stride for n in x.shape[1:3]]
        x = np.pad(x, ((0, 0), (0, after[0]), (0, after[1]), (0, 0)), constant_values=-math.inf)
    return windows(x, kernel, stride).max((3, 4))


def mean_pool(x: np.ndarray, kernel: int, stride: int, padding: int = 0) -> np.ndarray:
    """The mean of each window, the zeros of the padding counted."""
    return windows(pad(x, padding), kernel, stride).mean((3, 4))


class Weights:
    """A Keras model's layers as NumPy functions: `weights.conv("conv1", x, padding=1)`."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model

    def of(self, name: str) -> list[np.ndarray]:
        return [np.asarray(w, np.float64) for w in self.model.get_layer(name).get_weights()]

    def conv(
        self, name: str, x: np.ndarray, *, stride: Pair = 1, padding: Pair = 0, dilation: int = 1, groups: int = 1
    ) -> np.ndarray:
        """Cross-correlation. Group g reads the g-th run of input channels and writes the g-th run of outputs."""
        kernel, *bias = self.of(name)
        if kernel.shape[3] == 1 and kernel.shape[2] == x.shape[3] == groups:  # depthwise: (kh, kw, C, 1)
            kernel = kernel.transpose(0, 1, 3, 2)
        patches = windows(pad(x, padding), kernel.shape[:2], stride, dilation)
        parts = zip(np.split(patches, groups, -1), np.split(kernel, groups, -1), strict=True)
        y = np.concatenate([np.tensordot(part, k, 3) for part, k in parts], -1)
        return y + bias[0] if bias else y

    def norm(self, name: str, x: np.ndarray, epsilon: float) -> np.ndarray:
        gamma, beta, mean, variance = self.of(name)
        return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta

    def dense(self, name: str, x: np.ndarray) -> np.ndarray:
        kernel, bias = self.of(name)
        return x @ kernel + bias


def randomize(model: keras.Model, seed: int = 0) -> keras.Model:
    """Fills every weight: kernels keep the scale of their input, norms and biases are far from their neutral values."""
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            count = layer.gamma.shape[0]
            spans = [(0.5, 1.5), (-0.2, 0.2), (-0.3, 0.3)]
            values = [generator.uniform(*span, count) for span in spans]
            # small variances too, or the epsilon would not show
            layer.set_weights([*values, 10 ** generator.uniform(-2, 0.5, count)])
        elif layer.weights and not isinstance(layer, keras.layers.Dropout):
            layer.set_weights([filled(generator, tuple(w.shape)) for w in layer.weights])
    return model


def filled(generator: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    if len(shape) == 1:
        return generator.normal(0, 0.1, shape)
    fan_in = math.prod(shape[:2]) if shape[-1] == 1 and len(shape) == 4 else math.prod(shape[:-1])
    return generator.normal(0, math.sqrt(2 / fan_in), shape)


def activations(model: keras.Model, image: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """What the layers of these names give, by Keras."""
    outputs = {name: model.get_layer(name).output for name in names}
    answers: Any = keras.Model(model.input, outputs)(image, training=False)
    return {name: keras.ops.convert_to_numpy(value) for name, value in answers.items()}


def worst(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> float:
    """The largest difference of any layer, relative to the largest value of that layer."""
    differences = []
    for name, value in want.items():
        if got[name].shape != value.shape:
            raise ValueError(f"{name} is {got[name].shape} by Keras and {value.shape} by NumPy.")
        differences.append(np.abs(got[name] - value).max() / np.abs(value).max())
    return float(max(differences))
