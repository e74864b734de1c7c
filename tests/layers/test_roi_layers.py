"""RoIAlign, RoI pooling and pyramids as layers: the same as their NumPy twins, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from tests.geometry.detection_cases import bin_centers, ramp, random_boxes
from visionkit.geometry.roi import pyramid_level, roi_align, roi_pool
from visionkit.layers import PyramidRoIAlign, RoIAlign, RoIPool, SpatialPyramidPooling

SIZE_HW = (9, 13)


def case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    feature = rng.normal(size=(3, *SIZE_HW, 5)).astype(np.float32) - 1
    boxes = np.stack([random_boxes(rng, 20, (9 * 16, 13 * 16), 60) for _ in range(3)])
    boxes[0, -4:] = 0  # padded slots
    boxes[1, 0] = [-300, -300, 900, 900]
    boxes[1, 1] = [-90, -90, -60, -70]
    return feature, boxes


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_det4_align_is_that_of_geometry(ratio: int, aligned: bool) -> None:
    feature, boxes = case()
    layer = RoIAlign((7, 4), scale=1 / 16, sampling_ratio=ratio, aligned=aligned)
    read = np.asarray(layer([feature, boxes]))
    options: dict[str, Any] = {"scale": 1 / 16, "sampling_ratio": ratio, "aligned": aligned}
    expected = [roi_align(x, b, (7, 4), **options) for x, b in zip(feature, boxes, strict=True)]
    np.testing.assert_allclose(read, expected, atol=1e-5)


def test_det4_a_ramp_gives_the_centres_of_bins() -> None:
    boxes = np.array([[100.3, 50.2, 433.1, 290.0], [200, 100, 230, 120]], np.float32)
    inputs = [ramp(20, 30, 16)[None].astype(np.float32), boxes[None]]
    read = np.asarray(RoIAlign((7, 5), scale=1 / 16, aligned=True)(inputs))[0]
    np.testing.assert_allclose(read, bin_centers(boxes, (7, 5)), atol=1e-3)
    read = np.asarray(RoIAlign((7, 5), scale=1 / 16)(inputs))[0]
    np.testing.assert_allclose(read - bin_centers(boxes, (7, 5)), 8, atol=1e-3)


@pytest.mark.parametrize("scales", [(1 / 4, 1 / 8, 1 / 16), (1 / 32, 1 / 32)])
def test_pyramid_reads_each_box_from_its_level(scales: tuple[float, ...]) -> None:
    rng = np.random.default_rng(1)
    maps = [rng.normal(size=(2, int(192 * s), int(320 * s), 3)).astype(np.float32) for s in scales]
    boxes = np.stack([random_boxes(rng, 60, (192, 320), 20) * 1.5 for _ in range(2)])
    layer = PyramidRoIAlign((3, 4), scales=scales, canonical=(60, 3))
    read = np.asarray(layer([maps, boxes]))
    strides = (round(-np.log2(scales[0])), round(-np.log2(scales[-1])))
    seen = set()
    for image in range(2):
        levels = pyramid_level(boxes[image], strides, (60, 3))
        for level in np.unique(levels):
            seen.add(int(level))
            mine = levels == level
            expected = roi_align(maps[level][image], boxes[image][mine], (3, 4), scale=scales[level])
            np.testing.assert_allclose(read[image][mine], expected, atol=2e-5)
    assert seen == ({0, 1, 2} if len(scales) == 3 else {0})


def test_det5_pooling_is_that_of_geometry() -> None:
    feature, boxes = case()
    read = np.asarray(RoIPool((4, 3), scale=1 / 16)([feature, boxes]))
    expected = [roi_pool(x, b, (4, 3), scale=1 / 16) for x, b in zip(feature, boxes, strict=True)]
    np.testing.assert_array_equal(read, expected)
    assert not read[1, 1].any()


@pytest.mark.parametrize("size_hw", [(6, 6), (7, 10), (13, 9), (4, 20)])
def test_det5_one_level_of_a_spatial_pyramid_is_roi_pooling(size_hw: tuple[int, int]) -> None:
    feature = np.random.default_rng(0).normal(size=(2, *size_hw, 3)).astype(np.float32)
    whole = np.broadcast_to(np.array([0, 0, size_hw[1] - 1, size_hw[0] - 1], np.float32), (2, 1, 4))
    for n in (1, 2, 3, 4):
        read = np.asarray(SpatialPyramidPooling((n,))(feature)).reshape(2, n, n, 3)
        np.testing.assert_array_equal(read, np.asarray(RoIPool(n, scale=1)([feature, whole]))[:, 0])


def test_spatial_pyramid_has_50_bins_at_any_size() -> None:
    layer = SpatialPyramidPooling()
    assert layer.compute_output_shape((None, None, None, 256)) == (None, 50 * 256)
    feature = np.random.default_rng(0).normal(size=(2, 9, 13, 3)).astype(np.float32)
    image = keras.Input((None, None, 3))
    read = np.asarray(keras.Model(image, layer(image))(feature))
    np.testing.assert_array_equal(read[:, :3], feature.max((1, 2)))
    np.testing.assert_array_equal(read[:, 3:6], feature[:, :5, :7].max((1, 2)))  # 9 / 2 and 13 / 2, up


def gradient(layer: keras.layers.Layer, feature: np.ndarray, boxes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    x = tf.constant(feature)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(layer([x, boxes]) * weights)
    return np.asarray(tf.convert_to_tensor(tape.gradient(loss, x)))


def differences(
    f: Callable[[np.ndarray], float], x: np.ndarray, cells: list[tuple[int, ...]], step: float
) -> list[float]:
    found = []
    for cell in cells:
        up, down = x.copy(), x.copy()
        up[cell] += step
        down[cell] -= step
        found.append((f(up) - f(down)) / (2 * step))
    return found


@pytest.mark.parametrize(
    ("layer", "twin"),
    [
        (RoIAlign((3, 2), scale=1 / 16), lambda x, b: roi_align(x, b, (3, 2), scale=1 / 16)),
        (RoIPool((3, 2), scale=1 / 16), lambda x, b: roi_pool(x, b, (3, 2), scale=1 / 16)),
    ],
)
def test_gradient_against_finite_differences(layer: keras.layers.Layer, twin: Callable[..., np.ndarray]) -> None:
    feature, boxes = case()
    weights = np.random.default_rng(2).normal(size=(3, 20, 3, 2, 5)).astype(np.float32)

    def loss(x: np.ndarray) -> float:
        return sum(float((twin(x[k], boxes[k].astype(np.float64)) * weights[k]).sum()) for k in range(3))

    cells = [tuple(cell) for cell in np.random.default_rng(3).integers(0, feature.shape, (60, 4))]
    expected = differences(loss, feature.astype(np.float64), cells, 1e-6)
    found = gradient(layer, feature, boxes, weights)
    np.testing.assert_allclose([found[cell] for cell in cells], expected, atol=2e-4)
    assert np.abs(expected).max() > 0.3


def test_det5_gradient_goes_to_the_largest_cell_alone() -> None:
    feature, _ = case()
    boxes = np.array([[[0, 0, 12 * 16, 8 * 16]]] * 3, np.float32)
    found = gradient(RoIPool(1, scale=1 / 16), feature, boxes, np.ones((3, 1, 1, 1, 5), np.float32))
    best = feature == feature.max((1, 2), keepdims=True)
    np.testing.assert_array_equal(found, best.astype(np.float32))


def test_empty_boxes_and_a_mixed_policy() -> None:
    feature, boxes = case()
    assert np.asarray(RoIAlign(2, scale=1)([feature, boxes[:, :0]])).shape == (3, 0, 2, 2, 5)
    half = RoIAlign((7, 4), scale=1 / 16, dtype="mixed_float16")([feature.astype(np.float16), boxes])
    assert half.dtype == "float16"
    whole = np.asarray(RoIAlign((7, 4), scale=1 / 16)([feature, boxes]))
    np.testing.assert_allclose(np.asarray(half, np.float32), whole, atol=5e-3)


@pytest.mark.parametrize(
    ("layer", "shapes", "said"),
    [
        (RoIAlign((7, 4), scale=0.5, sampling_ratio=3, aligned=True), [(None, 9, 13, 5), (None, 20, 4)], (7, 4)),
        (
            PyramidRoIAlign(2, scales=(0.5, 0.25), canonical=(100, 2)),
            [[(None, 8, 8, 5), (None, 4, 4, 5)], (None, 20, 4)],
            (2, 2),
        ),
        (RoIPool((3, 2), scale=0.5), [(None, 9, 13, 5), (None, 20, 4)], (3, 2)),
    ],
)
def test_shape_and_config_round_trip(layer: keras.layers.Layer, shapes: Any, said: tuple[int, int]) -> None:
    assert layer.compute_output_shape(shapes) == (None, 20, *said, 5)
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: RoIAlign(7, scale=1, sampling_ratio=0), "`sampling_ratio` must be a positive integer.*roi_align"),
        (lambda: RoIAlign(7, scale=0), r"`scale` must be positive"),
        (lambda: RoIAlign(0, scale=1), "`output_hw`"),
        (lambda: RoIAlign(7, scale=1)([np.zeros((1, 4, 5, 2)), np.zeros((1, 4))]), r"boxes \(B, N, 4\)"),
        (lambda: PyramidRoIAlign(7, scales=(0.3,)), "`scales` must be powers of two"),
        (
            lambda: PyramidRoIAlign(7, scales=(1, 0.5)).build([[(1, 4, 4, 2), (1, 2, 2, 3)], (1, 5, 4)]),
            "2 maps of as many channels",
        ),
        (lambda: RoIPool(7, scale=1).build([(1, None, 5, 2), (1, 3, 4)]), "H, W and C fixed"),
        (lambda: SpatialPyramidPooling((0,)), "`levels` must be positive"),
    ],
)
def test_bad_arguments_are_named(call: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()  # type: ignore[operator]
