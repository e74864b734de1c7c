"""Pooling layers against loops that follow torch's definitions, at sizes where the rules of size differ."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from visionkit.layers.pooling import AdaptiveAveragePooling2D, CeilAveragePooling2D, CeilMaxPooling2D, LpPooling2D
from visionkit.runtime import compile_model

SIZES = [(7, 10), (8, 9), (3, 4), (2, 3)]
WINDOWS = [
    (k, s, p) for k, s, p in itertools.product((1, 2, 3, 4), (1, 2, 3), (0, 1, 2)) if 2 * p <= k
]  # window, stride, padding


def picture(height: int, width: int, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(height * 100 + width).normal(-1, 1, (batch, height, width, 3)).astype(np.float32)


def count_of(length: int, k: int, s: int, p: int, ceil: bool) -> int:
    """torch.nn.MaxPool2d: windows go off the edge where they start inside the map or its left padding."""
    room = (length + 2 * p - k) / s
    count = (math.ceil(room) if ceil else math.floor(room)) + 1
    return count - 1 if ceil and (count - 1) * s >= length + p else count


def pooled_by_loop(x: np.ndarray, window: tuple[int, int, int], ceil: bool, of: Any) -> np.ndarray:
    """`of(values in the map, pixels of the window that lie in the map or its padding)` of each window."""
    k, s, p = window
    rows, columns = (count_of(n, k, s, p, ceil) for n in x.shape[1:3])
    out = np.zeros((len(x), rows, columns, x.shape[3]))
    for r, c in itertools.product(range(rows), range(columns)):
        spans = [(i * s - p, min(i * s - p + k, n + p)) for i, n in ((r, x.shape[1]), (c, x.shape[2]))]
        pixels = math.prod(stop - start for start, stop in spans)
        (top, bottom), (left, right) = ((max(start, 0), stop) for start, stop in spans)
        out[:, r, c] = of(x[:, top:bottom, left:right].astype(np.float64), pixels)
    return out


def largest(values: np.ndarray, _: int) -> np.ndarray:
    return values.max((1, 2))


def mean_of_all(values: np.ndarray, pixels: int) -> np.ndarray:
    return values.sum((1, 2)) / pixels


def mean_of_map(values: np.ndarray, _: int) -> np.ndarray:
    return values.mean((1, 2))


def run(layer: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the layer gives when called, and when its model was traced with open sizes."""
    image = keras.Input((None, None, x.shape[3]))
    answer = keras.ops.convert_to_numpy(layer(x))
    open_sizes = keras.Model(image, layer(image)).predict(x, verbose=0)
    assert layer.compute_output_shape(x.shape) == answer.shape
    return answer, open_sizes


