"""Fake quantization in NumPy, and that of Keras's backends beside it.

Run as a program, it prints how far the layers are off: `KERAS_BACKEND=jax python -m tests.compress.fake_quant_cases`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

LOW, HIGH = -1.3, 2.1


def rounded_weights(kernel: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """QNT-1 in float64: w -> round(w / s) s with s = max |w| / 127 over `axes`."""
    kernel = kernel.astype(np.float64)
    scale = np.abs(kernel).max(axis=axes, keepdims=True) / 127
    scale[scale == 0] = 1
    return np.round(kernel / scale) * scale


def rounded_activations(x: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """x -> (clip(round(x / s) + z, -128, 127) - z) s, and whether x lies between the outermost levels."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    zero = np.clip(np.round(-128 - low / scale), -128, 127)
    level = np.clip(np.round(x.astype(np.float64) / scale) + zero, -128, 127)
    return (level - zero) * scale, (x >= (-128 - zero) * scale) & (x <= (127 - zero) * scale)


def samples() -> np.ndarray:
    """Activations inside and outside of LOW … HIGH, none so near to the middle of two levels that float32 decides."""
    x = np.random.default_rng(0).uniform(-2, 3, (7, 11)).astype(np.float32)
    step = (HIGH - LOW) / 255
    part = np.abs(x / step - np.floor(x / step) - 0.5)
    return np.where(part < 1e-3, x + 0.01 * step, x).astype(np.float32)


def gradients(function: Any, *arrays: np.ndarray) -> list[np.ndarray]:
    """Of the sum of `function` to each array, on whatever backend runs."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tensors = [tf.constant(array) for array in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            total = tf.reduce_sum(function(*tensors))
        found = tape.gradient(total, tensors)
        return [np.zeros_like(a) if g is None else np.asarray(g) for a, g in zip(arrays, found, strict=True)]
    if backend == "jax":
        import jax

        found = jax.grad(lambda *given: function(*given).sum(), argnums=tuple(range(len(arrays))))(*arrays)
        return [np.asarray(one) for one in found]
    import torch

    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    function(*tensors).sum().backward()
    return [np.zeros_like(a) if t.grad is None else t.grad.numpy() for a, t in zip(arrays, tensors, strict=True)]


def fitted() -> tuple[float, float]:
    """Loss of a small rounding network before and after some steps of `fit`."""
    import keras

    from visionkit.compress.qat import quantize_aware

    keras.utils.set_random_seed(0)
    image = keras.Input((8, 6, 3), name="image")
    x = keras.layers.Conv2D(8, 3, use_bias=False, name="conv")(image)
    x = keras.layers.ReLU(name="relu")(keras.layers.BatchNormalization(name="norm")(x))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, keras.layers.Dense(3, name="logits")(x))
    network = quantize_aware(model, batch_norm="train")
    images = np.random.default_rng(1).normal(size=(48, 8, 6, 3)).astype(np.float32)
    labels = images.mean(axis=(1, 2)).argmax(axis=-1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(0.02), loss, jit_compile=False)
    history = network.fit(images, labels, epochs=8, batch_size=16, verbose=0, shuffle=False).history["loss"]
    return history[0], history[-1]


def report() -> dict[str, float]:
    """How far the backend's layers are from NumPy, and what they give the gradients."""
    import keras

    from visionkit.compress.fake_quant import fake_quantize, fake_quantize_weights

    kernel = np.random.default_rng(2).normal(size=(3, 3, 4, 5)).astype(np.float32)
    x = samples()
    wanted, inside = rounded_activations(x, LOW, HIGH)
    found = keras.ops.convert_to_numpy(fake_quantize(keras.ops.convert_to_tensor(x), LOW, HIGH))
    weights = keras.ops.convert_to_numpy(fake_quantize_weights(keras.ops.convert_to_tensor(kernel), (0, 1, 2)))
    (slope,) = gradients(lambda t: fake_quantize(t, LOW, HIGH), x)
    (even,) = gradients(lambda t: fake_quantize_weights(t, (0, 1, 2)), kernel)
    first, last = fitted()
    return {
        "activations": float(np.abs(found - wanted).max()),
        "weights": float(np.abs(weights - rounded_weights(kernel, (0, 1, 2))).max()),
        "slope": float(np.abs(slope - inside).max()),
        "even": float(np.abs(even - 1).max()),
        "learnt": first - last,
    }


if __name__ == "__main__":
    print(json.dumps(report()))
