"""DET-1: anchors, exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from visionkit.geometry.anchors import cell_anchors, faster_rcnn_anchors, shifted_anchors, ssd_boxes

# what py-faster-rcnn's generate_anchors.py returns (its comment lists MATLAB's, one more)
PUBLISHED = [
    (-84, -40, 99, 55),
    (-176, -88, 191, 103),
    (-360, -184, 375, 199),
    (-56, -56, 71, 71),
    (-120, -120, 135, 135),
    (-248, -248, 263, 263),
    (-36, -80, 51, 95),
    (-80, -168, 95, 183),
    (-168, -344, 183, 359),
]


def test_det1_the_nine_published_anchors() -> None:
    np.testing.assert_array_equal(faster_rcnn_anchors(), PUBLISHED)
    assert faster_rcnn_anchors().dtype == np.float32


def test_det1_no_rounding_and_the_other_order_of_ratios_are_seen() -> None:
    smooth = [(7.5 - (w - 1) / 2, 7.5 - (h - 1) / 2) for r in (0.5, 1, 2) for w, h in [(128 / r**0.5, 128 * r**0.5)]]
    assert np.abs(np.array(smooth)[[0, 2]] - faster_rcnn_anchors()[[0, 6], :2]).max() > 0.5
    assert (faster_rcnn_anchors(ratios=(2, 1, 0.5)) != PUBLISHED).any()


def test_det1_shifts_row_by_row_anchors_fastest() -> None:
    anchors = shifted_anchors(faster_rcnn_anchors(), (3, 5), (16, 16))
    assert anchors.shape == (3 * 5 * 9, 4)
    for row, column, anchor in ((0, 0, 0), (0, 4, 8), (2, 1, 3)):
        expected = np.array(PUBLISHED[anchor]) + 16 * np.array([column, row, column, row])
        np.testing.assert_array_equal(anchors[(row * 5 + column) * 9 + anchor], expected)
    np.testing.assert_array_equal(shifted_anchors([[0, 0, 1, 1]], (2, 2), (10, 20))[3], [20, 10, 21, 11])


def test_cell_anchors_round_halves_to_the_even_number() -> None:
    # size 32, ratio .5: h = 32 sqrt(.5) = 22.63, w = 45.25; halves 11.31 and 22.63
    np.testing.assert_array_equal(cell_anchors([32], [0.5]), [[-23, -11, 23, 11]])
    np.testing.assert_array_equal(cell_anchors([5, 7], [1]), [[-2, -2, 2, 2], [-4, -4, 4, 4]])  # 2.5 and 3.5
    np.testing.assert_allclose(
        cell_anchors([32], [0.5], rounded=False), [[-22.627, -11.314, 22.627, 11.314]], atol=1e-3
    )
    assert cell_anchors([32, 64], [0.5, 1, 2])[:2, 0].tolist() == [-23, -45]  # sizes fastest


def test_ssd_boxes_are_torchvisions(shared: Path) -> None:
    with np.load(shared / "parity" / "ssdlite320_mobilenet_v3_large.npz") as file:
        expected = file["anchors"]
    grids = [(20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]
    np.testing.assert_array_equal(ssd_boxes(grids, (320, 320)), expected)
    scales = [0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0]
    np.testing.assert_allclose(ssd_boxes(grids, (320, 320), scales=scales, ratios=[(2, 3)] * 6), expected, atol=1e-4)


def test_ssd_boxes_by_hand() -> None:
    boxes = ssd_boxes([(1, 2), (1, 1)], (100, 200), ratios=[(4,), ()], scales=(0.25, 0.5, 1.0))
    assert boxes.shape == (2 * 4 + 2, 4)
    # cell 1 of the first map: centre (150, 50); scale .25 is 50 x 25 pixels; sqrt(.25 * .5) = .3536; ratio 4: .5 x .125
    np.testing.assert_allclose(boxes[4], [125, 37.5, 175, 62.5])
    np.testing.assert_allclose(boxes[5], [150 - 35.355, 50 - 17.678, 150 + 35.355, 50 + 17.678], atol=1e-3)
    np.testing.assert_allclose(boxes[6:8], [[100, 43.75, 200, 56.25], [137.5, 25, 162.5, 75]])
    np.testing.assert_allclose(boxes[8], [50, 25, 150, 75])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: cell_anchors([], [1]), "`sizes` and `ratios` must be positive"),
        (lambda: shifted_anchors([1, 2, 3, 4], (1, 1), (1, 1)), r"`cell` must be \(A, 4\)"),
        (lambda: shifted_anchors([[1, 2, 3, 4]], (1, 1), (0, 1)), "stride_hw=\\(0, 1\\)"),
        (lambda: ssd_boxes([(1, 1)] * 3, (9, 9), ratios=[(2,), (2,)]), "`ratios` must be one row"),
        (lambda: ssd_boxes([(1, 1)] * 3, (9, 9), scales=(0.1, 0.2, 0.3)), "`scales` must be two numbers, or 4"),
    ],
)
def test_bad_arguments_are_named(call: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()  # type: ignore[operator]
