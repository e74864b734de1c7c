"""Distorted digits: what is drawn lies within what is said, pixels go where the maps say; H != W throughout."""

from __future__ import annotations

import numpy as np
import pytest

from visionkit.geometry.homography import apply_homography
from visionkit.train.digit_distortions import DISTORTIONS, canvas_hw, distort_digits, draw_matrices, draw_splines

HW = (28, 42)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def blob(middle: tuple[float, float], size_hw: tuple[int, int] = HW) -> np.ndarray:
    """A round spot around `middle` xy, in continuous pixels."""
    y, x = np.mgrid[: size_hw[0], : size_hw[1]] + 0.5
    return np.rint(255 * np.exp(-((x - middle[0]) ** 2 + (y - middle[1]) ** 2) / 8)).astype(np.uint8)


def centroid(picture: np.ndarray) -> np.ndarray:
    """x and y of the mean of a picture (H, W), in continuous pixels."""
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]] + 0.5
    return np.array([(picture * x).sum(), (picture * y).sum()]) / picture.sum()


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_a_seed_makes_one_set_of_pictures(kind):
    digits = np.stack([blob((20, 12)), blob((15, 16)), blob((20, 12))])
    given = digits.copy()
    first = distort_digits(digits, kind, rng(3))
    assert first.shape == (3, *canvas_hw(kind, HW), 1)
    assert first.dtype == np.float32
    assert first.min() == 0 < first.max() <= 1
    np.testing.assert_array_equal(first, distort_digits(digits, kind, rng(3)))
    assert (first != distort_digits(digits, kind, rng(4))).any()
    assert (first[0] != first[2]).any()
    np.testing.assert_array_equal(digits, given)
    assert distort_digits(digits[:0], kind, rng()).shape == (0, *canvas_hw(kind, HW), 1)


def test_only_the_shifted_digits_get_a_larger_canvas():
    assert [canvas_hw(kind, HW) for kind in DISTORTIONS] == [(28, 42), (42, 63), (28, 42), (28, 42)]


