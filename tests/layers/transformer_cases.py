"""A spatial transformer in NumPy float64 by way of scipy, and gradients of the layer on whatever backend runs.

Run as a program, it prints how far the layer is off: `KERAS_BACKEND=jax python -m tests.layers.transformer_cases`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from scipy.ndimage import map_coordinates

from visionkit.geometry.transformer import identity_theta, transform_points

TRANSFORMS = ("affine", "attention", "projective", "tps")
CONTROL = (3, 4)
BORDERS = {"zero": "grid-constant", "clamp": "nearest"}


def grid(size_hw: tuple[int, int], align_corners: bool) -> np.ndarray:
    """Points (h * w, 2) xy of an output on [-1, 1], one by one as the formula says."""
    h, w = size_hw
    if align_corners:
        return np.array([[2 * j / (w - 1) - 1, 2 * i / (h - 1) - 1] for i in range(h) for j in range(w)])
    return np.array([[(2 * j + 1) / w - 1, (2 * i + 1) / h - 1] for i in range(h) for j in range(w)])


def places(theta: np.ndarray, size_hw: Any, out_hw: Any, transform: str, align_corners: bool) -> np.ndarray:
    """Pixel indices (h * w, 2) xy of the input that an output is read at."""
    x, y = transform_points(theta, grid(out_hw, align_corners), transform, CONTROL).T
    height, width = size_hw
    if align_corners:
        return np.stack([(x + 1) * (width - 1) / 2, (y + 1) * (height - 1) / 2], axis=-1)
    return np.stack([((x + 1) * width - 1) / 2, ((y + 1) * height - 1) / 2], axis=-1)


def reference(
    images: np.ndarray,
    thetas: np.ndarray,
    out_hw: Any,
    transform: str = "affine",
    align_corners: bool = False,
    border: str = "zero",
) -> np.ndarray:
    """(B, h, w, C) float64: a loop over images and channels, each read by scipy."""
    out = np.zeros((len(images), *out_hw, images.shape[3]))
    for b, (image, theta) in enumerate(zip(images.astype(np.float64), thetas, strict=True)):
        x, y = places(np.asarray(theta, np.float64), image.shape[:2], out_hw, transform, align_corners).T
        for c in range(image.shape[2]):
            found = map_coordinates(image[..., c], [y, x], order=1, mode=BORDERS[border], cval=0.0)
            out[b, ..., c] = found.reshape(out_hw)
    return out


def generic_theta(transform: str, batch: int = 2, seed: int = 0, spread: float = 0.15) -> np.ndarray:
    """Thetas (B, n) near the identity, no two alike."""
    rng = np.random.default_rng(seed)
    identity = identity_theta(transform, CONTROL)
    return (identity + rng.uniform(-spread, spread, (batch, len(identity)))).astype(np.float32)


def gradients(layer: Any, image: np.ndarray, theta: np.ndarray, weights: np.ndarray) -> tuple[Any, Any]:
    """Of the sum of the output times `weights`: to the image and to theta, on the backend of the day."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        given = [tf.constant(image), tf.constant(theta)]
        with tf.GradientTape() as tape:
            tape.watch(given)
            loss = tf.reduce_sum(layer(given) * weights)
        found = tape.gradient(loss, given)
    elif backend == "jax":
        import jax

        found = jax.jit(jax.grad(lambda x, t: (layer([x, t]) * weights).sum(), argnums=(0, 1)))(image, theta)
    else:
        import torch

        device = keras.ops.convert_to_tensor(image).device
        given = [torch.tensor(value, device=device, requires_grad=True) for value in (image, theta)]
        (layer(given) * torch.tensor(weights, device=device)).sum().backward()
        found = [value.grad.cpu() for value in given]
    return tuple(None if value is None else np.asarray(value) for value in found)


def differences(
    image: np.ndarray, theta: np.ndarray, weights: np.ndarray, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The same gradients by central differences of the reference in float64: theta's numbers, some of the pixels."""

    def loss(images: np.ndarray, thetas: np.ndarray) -> float:
        return float((reference(images, thetas, weights.shape[1:3], **options) * weights).sum())

    step, found = 1e-6, []
    for which, value in enumerate((image.astype(np.float64), theta.astype(np.float64))):
        slopes = np.zeros(value.shape)
        for place in np.ndindex(value.shape):
            ends = []
            for sign in (1, -1):
                moved = value.copy()
                moved[place] += sign * step
                ends.append(loss(moved, theta) if which == 0 else loss(image, moved))
            slopes[place] = (ends[0] - ends[1]) / (2 * step)
        found.append(slopes)
    return found[0], found[1]


def gradient_errors(transform: str, align_corners: bool, border: str) -> dict[str, float]:
    """Largest error of both gradients against differences, as a share of the largest slope; and of the output."""
    from visionkit.layers import SpatialTransformer

    rng = np.random.default_rng(5)
    image = rng.random((2, 6, 7, 2), dtype=np.float32)
    weights = rng.normal(size=(2, 5, 4, 2)).astype(np.float32)
    theta = generic_theta(transform)
    options = {"transform": transform, "align_corners": align_corners, "border": border}
    layer = SpatialTransformer((5, 4), control=CONTROL, **options)
    found = gradients(layer, image, theta, weights)
    wanted = differences(image, theta, weights, **options)
    to_image, to_theta = (float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, wanted, strict=True))
    import keras

    output = keras.ops.convert_to_numpy(layer([image, theta]))
    off = float(np.abs(output - reference(image, theta, (5, 4), **options)).max())
    return {"image": to_image, "theta": to_theta, "output": off}


if __name__ == "__main__":
    rows = {
        f"{transform} {align} {border}": gradient_errors(transform, align, border)
        for transform in TRANSFORMS
        for align in (False, True)
        for border in BORDERS
    }
    print(json.dumps(rows))
