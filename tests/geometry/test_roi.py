"""DET-4 and DET-5: RoIAlign on a ramp and at the edge, RoI pooling cell by cell."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.geometry.detection_cases import bin_centers, ramp, random_boxes
from visionkit.geometry.roi import pyramid_level, roi_align, roi_pool

INSIDE = np.array([[100.3, 50.2, 433.1, 290.0], [200, 100, 230, 120], [64, 64, 300.5, 301.25]])


def slow_point(feature: np.ndarray, y: float, x: float) -> np.ndarray:
    """The map read at one point, by the rule of the reference kernel."""
    rows, columns, channels = feature.shape
    if y < -1 or y > rows or x < -1 or x > columns:
        return np.zeros(channels)
    y, x = max(y, 0), max(x, 0)
    top, left = int(y), int(x)
    if top >= rows - 1:
        top, y = rows - 1, float(rows - 1)
    if left >= columns - 1:
        left, x = columns - 1, float(columns - 1)
    bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
    dy, dx = y - top, x - left
    above = feature[top, left] * (1 - dx) + feature[top, right] * dx
    below = feature[bottom, left] * (1 - dx) + feature[bottom, right] * dx
    return above * (1 - dy) + below * dy


def slow_align(
    feature: np.ndarray, box: np.ndarray, output_hw: tuple[int, int], scale: float, ratio: int, aligned: bool
) -> np.ndarray:
    x1, y1, x2, y2 = box.astype(np.float64) * scale - 0.5 * aligned
    height, width = (y2 - y1, x2 - x1) if aligned else (max(y2 - y1, 1), max(x2 - x1, 1))
    out = np.zeros((*output_hw, feature.shape[2]))
    down, across = height / output_hw[0], width / output_hw[1]
    n, m = (ratio or math.ceil(down)), (ratio or math.ceil(across))
    for i in range(output_hw[0]):
        for j in range(output_hw[1]):
            for a in range(n):
                for b in range(m):
                    point = y1 + (i + (a + 0.5) / n) * down, x1 + (j + (b + 0.5) / m) * across
                    out[i, j] += slow_point(feature, *point) / (n * m)
    return out


@pytest.mark.parametrize("ratio", [1, 2, 0])
def test_det4_a_ramp_gives_the_centres_of_bins(ratio: int) -> None:
    read = roi_align(ramp(20, 30, 16), INSIDE, (7, 5), scale=1 / 16, sampling_ratio=ratio, aligned=True)
    assert np.abs(read - bin_centers(INSIDE, (7, 5))).max() < 1e-10


def test_det4_not_aligned_is_half_a_cell_off() -> None:
    read = roi_align(ramp(20, 30, 16), INSIDE, (7, 5), scale=1 / 16)
    np.testing.assert_allclose(read - bin_centers(INSIDE, (7, 5)), 8, atol=1e-10)


def test_det4_crop_and_resize_is_up_to_a_cell_off() -> None:
    import tensorflow as tf

    rows, columns = 20, 30
    corners = INSIDE[:, [1, 0, 3, 2]] / np.array([rows, columns, rows, columns]) / 16
    read = tf.image.crop_and_resize(ramp(rows, columns, 16)[None].astype(np.float32), corners, [0, 0, 0], (7, 5))
    assert 5 < np.abs(read - bin_centers(INSIDE, (7, 5))).mean() < 12
    assert np.abs(read - bin_centers(INSIDE, (7, 5))).max() > 14


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [1, 2, 3, 0])
def test_det4_at_and_over_the_edge_as_point_by_point(ratio: int, aligned: bool) -> None:
    rng = np.random.default_rng(0)
    feature = rng.normal(size=(9, 13, 3))
    boxes = random_boxes(rng, 12, (9 * 8, 13 * 8), 40).astype(np.float64)
    boxes[:3] = [[-9, -9, 40, 30], [60, 50, 113, 81], [-60, -60, -30, -20]]  # around, beyond H and W, outside
    read = roi_align(feature, boxes, (4, 3), scale=1 / 8, sampling_ratio=ratio, aligned=aligned)
    expected = [slow_align(feature, box, (4, 3), 1 / 8, ratio, aligned) for box in boxes]
    np.testing.assert_allclose(read, expected, atol=1e-12)
    assert not read[2].any()
    assert read.any(axis=(1, 2, 3)).sum() > 5


def test_a_small_box_is_a_whole_cell_where_not_aligned() -> None:
    feature = ramp(8, 8, 1)
    read = roi_align(feature, [[3, 3, 3.2, 3.2]], (2, 2), scale=1, sampling_ratio=1)
    np.testing.assert_allclose(read[0, :, :, 0], [[3.75, 4.25]] * 2, rtol=1e-6)  # cells 3.25, 3.75, and half a pixel
    read = roi_align(feature, [[3, 3, 3.2, 3.2]], (2, 2), scale=1, sampling_ratio=1, aligned=True)
    np.testing.assert_allclose(read[0, :, :, 0], [[3.05, 3.15]] * 2, rtol=1e-6)


def slow_pool(feature: np.ndarray, box: np.ndarray, output_hw: tuple[int, int], scale: float) -> np.ndarray:
    rows, columns, channels = feature.shape
    x1, y1, x2, y2 = (int(math.copysign(math.floor(abs(v) + 0.5), v)) for v in box.astype(np.float64) * scale)
    height, width = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
    out = np.zeros((*output_hw, channels))
    for i in range(output_hw[0]):
        for j in range(output_hw[1]):
            ys = range(y1 + i * height // output_hw[0], y1 + math.ceil((i + 1) * height / output_hw[0]))
            xs = range(x1 + j * width // output_hw[1], x1 + math.ceil((j + 1) * width / output_hw[1]))
            cells = [feature[y, x] for y in ys for x in xs if 0 <= y < rows and 0 <= x < columns]
            out[i, j] = np.max(cells, axis=0) if cells else 0
    return out


def test_det5_pooling_as_cell_by_cell() -> None:
    rng = np.random.default_rng(1)
    feature = rng.normal(size=(9, 13, 3)) - 2  # so that an empty bin's 0 is not the largest by chance
    boxes = random_boxes(rng, 40, (9 * 16, 13 * 16), 60).astype(np.float64)
    boxes[:4] = [[20, 20, 20, 20], [33, 18, 34, 19], [-90, -90, -60, -70], [8, 24, 40, 56]]
    read = roi_pool(feature, boxes, (3, 4), scale=1 / 16)
    np.testing.assert_array_equal(read, [slow_pool(feature, box, (3, 4), 1 / 16) for box in boxes])
    assert (read[0] == feature[1, 1]).all()  # no area: the one cell, in every bin
    assert not read[2].any()
    assert not (read[3] == 0).any()


def test_det5_another_rule_of_bins_is_seen() -> None:
    rng = np.random.default_rng(1)
    feature, box = rng.normal(size=(9, 13, 3)), np.array([[16.0, 16, 128, 112]])  # 8 x 7 cells in 3 x 3 bins
    apart = feature[1:8, 1:9]
    disjoint = np.array(
        [
            [apart[i * 7 // 3 : (i + 1) * 7 // 3, j * 8 // 3 : (j + 1) * 8 // 3].max((0, 1)) for j in range(3)]
            for i in range(3)
        ]
    )
    assert (roi_pool(feature, box, (3, 3), scale=1 / 16)[0] != disjoint).any()


def test_levels_by_hand() -> None:
    sides = np.array([10, 111, 113, 223, 225, 447, 449, 2000], np.float32)
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], axis=1)
    assert pyramid_level(boxes).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]  # 112 -> 3, 224 -> 4, 448 -> 5; from 2
    assert pyramid_level([[0, 0, 448, 112]]).tolist() == [2]  # the root of the area
    assert pyramid_level([[5, 5, 5, 5]]).tolist() == [0]
    assert pyramid_level(boxes, (5, 5)).tolist() == [0] * 8


def test_no_boxes() -> None:
    feature = ramp(4, 5, 1)
    assert roi_align(feature, [], (2, 3), scale=1).shape == (0, 2, 3, 2)
    assert roi_pool(feature, [], (2, 3), scale=1).shape == (0, 2, 3, 2)
    assert pyramid_level([]).shape == (0,)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: roi_align(np.zeros((4, 5)), [], (2, 2), scale=1), r"`feature` must be \(H, W, C\)"),
        (lambda: roi_align(np.zeros((4, 5, 1)), [], (2, 2), scale=1, sampling_ratio=-1), "sampling_ratio=-1"),
        (lambda: roi_align(np.zeros((4, 5, 1)), [], (0, 2), scale=1), r"output_hw=\(0, 2\)"),
        (lambda: roi_pool(np.zeros((4, 5, 1)), [], (2, 2), scale=0), "scale=0"),
        (lambda: roi_pool(np.zeros((4, 5, 1)), [1, 2, 3, 4], (2, 2), scale=1), r"`boxes` must be \(N, 4\)"),
    ],
)
def test_bad_arguments_are_named(call: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()  # type: ignore[operator]


def run_onnx(kind: str, inputs: dict[str, np.ndarray], **options: object) -> np.ndarray:
    """One operation of ONNX Runtime, on maps (1, C, H, W); its result with channels last."""
    import onnxruntime
    from onnx import TensorProto, helper

    types = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    values = [helper.make_tensor_value_info(k, types[str(v.dtype)], None) for k, v in inputs.items()]
    node = helper.make_node(kind, list(inputs), ["y"], **options)
    graph = helper.make_graph([node], "g", values, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0].transpose(0, 2, 3, 1)


def test_as_onnx_runtimes_operations() -> None:
    rng = np.random.default_rng(2)
    feature = rng.normal(size=(9, 13, 3)).astype(np.float32)
    boxes = random_boxes(rng, 80, (9 * 16, 13 * 16), 60)
    x = np.ascontiguousarray(feature.transpose(2, 0, 1)[None])
    for ratio in (0, 2):
        for aligned, mode in ((False, "output_half_pixel"), (True, "half_pixel")):
            expected = run_onnx(
                "RoiAlign",
                {"x": x, "rois": boxes, "image": np.zeros(len(boxes), np.int64)},
                output_height=7,
                output_width=5,
                sampling_ratio=ratio,
                spatial_scale=1 / 16,
                coordinate_transformation_mode=mode,
            )
            read = roi_align(feature, boxes, (7, 5), scale=1 / 16, sampling_ratio=ratio, aligned=aligned)
            np.testing.assert_allclose(read, expected, atol=1e-5)
    rois = np.concatenate([np.zeros((len(boxes), 1), np.float32), boxes], axis=1)
    expected = run_onnx("MaxRoiPool", {"x": x, "rois": rois}, pooled_shape=[7, 5], spatial_scale=1 / 16)
    np.testing.assert_array_equal(roi_pool(feature, boxes, (7, 5), scale=1 / 16), expected)
