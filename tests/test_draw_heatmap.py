"""Drawing of heat maps: the colours lie where the windows are, and say as much as they should."""

from __future__ import annotations

import numpy as np
import pytest

from visionkit.draw import draw_heatmap
from visionkit.draw.heatmap import _spread

GREY = 128


def blank(size_hw=(240, 400)):
    return np.full((*size_hw, 3), GREY, np.uint8)


def centres(count, stride, window):
    return (np.arange(count) * stride + window / 2).astype(np.float32)


def colour(image):
    """How far each pixel is from grey."""
    return np.ptp(image.astype(int), axis=-1)


def test_the_colour_is_strongest_at_the_centre_of_the_likely_window():
    probs = np.zeros((6, 11), np.float32)
    probs[1, 8] = 1.0
    image = draw_heatmap(blank(), probs, centres(11, 32, 64), centres(6, 32, 64))
    strong = colour(image)[:200]  # above the legend
    rows, columns = np.nonzero(strong > 0.95 * strong.max())
    assert abs(rows.mean() - (32 + 32)) < 3
    assert abs(columns.mean() - (8 * 32 + 32)) < 3
    assert strong[:200, :150].max() == 0, "nothing is painted where the class is not"


def test_between_places_it_is_interpolated_and_beyond_them_the_nearest_counts():
    probs = np.array([[0.0, 1.0], [0.0, 1.0]], np.float32)
    spread = _spread(probs, np.float32([30, 70]), np.float32([20, 60]), (80, 100))
    assert spread[40, 0] == 0.0
    assert spread[40, 99] == 1.0
    at = np.arange(100) + 0.5
    assert np.abs(spread[40] - np.clip((at - 30) / 40, 0, 1)).max() < 0.02


def test_a_single_window_fills_the_image():
    spread = _spread(np.full((1, 1), 0.7, np.float32), np.float32([30]), np.float32([20]), (40, 60))
    assert np.allclose(spread, 0.7)


def test_the_line_encloses_what_is_above_one_half():
    probs = np.repeat(np.linspace(0, 1, 11, dtype=np.float32)[None], 6, axis=0)
    image = draw_heatmap(blank(), probs, centres(11, 32, 64), centres(6, 32, 64))
    white = (image[60] == 255).all(axis=-1).nonzero()[0]
    assert np.abs(white - (5 * 32 + 32)).max() <= 3  # p = 0.5 at the sixth window's centre; no line along the edge


def test_more_is_lighter_also_in_grey():
    probs = np.repeat(np.linspace(0.05, 1, 20, dtype=np.float32)[None], 4, axis=0)
    dark = np.full((200, 400, 3), 30, np.uint8)
    image = draw_heatmap(dark, probs, centres(20, 20, 20), centres(4, 20, 20))
    grey = image[20].astype(float) @ [0.114, 0.587, 0.299]
    away = np.abs(np.arange(400) - 200) > 20  # of the line at one half
    assert (np.diff(grey[20:380:12][away[20:380:12]]) > -1).all()


@pytest.mark.parametrize("size_hw", [(8, 8), (20, 300), (300, 20), (1, 1), (90, 120)])
def test_any_size_takes_a_map_and_its_legend_stays_inside(size_hw):
    image = draw_heatmap(blank(size_hw), np.eye(3, dtype=np.float32), centres(3, 2, 4), centres(3, 2, 4), "Ünlike" * 20)
    assert image.shape == (*size_hw, 3)


def test_the_image_itself_is_changed_only_in_place():
    given = blank()
    probs = np.ones((2, 2), np.float32)
    drawn = draw_heatmap(given, probs, centres(2, 9, 9), centres(2, 9, 9), "dog")
    assert (given == GREY).all()
    assert draw_heatmap(given, probs, centres(2, 9, 9), centres(2, 9, 9), "dog", in_place=True) is given
    assert np.array_equal(given, drawn)
