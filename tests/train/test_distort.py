"""Photos put down crooked: the same for a name and a seed, wholly on their canvas, and seen so by training and eval."""

from __future__ import annotations

import numpy as np
import pytest

from visionkit.train.distort import Distortion

RNG = np.random.default_rng(0)


def photo(height: int = 40, width: int = 60) -> np.ndarray:
    """Grey, with a white middle."""
    image = np.full((height, width, 3), 90, np.uint8)
    image[10:-10, 15:-15] = 250
    return image


def test_a_name_and_a_seed_make_one_picture():
    image, distort = photo(), Distortion(3)
    first = distort.named(image, "a/1.jpg")
    assert first.shape == (80, 120, 3)
    np.testing.assert_array_equal(first, distort.named(image, "a/1.jpg"))
    assert (first != distort.named(image, "a/2.jpg")).any()
    assert (first != Distortion(4).named(image, "a/1.jpg")).any()
    np.testing.assert_array_equal(image, photo())


def test_what_is_drawn_lies_within_what_is_said():
    distort = Distortion(turn=30, smallest=0.5, largest=0.8, canvas=1.5, over=0)
    size_hw = (40, 60)
    for _ in range(200):
        matrix = distort.matrix(size_hw, RNG)
        scale = np.sqrt(np.linalg.det(matrix[:, :2]))
        angle = np.rad2deg(np.arctan2(matrix[1, 0], matrix[0, 0]))
        assert 0.5 <= scale <= 0.8
        assert abs(angle) <= 30
        middle = matrix @ [29.5, 19.5, 1]
        room = (1.5 - scale) / 2 * np.array([60, 40])
        assert (np.abs(middle - [44.5, 29.5]) <= room + 1e-9).all()


def test_at_no_share_the_picture_fills_its_canvas_upright():
    matrix = Distortion().matrix((40, 60), RNG, 0.0)
    np.testing.assert_allclose(matrix @ [29.5, 19.5, 1], [59.5, 39.5], atol=1e-9)
    np.testing.assert_allclose(matrix[:, :2], np.eye(2) * 2, atol=1e-12)


def test_the_canvas_has_the_colour_of_the_edge():
    out = Distortion(smallest=0.5, largest=0.5, turn=0)(photo(), RNG)
    assert set(np.unique(out[0])) == {90}
    assert 0.011 < (out > 170).mean() < 0.018  # 20 x 30 pixels at half the size are 150 of 80 x 120


@pytest.mark.parametrize("wrong", [{"smallest": 0}, {"smallest": 2}, {"turn": -1}, {"over": -0.1}, {"canvas": 0.5}])
def test_bad_arguments_are_told_by_value(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        Distortion(**wrong)
