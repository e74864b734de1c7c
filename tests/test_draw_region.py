"""Regions over an image: outline, the mark at the first corner, the crop beside it, any size and place."""

from __future__ import annotations

import numpy as np
import pytest

from visionkit.draw import draw_region_classes, draw_regions
from visionkit.draw.region import OUTLINES
from visionkit.structures import Classification, MultiClassification, Rectified

QUAD = np.array([[60, 40], [180, 60], [160, 200], [50, 180]], float)


def region(outline=QUAD, level=250) -> Rectified:
    return Rectified(np.full((30, 40, 3), level, np.uint8), outline)


def test_the_outline_is_drawn_with_a_mark_at_the_first_corner():
    image = np.full((240, 320, 3), 100, np.uint8)
    drawn = draw_regions(image, [region()], inset=False)
    assert image.min() == image.max() == 100
    changed = (drawn != 100).any(axis=2)
    for a, b in zip(QUAD, np.roll(QUAD, -1, axis=0), strict=True):
        x, y = np.rint((a + b) / 2).astype(int)
        assert changed[y - 1 : y + 2, x - 1 : x + 2].any()
    assert not changed[100:140, 90:130].any()  # nothing inside
    marks = [changed[int(y) - 4 : int(y) + 5, int(x) - 4 : int(x) + 5].sum() for x, y in QUAD]
    assert marks[0] > 1.5 * max(marks[1:])


def test_the_crop_is_in_the_corner_and_the_next_below_it():
    image = np.full((240, 320, 3), 100, np.uint8)
    one = draw_regions(image, [region()])
    bright = (one == 250).all(axis=2)
    ys, xs = np.nonzero(bright)
    assert ys.max() - ys.min() + 1 == 67  # 0.28 of 240
    assert xs.min() > 220
    assert ys.max() < 80
    two = draw_regions(image, [None, region(), region(level=5)])
    assert (two == 5).all(axis=2).any()
    assert np.nonzero((two == 5).all(axis=2))[0].min() > ys.max()
    with pytest.raises(ValueError, match="`outline`"):
        Rectified(image, np.zeros(4))


@pytest.mark.parametrize("size_hw", [(1, 1), (3, 200), (1080, 1920)])
def test_any_size_and_any_outline(size_hw):
    image = np.full((*size_hw, 3), 100, np.uint8)
    far = np.array([[-1e9, 0], [1e9, 5], [np.inf, 1e12], [np.nan, 3]])
    for outline in (QUAD, far):
        assert draw_regions(image, [region(outline)] * 6, in_place=True) is image


def test_labels_of_regions_stay_inside_and_have_the_outline_s_colour():
    image = np.full((240, 320, 3), 40, np.uint8)
    boxes = np.array([[20, 30, 120, 130], [200, 100, 330, 300], [0, 0, 40, 40]], float).reshape(-1, 2, 2)
    found = [
        Classification(np.array([1, 0]), np.array([0.9, 0.1], np.float32)),
        MultiClassification({"a": Classification(np.array([7]), np.array([0.5], np.float32))}),
        None,
    ]
    drawn = draw_region_classes(image, boxes, found, ("cat", "dog"))
    assert (image == 40).all()
    for place, (rows, columns) in enumerate([(slice(105, 130), slice(20, 120)), (slice(210, 240), slice(200, 320))]):
        assert (drawn[rows, columns] == OUTLINES[place]).all(axis=-1).any()
    changed = (drawn != image).any(axis=-1)
    assert not changed[:100].any()
    nothing = [Classification(np.zeros(0, int), np.zeros(0, np.float32))]
    np.testing.assert_array_equal(draw_region_classes(image, boxes[:1], nothing), image)
    again = image.copy()
    assert draw_region_classes(again, boxes, found, ("cat", "dog"), in_place=True) is again
    np.testing.assert_array_equal(again, drawn)
