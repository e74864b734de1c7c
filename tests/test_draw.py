"""Drawing of tracks: where ink falls, and where it does not."""

from __future__ import annotations

import numpy as np
import pytest

from visionkit.draw import STATE_COLORS, TrackDrawer, draw_track, line_width
from visionkit.structures import TRACK_STATES, Track

SIZE_HW = (240, 400)


def blank(size_hw=SIZE_HW):
    return np.full((*size_hw, 3), 128, np.uint8)


def near(image, color, tolerance=3):
    return (np.abs(image.astype(int) - color) <= tolerance).all(axis=-1)


def test_the_box_lies_on_the_pixels_inside_the_coordinates():
    image = draw_track(blank(), Track([100, 120, 180, 200], 0.9, "tracking"))
    colored = near(image, STATE_COLORS["tracking"])
    below = colored[125:]  # below the chip
    rows, columns = np.nonzero(below)
    assert columns.min() == 100
    assert columns.max() == 179  # x2 - 1: the last pixel of [100, 180)
    assert rows.max() + 125 == 199
    assert not colored[130:190, 110:170].any(), "the inside of the box is painted over"


def test_the_argument_is_left_alone_unless_asked():
    image = blank()
    out = draw_track(image, Track([100, 120, 180, 200], 0.9, "tracking"))
    assert (image == 128).all()
    assert out is not image
    assert draw_track(image, Track([100, 120, 180, 200], 0.9, "tracking"), in_place=True) is image
    assert np.array_equal(image, out)


@pytest.mark.parametrize("state", TRACK_STATES)
def test_each_state_has_its_color_and_only_a_lost_box_is_dashed(state):
    image = draw_track(blank(), Track([100, 60, 300, 200], 0.5, state))
    side = near(image[70:190, 100], STATE_COLORS[state], 40)
    gaps = int((~side).sum())
    assert (gaps > 30) == (state == "lost")
    assert side.sum() > 30
    assert len(set(STATE_COLORS.values())) == len(TRACK_STATES)


@pytest.mark.parametrize("xyxy", [[0, 0, 400, 240], [-50, -50, 20, 20], [390, 230, 700, 500], [200, 0, 240, 10]])
def test_boxes_at_and_over_the_edge_keep_a_chip_inside(xyxy):
    image = draw_track(blank(), Track(xyxy, 0.5, "tracking"), "runner")
    assert near(image, STATE_COLORS["tracking"]).sum() > 300
    assert image.shape == (*SIZE_HW, 3)


@pytest.mark.parametrize("size_hw", [(2, 2), (1, 30), (16, 9)])
def test_tiny_images_are_drawn_on_without_failing(size_hw):
    image = draw_track(blank(size_hw), Track([0, 0, size_hw[1], size_hw[0]], 1.0, "tracking"))
    assert image.shape == (*size_hw, 3)


def test_lines_grow_with_the_image():
    assert [line_width((height, height * 16 // 9)) for height in (180, 432, 720, 1080, 2160)] == [1, 2, 3, 4, 8]


def test_a_label_that_fonts_cannot_draw_does_not_fail():
    image = draw_track(blank(), Track([100, 120, 180, 200], 0.9, "tracking"), "猫\n\x1b[31m")
    assert near(image, STATE_COLORS["tracking"]).any()


def test_the_trail_follows_and_is_cut_by_a_loss():
    drawer = TrackDrawer(length=10)
    for x in range(0, 200, 10):
        image = blank()
        drawer(image, Track([x, 150, x + 20, 170], 0.9, "tracking"))
    assert (image[155:165, 120:190] != 128).any(), "no trail behind the box"
    assert (image[155:165, :85] == 128).all(), "the trail is longer than asked"
    lost = blank()
    drawer(lost, Track([190, 150, 210, 170], 0.1, "lost"))
    assert (lost[155:165, 100:180] == 128).all()