@pytest.mark.parametrize("size", SIZES)
def test_ceil_max_pooling_equals_the_loop(size: tuple[int, int]) -> None:
    x = picture(*size)
    for window in WINDOWS:
        if min(size) + 2 * window[2] < window[0]:
            continue
        want = pooled_by_loop(x, window, True, largest)
        assert np.array_equal(CeilMaxPooling2D(*window)(x), want.astype(np.float32)), window


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("ceil", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_average_pooling_equals_the_loop(size: tuple[int, int], ceil: bool, include: bool) -> None:
    x = picture(*size)
    for window in WINDOWS:
        if min(size) + 2 * window[2] < window[0]:
            continue
        want = pooled_by_loop(x, window, ceil, mean_of_all if include else mean_of_map)
        layer = CeilAveragePooling2D(*window, ceil_mode=ceil, count_include_pad=include)
        assert np.allclose(layer(x), want, atol=1e-6), window


def test_open_sizes_give_the_same() -> None:
    x = picture(8, 11)
    for layer in (
        CeilMaxPooling2D(3, 2, 1),
        CeilMaxPooling2D(2, 3, 1),  # the last window of the width would start outside
        CeilAveragePooling2D(3, 2, 1, count_include_pad=False),
        LpPooling2D(3, 2, 1),
        AdaptiveAveragePooling2D((3, 4)),
    ):
        known, open_sizes = run(layer, x)
        assert np.allclose(known, open_sizes, atol=1e-6), layer


@pytest.mark.parametrize(
    ("side", "window", "ceil", "floor", "same"),
    [(98, (3, 3), 33, 32, 33), (55, (3, 2), 27, 27, 28), (112, (3, 2), 56, 55, 56), (125, (2, 2), 63, 62, 63)],
)
def test_ceil_floor_and_same_are_three_rules(
    side: int, window: tuple[int, int], ceil: int, floor: int, same: int
) -> None:
    shape = (1, side, side + 1, 2)
    assert CeilMaxPooling2D(*window).compute_output_shape(shape)[1] == ceil
    assert keras.layers.MaxPooling2D(*window).compute_output_shape(shape)[1] == floor
    assert keras.layers.MaxPooling2D(*window, padding="same").compute_output_shape(shape)[1] == same


@pytest.mark.parametrize(("pooling", "side"), [(CeilMaxPooling2D, 10), (keras.layers.MaxPooling2D, 9)])
def test_500_pixels_through_five_poolings_and_a_7x7(pooling: Any, side: int) -> None:
    image = keras.Input((500, 500, 1))
    x: Any = image
    for _ in range(5):  # 250 125 63 32 16 against 250 125 62 31 15
        x = pooling(2, 2)(x)
    assert keras.Model(image, keras.layers.Conv2D(1, 7)(x)).output_shape == (None, side, side, 1)


@pytest.mark.parametrize("output_hw", [(1, 1), (2, 3), (7, 7), (6, 5), (13, 4)])
@pytest.mark.parametrize("size", [(7, 7), (14, 21), (10, 9), (3, 11)])
def test_adaptive_average_follows_torchs_cells(size: tuple[int, int], output_hw: tuple[int, int]) -> None:
    x = picture(*size)
    want = np.zeros((2, *output_hw, 3))
    for r, c in np.ndindex(*output_hw):
        (top, bottom), (left, right) = (
            (math.floor(i * n / o), math.ceil((i + 1) * n / o)) for i, n, o in zip((r, c), size, output_hw, strict=True)
        )
        want[:, r, c] = x[:, top:bottom, left:right].mean((1, 2))
    known, open_sizes = run(AdaptiveAveragePooling2D(output_hw), x)
    assert known.shape == want.shape
    assert np.allclose(known, want, atol=1e-6)
    assert np.allclose(open_sizes, want, atol=1e-6)


def test_lp_pooling_runs_from_the_mean_to_the_maximum() -> None:
    x = np.abs(picture(9, 12))
    mean = keras.layers.AveragePooling2D(3)(x)
    maximum = keras.ops.convert_to_numpy(keras.layers.MaxPooling2D(3)(x))
    assert np.allclose(LpPooling2D(1, 3)(x), mean, rtol=1e-6)
    assert np.array_equal(LpPooling2D(math.inf, 3)(x), maximum)
    rms = np.sqrt(keras.ops.convert_to_numpy(keras.layers.AveragePooling2D(3)(x**2)))
    assert np.allclose(LpPooling2D(2, 3)(x), rms, rtol=1e-5)
    p64 = keras.ops.convert_to_numpy(LpPooling2D(64, 3)(x))
    assert (p64 <= maximum).all()
    assert (p64 >= 9 ** (-1 / 64) * maximum * (1 - 1e-6)).all()  # 3.4 % below at most
    assert pytest.approx(1 - 0.034, abs=5e-4) == 9 ** (-1 / 64)
    norms = [keras.ops.convert_to_numpy(LpPooling2D(p, 3)(x)) for p in (1, 1.5, 2, 4, 16, 64)]
    assert all((a <= b + 1e-6).all() for a, b in itertools.pairwise(norms))


def test_lp_pooling_of_large_and_tiny_values_stays_finite() -> None:
    x = np.float32([1e3, 1e-3, 0.0]).reshape(1, 1, 1, 3) * np.ones((1, 4, 6, 1), np.float32)
    answer = keras.ops.convert_to_numpy(LpPooling2D(64, 2)(x))
    assert np.allclose(answer[0, 0, 0], [1e3, 1e-3, 0], rtol=1e-5)


def test_lp_pooling_of_an_empty_window_has_a_slope_of_zero() -> None:
    import tensorflow as tf

    x = tf.constant(np.pad(np.abs(picture(2, 2)), ((0, 0), (0, 2), (0, 4), (0, 0))))
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(LpPooling2D(3, 2)(x))
    slope = tape.gradient(loss, x).numpy()
    assert np.isfinite(slope).all()
    assert (slope[:, :2, :2] > 0).all()
    assert not slope[:, :, 2:].any()


def test_poolings_run_in_litert(tmp_path: Path) -> None:
    x = picture(11, 14, batch=1)
    image = keras.Input(x.shape[1:], name="image")
    outputs = {
        "ceil": CeilMaxPooling2D(3, 2)(image),
        "ceil_padded": CeilMaxPooling2D(3, 2, 1)(image),
        "mean": CeilAveragePooling2D(3, 2, 1, count_include_pad=False)(image),
        "norm": LpPooling2D(3, 2)(image),
        "adaptive": AdaptiveAveragePooling2D((6, 4))(image),
    }
    model = keras.Model(image, outputs)
    with compile_model(model, runtime="litert", cache_dir=tmp_path) as runner:
        answers = runner(image=x)
        for name, want in model(x).items():
            assert np.allclose(answers[name], want, atol=1e-6), name


def test_poolings_survive_their_config() -> None:
    for layer in (
        CeilMaxPooling2D((3, 2), 2, (1, 0), name="a"),
        CeilAveragePooling2D(3, (2, 1), 1, ceil_mode=False, count_include_pad=False),
        LpPooling2D(math.inf, 3, 2),
        AdaptiveAveragePooling2D((3, 5)),
    ):
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
        assert type(again) is type(layer)
        assert again.get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: CeilMaxPooling2D(0), "pool_size=0"),
        (lambda: CeilMaxPooling2D(3, (1, 2, 3)), r"strides=\(1, 2, 3\)"),
        (lambda: CeilMaxPooling2D(3, 2, 2), "at most half"),
        (lambda: CeilAveragePooling2D(2.5), "pool_size=2.5"),
        (lambda: LpPooling2D(0.5), "p=0.5"),
        (lambda: LpPooling2D(math.nan), "p=nan"),
        (lambda: AdaptiveAveragePooling2D((0, 3)), "output_hw"),
        (lambda: CeilMaxPooling2D(4)(np.zeros((1, 5, 5), np.float32)), "must be"),
        (lambda: LpPooling2D(2, 4)(np.zeros((1, 3, 5, 1), np.float32)), "No window fits"),
    ],
)
def test_poolings_name_a_bad_argument(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
