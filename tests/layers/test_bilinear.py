"""Bilinear enlarging and what stands around it: SEG-1, sizes, and arguments refused."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from visionkit.layers.bilinear import Bilinear, ResizeLike, bilinear_window
from visionkit.layers.crop import CropLike, PadToMultiple


def enlarged(x: np.ndarray, kernel: int, factor: int) -> np.ndarray:
    """By a transposed convolution, and of its output the part that lies over the map's cells."""
    layer = layers.Conv2DTranspose(x.shape[-1], kernel, factor, use_bias=False, kernel_initializer=Bilinear())
    y = np.asarray(layer(x))
    cut = (kernel - factor) // 2
    return y[:, cut : cut + x.shape[1] * factor, cut : cut + x.shape[2] * factor]


def resized(x: np.ndarray, factor: int, corners: bool = False) -> np.ndarray:
    """A bilinear resizing by NumPy in float64; centres of pixels aligned, or corners."""
    for axis in (1, 2):
        size = x.shape[axis]
        place = (np.arange(size * factor) + 0.5) / factor - 0.5
        if corners:
            place = np.linspace(0, size - 1, size * factor)
        place = np.clip(place, 0, size - 1)
        low = np.minimum(place.astype(int), size - 2)
        share = (place - low).reshape([-1 if i == axis else 1 for i in range(4)])
        x = x.take(low, axis) * (1 - share) + x.take(low + 1, axis) * share
    return x


def interior(y: np.ndarray, factor: int) -> np.ndarray:
    return y[:, factor:-factor, factor:-factor]


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_seg1_transposed_convolution_equals_the_resizing_inside(factor: int) -> None:
    x = np.random.default_rng(factor).normal(size=(2, 5, 7, 3)).astype("float32")
    expected = interior(resized(x.astype("float64"), factor), factor)
    assert np.abs(interior(enlarged(x, 2 * factor, factor), factor) - expected).max() < 1e-6
    # the wrong size of window, and corners aligned in the place of centres
    assert np.abs(interior(enlarged(x, 2 * factor - 1, factor), factor) - expected).max() > 0.01
    corners = interior(resized(x.astype("float64"), factor, corners=True), factor)
    assert np.abs(corners - expected).max() > 0.1


def test_windows_are_the_papers() -> None:
    line = np.array([0.25, 0.75, 0.75, 0.25])  # k 4: f 2, c 1.5, and 1 - |i - 1.5| / 2
    np.testing.assert_allclose(bilinear_window(4), np.outer(line, line))
    line = np.array([0.5, 1, 0.5])  # k 3: f 2, c 1
    np.testing.assert_allclose(bilinear_window(3), np.outer(line, line))
    assert bilinear_window(64).shape == (64, 64)


def test_channels_do_not_mix() -> None:
    kernel = np.asarray(Bilinear()((4, 4, 3, 3)))
    assert not kernel[:, :, 0, 1].any()
    np.testing.assert_allclose(kernel[:, :, 2, 2], bilinear_window(4), rtol=1e-6)


@pytest.mark.parametrize("size", [0, -1, 2.0, True])
def test_a_window_of_no_size_is_refused(size: object) -> None:
    with pytest.raises(ValueError, match=r"`size` must be a positive integer\. Received: size="):
        bilinear_window(size)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(4, 3, 2, 2), (4, 4, 2, 3), (4, 4, 2)])
def test_a_kernel_that_is_not_square_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"`shape` must be \(k, k, C, C\)"):
        Bilinear()(shape)


def test_resize_like_takes_the_size_of_another_map() -> None:
    x, like = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype("float32"), np.zeros((2, 10, 14, 4))
    y = np.asarray(ResizeLike()([x, like]))
    np.testing.assert_allclose(y, resized(x, 2), atol=1e-6)
    single = np.asarray(ResizeLike()([x[:, :1, :1], like]))
    np.testing.assert_array_equal(single, np.broadcast_to(x[:, :1, :1], (2, 10, 14, 3)))
    with pytest.raises(ValueError, match=r"must be \[map, like\]"):
        ResizeLike()([x, x[0]])


def test_padding_and_cropping_of_open_sizes() -> None:
    image = keras.Input((None, None, 3))
    padded = PadToMultiple((8, 16))(image)
    model = keras.Model(image, [padded, CropLike((1, 2))([padded, image[:, :-1, :-2]])])
    x = np.random.default_rng(0).normal(size=(2, 13, 31, 3)).astype("float32")
    whole, part = (np.asarray(y) for y in model(x))
    assert whole.shape == (2, 16, 32, 3)
    assert not whole[:, 13:].any()
    assert not whole[:, :, 31:].any()
    np.testing.assert_array_equal(whole[:, :13, :31], x)
    np.testing.assert_array_equal(part, whole[:, 1:13, 2:31])
    twin = keras.Model.from_config(model.get_config())
    np.testing.assert_array_equal(np.asarray(twin(x)[1]), part)
    assert PadToMultiple(8).compute_output_shape((None, 13, 16, 3)) == (None, 16, 16, 3)


def test_a_crop_larger_than_the_map_is_refused() -> None:
    with pytest.raises(ValueError, match=r"The map must hold the crop.*offset=\(2, 2\)"):
        CropLike(2)([np.zeros((1, 8, 9, 3)), np.zeros((1, 7, 7, 1))])
    with pytest.raises(ValueError, match=r"must be \(B, H, W, C\)"):
        PadToMultiple(4)(np.zeros((8, 9, 3)))
