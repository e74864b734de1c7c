"""CNV-4: identities of convolution that the networks rely on, each with the wrong variant beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from scipy import signal

from visionkit.runtime import compile_model

RNG = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def conv(x: np.ndarray, kernel: np.ndarray, **options: Any) -> np.ndarray:
    return ops.convert_to_numpy(ops.conv(x, kernel, data_format="channels_last", **options))


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


def composed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The kernel of `second` behind `first`: (5, 5, I, M), (3, 3, M, O) -> (7, 7, I, O)."""
    (h, w), (a, b) = first.shape[:2], second.shape[:2]
    kernel = np.zeros((h + a - 1, w + b - 1, first.shape[2], second.shape[3]))
    for i, j in np.ndindex(a, b):
        kernel[i : i + h, j : j + w] += first.astype(np.float64) @ second[i, j]
    return kernel.astype(np.float32)


def test_two_convolutions_without_a_nonlinearity_are_one() -> None:
    x, first, second = normal(2, 14, 17, 3), normal(5, 5, 3, 4), normal(3, 3, 4, 6)
    two = conv(conv(x, first), second)
    assert relative(conv(x, composed(first, second)), two) < 1e-5
    flipped = composed(first, second[::-1, ::-1])
    assert relative(conv(x, flipped), two) > 0.1


def test_a_dilated_convolution_has_zeros_in_its_kernel() -> None:
    x, kernel = normal(2, 15, 18, 3), normal(3, 3, 3, 5)
    spread = np.zeros((7, 7, 3, 5), np.float32)
    spread[::3, ::3] = kernel
    dilated = conv(x, kernel, dilation_rate=3)
    assert relative(conv(x, spread), dilated) < 1e-5
    spread[::3, ::3] = kernel[::-1, ::-1]
    assert relative(conv(x, spread), dilated) > 0.1


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_transposed_convolution_is_the_adjoint(stride: int) -> None:
    x, kernel = normal(1, 13, 16, 3), normal(4, 4, 3, 5)
    down = conv(x, kernel, strides=stride)
    y = normal(*down.shape)
    up = ops.convert_to_numpy(ops.conv_transpose(y, kernel, strides=stride, data_format="channels_last"))
    rows, columns = up.shape[1:3]  # pixels that no window reached are left out of both sides
    forth, back = float((down * y).sum()), float((up * x[:, :rows, :columns]).sum())
    scale = np.abs(down * y).sum()
    assert abs(forth - back) < 1e-5 * scale
    wrong = ops.conv_transpose(y, kernel[::-1, ::-1].copy(), strides=stride, data_format="channels_last")
    assert abs(forth - float((ops.convert_to_numpy(wrong) * x[:, :rows, :columns]).sum())) > 1e-3 * scale


def test_convolution_by_fft_equals_the_direct_one() -> None:
    x, kernel = RNG.normal(size=(21, 34)), RNG.normal(size=(5, 8))
    direct = signal.correlate2d(x, kernel, mode="valid")
    by_fft = signal.fftconvolve(x, kernel[::-1, ::-1], mode="valid")
    assert relative(by_fft, direct) < 1e-12
    ours = conv(x[None, ..., None].astype(np.float32), kernel[..., None, None].astype(np.float32))
    assert relative(ours[0, ..., 0], by_fft) < 1e-5
    assert relative(signal.fftconvolve(x, kernel, mode="valid"), direct) > 0.1


def test_the_slope_of_a_convolution_is_one_with_the_flipped_kernel() -> None:
    import tensorflow as tf

    x, kernel = tf.constant(normal(1, 9, 11, 3)), normal(3, 3, 3, 4)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = ops.conv(x, kernel, data_format="channels_last")
        above = normal(*y.shape)
        loss = tf.reduce_sum(y * above)
    padded = np.pad(above, ((0, 0), (2, 2), (2, 2), (0, 0)))
    back = conv(padded, kernel[::-1, ::-1].transpose(0, 1, 3, 2).copy())
    slope = tape.gradient(loss, x).numpy()
    assert relative(back, slope) < 1e-5
    assert relative(conv(padded, kernel.transpose(0, 1, 3, 2).copy()), slope) > 0.1


def test_groups_are_convolutions_side_by_side_also_in_litert(tmp_path: Path) -> None:
    x = normal(1, 8, 11, 4)
    image = keras.Input(x.shape[1:], name="image")
    model = keras.Model(image, keras.layers.Conv2D(6, 3, groups=2, name="conv")(image))
    kernel, bias = normal(3, 3, 2, 6), normal(6)
    model.set_weights([kernel, bias])
    halves = [conv(x[..., 2 * g : 2 * g + 2], kernel[..., 3 * g : 3 * g + 3]) for g in range(2)]
    want = np.concatenate(halves, -1) + bias
    assert relative(ops.convert_to_numpy(model(x)), want) < 1e-5
    with compile_model(model, runtime="litert", cache_dir=tmp_path) as runner:
        assert relative(runner(image=x)["conv"], want) < 1e-5
    interleaved = [conv(x[..., 2 * g : 2 * g + 2], kernel[..., g::2]) for g in range(2)]
    assert relative(np.stack(interleaved, -1).reshape(want.shape) + bias, want) > 0.1
