"""TRK-9: windows around an object and what is cut from them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from visionkit.geometry.crops import Window, cell_cover, context_side, window_around
from visionkit.tasks.crop import cut, mean_color


def test_trk9_context_side_by_hand() -> None:
    # w = 40, h = 60: p = 0.5 * 100 = 50, s_z = sqrt(90 * 110)
    assert context_side((40, 60)) == pytest.approx(math.sqrt(9900))
    assert context_side((50, 50)) == pytest.approx(100)
    # the search side keeps the pixels' size: s_x = s_z * 255 / 127
    assert context_side((50, 50)) * 255 / 127 == pytest.approx(200.787, abs=1e-3)


@pytest.mark.parametrize("bad", [(0, 10), (10, -1), (float("nan"), 4)])
def test_context_side_names_a_bad_size(bad: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="size_wh"):
        context_side(bad)


def test_trk9_centre_round_trip_is_within_half_a_pixel() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        center, side = rng.uniform(-20, 700, 2), rng.uniform(5, 600)
        window = window_around(center, side)
        middle = np.array([window.x0, window.y0]) + window.side / 2
        assert np.abs(middle - center).max() <= 0.51
        back = window.to_image(window.to_window(center, 255), 255)
        assert np.abs(back - center).max() < 1e-3


def test_boxes_round_trip_through_a_window() -> None:
    window = Window(-7, 31, 90)
    box = np.array([3.25, 40.5, 50.0, 77.75], np.float32)
    there = window.to_window(box, 192)
    assert there.tolist() == pytest.approx([v * 192 / 90 for v in (10.25, 9.5, 57.0, 46.75)], rel=1e-6)
    assert window.to_image(there, 192).tolist() == pytest.approx(box.tolist(), abs=1e-4)


def test_points_of_another_shape_are_named() -> None:
    with pytest.raises(ValueError, match=r"shape=\(3,\)"):
        Window(0, 0, 4).to_image((1, 2, 3), 4)


def ramp(height: int, width: int) -> np.ndarray:
    """Blue is the column, green the row."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8)


def test_trk9_pixels_come_from_where_the_window_says() -> None:
    image = ramp(120, 160)
    window = Window(20, 30, 64)
    patch = cut(image, window, 128, mean_color(image)).astype(float)
    for row, column in ((10, 40), (64, 64), (100, 20)):
        x, y = window.to_image((column + 0.5, row + 0.5), 128) - 0.5
        # x and y swapped, or half a pixel lost, is more than the rounding of uint8
        assert abs(patch[row, column, 0] - x) <= 0.5
        assert abs(patch[row, column, 1] - y) <= 0.5


@pytest.mark.parametrize("window", [Window(-90, -40, 300), Window(30, -170, 331), Window(-20, 10, 417)])
def test_trk9_a_large_window_over_the_edge_maps_alike(window: Window) -> None:
    image = ramp(150, 210)
    patch = cut(image, window, 96, (7, 7, 7)).astype(float)
    checked = 0
    for row in range(0, 96, 5):
        for column in range(0, 96, 5):
            x, y = window.to_image((column + 0.5, row + 0.5), 96) - 0.5
            if 8 < x < 200 and 8 < y < 140:
                assert abs(patch[row, column, 0] - x) <= 1
                assert abs(patch[row, column, 1] - y) <= 1
                checked += 1
            elif x < -8 or y < -8 or x > 218 or y > 158:
                assert patch[row, column].tolist() == [7, 7, 7]
    assert checked > 20


def test_trk9_outside_is_the_mean_colour() -> None:
    image = np.full((40, 60, 3), (10, 20, 30), np.uint8)
    image[:, 30:] = (50, 60, 70)
    fill = mean_color(image)
    assert fill == pytest.approx((30, 40, 50))
    patch = cut(image, Window(-20, -10, 40), 40, fill)
    assert patch[0, 0].tolist() == [30, 40, 50]
    assert patch[9, 39].tolist() == [30, 40, 50]
    assert patch[10, 20].tolist() == [10, 20, 30]


def test_a_window_wholly_outside_is_flat() -> None:
    patch = cut(ramp(20, 30), Window(100, 100, 10), 16, (1, 2, 3))
    assert patch.shape == (16, 16, 3)
    assert np.unique(patch.reshape(-1, 3), axis=0).tolist() == [[1, 2, 3]]


def test_shrinking_averages() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, ::2] = 200
    patch = cut(image, Window(0, 0, 64), 16, (0, 0, 0))
    assert np.abs(patch.astype(int) - 100).max() <= 1  # sampling every fourth column would give 0 or 200


def test_cell_cover_by_hand() -> None:
    # 96 pixels, the middle 8 cells of 8 lie at 16 ... 80; the box covers x 20 ... 44, y 16 ... 24
    cover = cell_cover((20, 16, 44, 24), 96, cells=8, stride=8)
    assert cover[0].tolist() == [0.5, 1, 1, 0.5, 0, 0, 0, 0]
    assert not cover[1:].any()
    assert cell_cover((0, 0, 96, 96), 96, cells=8, stride=8).min() == 1
    assert not cell_cover((90, 90, 96, 96), 96, cells=8, stride=8).any()
