"""Boxes: worked cases and loops."""

from __future__ import annotations

import numpy as np
import pytest

from visionkit.geometry.boxes import (
    box_centers,
    box_sizes,
    clip_boxes,
    iou_aligned,
    iou_pairwise,
    xywh_to_xyxy,
    xyxy_to_xywh,
)


def test_iou_by_hand() -> None:
    # 10 x 10 and 10 x 10, 5 apart in x: 50 / 150
    assert iou_aligned([[0, 0, 10, 10]], [[5, 0, 15, 10]])[0] == pytest.approx(1 / 3)


def test_iou_of_touching_boxes_is_zero() -> None:
    assert iou_aligned([[0, 0, 10, 10]], [[10, 0, 20, 10]])[0] == 0


def test_iou_of_empty_boxes_is_zero() -> None:
    assert iou_aligned([[3, 3, 3, 3]], [[3, 3, 3, 3]])[0] == 0


def test_pairwise_equals_aligned() -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 50, (7, 2))
    a = np.concatenate([low, low + rng.uniform(0, 40, (7, 2))], axis=1)
    table = iou_pairwise(a, a[:5])
    assert table.shape == (7, 5)
    for i in range(7):
        for j in range(5):
            assert table[i, j] == pytest.approx(iou_aligned(a[i : i + 1], a[j : j + 1])[0])
    assert iou_pairwise(np.zeros((0, 4)), a).shape == (0, 7)


def test_conversions_round_trip() -> None:
    boxes = np.array([[1, 2, 30, 40], [5, 5, 6, 9]], np.float32)
    assert xyxy_to_xywh(boxes).tolist() == [[1, 2, 29, 38], [5, 5, 1, 4]]
    assert np.array_equal(xywh_to_xyxy(xyxy_to_xywh(boxes)), boxes)
    assert box_centers(boxes).tolist() == [[15.5, 21], [5.5, 7]]
    assert box_sizes([[4, 4, 2, 9]]).tolist() == [[0, 5]]


def test_clip_uses_width_for_x() -> None:
    assert clip_boxes([-5, -5, 700, 700], (480, 640)).tolist() == [0, 0, 640, 480]


def test_bad_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"shape=\(2, 3\)"):
        box_centers(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="one shape"):
        iou_aligned(np.zeros((2, 4)), np.zeros((3, 4)))