@pytest.mark.parametrize("kind", ["R", "RTS"])
def test_turns_and_scales_lie_within_their_range_and_fill_it(kind):
    matrices = draw_matrices(kind, 4000, HW, rng())
    scale = np.sqrt(np.linalg.det(matrices[:, :2, :2]))
    angle = np.rad2deg(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    most, (low, high) = {"R": (90, (1, 1)), "RTS": (45, (0.7, 1.2))}[kind]
    assert np.abs(angle).max() <= most + 1e-9
    assert angle.min() < -0.98 * most
    assert angle.max() > 0.98 * most
    assert low - 1e-9 <= scale.min() <= low + 0.01
    assert high - 0.01 <= scale.max() <= high + 1e-9
    middles = np.stack([apply_homography(matrix, [21, 14]) for matrix in matrices])
    canvas = np.array(canvas_hw(kind, HW)[::-1])
    room = (canvas - scale[:, None] * [42, 28]) / 2 if kind == "RTS" else np.zeros((1, 2))
    assert (np.abs(middles - canvas / 2) <= room + 1e-9).all()
    if kind == "RTS":  # anywhere: up to either end of the room, and not along a diagonal
        share = (middles - canvas / 2) / room
        assert (share.min(axis=0) < -0.98).all()
        assert (share.max(axis=0) > 0.98).all()
        assert abs(np.corrcoef(share.T)[0, 1]) < 0.05


def test_corners_move_by_five_pixels_of_28_and_always_go_round():
    frame = np.array([[0, 0], [42, 0], [42, 28], [0, 28]], np.float64)
    matrices = draw_matrices("P", 3000, HW, rng())
    corners = np.stack([apply_homography(matrix, frame) for matrix in matrices])
    shrunk = (frame - [21, 14]) * 0.875 + [21, 14]
    moved = (corners - shrunk) / [42, 28] * 28
    # 5 pixels; and the scale's own spread, 0.25 / sqrt(12) of 14 pixels: 5.10 together, less for what is drawn again
    assert moved.std(axis=0) == pytest.approx(5.1, abs=0.25)
    assert moved.mean(axis=0) == pytest.approx(0, abs=0.5)
    before, after = corners - np.roll(corners, 1, axis=1), np.roll(corners, -1, axis=1) - corners
    turn = before[..., 0] * after[..., 1] - before[..., 1] * after[..., 0]
    assert turn.min() > 0


def test_the_spline_moves_its_control_points_by_one_and_a_half_pixels_of_28():
    # At the corners of the result, where a control point lies half a pixel outside of the first pixel's centre.
    splines = draw_splines(4000, HW, rng())
    assert splines.shape == (4000, 2, *HW)
    corner = splines[:, :, 0, 0] + 0.5  # continuous
    away = (corner - [21, 14]) / [42, 28] * 28  # -14 / scale, and the noise: 1.5 / scale
    inverse = np.log(1 / 0.75) / 0.25  # the mean of 1 / scale
    assert away.mean(axis=0) == pytest.approx(-14 * inverse, rel=0.05)
    square = 1 / 0.75  # the mean of 1 / scale^2
    spread = np.sqrt(14**2 * (square - inverse**2) + 1.5**2 * square)
    assert away.std(axis=0) == pytest.approx(spread, rel=0.1)
    # The parts of x and y that the scale does not explain are independent of each other
    across = away[:, 0] - away[:, 1]
    assert across.std() == pytest.approx(1.5 * np.sqrt(2 * square), rel=0.15)


@pytest.mark.parametrize("kind", ["R", "RTS", "P"])
def test_a_spot_goes_where_the_matrix_says_and_not_where_a_wrong_one_would(kind):
    place, digits = np.array([23.0, 11.0]), np.stack([blob((23, 11))] * 40)
    matrices = draw_matrices(kind, 40, HW, rng(5))
    found = np.stack([centroid(picture[..., 0]) for picture in distort_digits(digits, kind, rng(5))])
    told = np.stack([apply_homography(matrix, place) for matrix in matrices])
    height, width = canvas_hw(kind, HW)
    inside = ((told > 7) & (told < [width - 7, height - 7])).all(axis=1)
    assert inside.sum() >= 8
    # A homography does not take a spot's middle to a spot's middle quite
    assert np.abs(found - told)[inside].max() < (1.0 if kind == "P" else 0.06)

    def error(points: np.ndarray) -> float:
        return float(np.median(np.abs(found - points)[inside].max(axis=1)))

    right = error(told)
    backward = np.stack([apply_homography(np.linalg.inv(matrix), place) for matrix in matrices])
    swapped = np.stack([apply_homography(matrix, place[::-1])[::-1] for matrix in matrices])
    indices = np.stack([apply_homography(matrix, place - 0.5) + 0.5 for matrix in matrices])  # half a pixel forgotten
    assert error(backward) > max(1.0, 3 * right)
    assert error(swapped) > max(1.0, 3 * right)
    assert error(indices) > right + 0.05


def test_a_spot_is_read_where_the_spline_says():
    place, digits = np.array([23.0, 13.0]), np.stack([blob((23, 13))] * 30)
    pictures, splines = distort_digits(digits, "E", rng(5))[..., 0], draw_splines(30, HW, rng(5))
    for picture, read in zip(pictures, splines, strict=True):
        x, y = np.rint(centroid(picture) - 0.5).astype(int)
        assert np.abs(read[:, y, x] + 0.5 - place).max() < 1.3  # a pixel, and what bending moves a middle by
    unbent = (np.stack([centroid(picture) for picture in pictures]) - [21, 14]) / 0.875 + [21, 14]
    assert np.abs(unbent - place).max() > 1.5


@pytest.mark.parametrize(
    ("digits", "message"),
    [
        (np.zeros((2, 28, 28), np.float32), "float32"),
        (np.zeros((28, 28), np.uint8), r"\(28, 28\)"),
    ],
)
def test_digits_of_another_form_are_refused(digits, message):
    with pytest.raises(ValueError, match=message):
        distort_digits(digits, "R", rng())


def test_an_unknown_distortion_is_told_by_name():
    with pytest.raises(ValueError, match="kind='TC'"):
        distort_digits(np.zeros((1, 28, 28), np.uint8), "TC", rng())
    with pytest.raises(ValueError, match="kind='E'"):
        draw_matrices("E", 1, HW, rng())
