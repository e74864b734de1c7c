"""Gradients on whichever backend Keras runs: the one thing that `keras.ops` does not offer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.runtime.quiet import import_keras

__all__ = ["gradient"]

Array = npt.NDArray[np.float32]


def gradient(function: Callable[[Any], Any], at: npt.ArrayLike) -> tuple[Array, Array]:
    """Value of `function` and the gradient of its sum.

    Args:
        function: from a tensor to a tensor, made of Keras operations.
        at: where, float32 of any shape.

    Returns:
        The function's value, and the gradient in the shape of `at`, both float32.
    """
    keras = import_keras()
    point = keras.ops.convert_to_tensor(np.asarray(at, np.float32))
    value, slope = _WAYS[keras.backend.backend()](function, point)
    return tuple(np.asarray(keras.ops.convert_to_numpy(part), np.float32) for part in (value, slope))  # type: ignore[return-value]


def _tensorflow(function: Callable[[Any], Any], point: Any) -> tuple[Any, Any]:
    import tensorflow as tf

    # As a graph, which leaves out the gradients of the kernels: eagerly TensorFlow 2.21 computes them too, and its
    # oneDNN aborts the process over that of a 1x1 convolution of stride 2 with a single input channel.
    def both(point: Any) -> tuple[Any, Any]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(point)
            value = function(point)
        return value, tape.gradient(value, point, unconnected_gradients="zero")

    traced = tf.function(both, autograph=False).get_concrete_function(tf.TensorSpec(point.shape, point.dtype))
    return tuple(traced(point))


def _jax(function: Callable[[Any], Any], point: Any) -> tuple[Any, Any]:
    import jax

    value, pull = jax.vjp(function, point)
    return value, pull(jax.numpy.ones_like(value))[0]


def _torch(function: Callable[[Any], Any], point: Any) -> tuple[Any, Any]:
    import torch

    point = point.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        value = function(point)
        (slope,) = torch.autograd.grad(value.sum(), point, allow_unused=True)
    return value.detach(), torch.zeros_like(point) if slope is None else slope


_WAYS = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
