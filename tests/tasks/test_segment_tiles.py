"""Tiles: every pixel met, seams that cannot be told from one pass, and controls that can."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from tests.tasks.made_segment import halves, made_segmenter
from visionkit.tasks.segment_fit import SizeOptions
from visionkit.tasks.tiling import Joined, TilePlan

RADIUS = 12  # pixels that a network below sees around each


def padded_network(inputs):
    """(1, h, w, 3) -> (1, h / 8, w / 8, 4): a filter of 25 x 25 pixels that pads with zeros, at stride 8."""
    generator = np.random.default_rng(3)
    image = np.ascontiguousarray(inputs[0])
    planes = []
    for _ in range(4):
        kernel = generator.standard_normal((2 * RADIUS + 1, 2 * RADIUS + 1)).astype(np.float32)
        mixed = image @ generator.standard_normal(3).astype(np.float32)
        planes.append(cv2.filter2D(mixed, cv2.CV_32F, kernel, borderType=cv2.BORDER_CONSTANT)[::8, ::8])
    return np.dstack(planes)[None] / 1000


def noisy(size_hw, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), np.uint8)


def maps_of(size_hw, **size):
    options = {"size": SizeOptions(native=True, **size)}
    return made_segmenter(padded_network, **options).scores(noisy(size_hw)).maps[0]


@pytest.mark.parametrize("size_hw", [(256, 384), (160, 544), (128, 128)])
@pytest.mark.parametrize("tile", [128, 96])
def test_tiles_equal_one_pass_where_the_margin_holds_what_the_padding_reaches(size_hw, tile):
    """An overlap of 64 has a margin of 16, more than the 12 pixels that zeros reach."""
    whole, tiled = maps_of(size_hw), maps_of(size_hw, tile=tile, overlap=64)
    assert whole.shape == tiled.shape
    assert np.abs(whole - tiled).max() <= 1e-5 * np.abs(whole).max()


def test_without_overlap_the_seams_show():
    whole, tiled = maps_of((256, 384)), maps_of((256, 384), tile=128, overlap=0)
    off = np.abs(whole - tiled).max(axis=0) > 1e-3 * np.abs(whole).max()
    assert off[:, [15, 16, 31, 32]].mean() > 0.5  # beside the cuts at 128 and 256 pixels
    assert not off[4:12, 4:12].any()  # and not inside of a tile


def test_corners_off_the_networks_stride_would_show():
    """The control for corners on multiples of 32: the same network looks 4 pixels beside."""
    image = noisy((256, 256))
    here, beside = (padded_network(image[None, :, x : x + 128].astype(np.float32))[0] for x in (64, 68))
    assert np.abs(here[4:-4, 4:-4] - beside[4:-4, 4:-4]).max() > 0.1 * np.abs(here).max()


@pytest.mark.parametrize(("size_hw", "tile_hw", "overlap"), [((320, 96), (128, 96), 32), ((96, 992), (64, 160), 32)])
def test_tiles_meet_every_pixel_and_lie_inside(size_hw, tile_hw, overlap):
    plan, met = TilePlan(size_hw, tile_hw, overlap), np.zeros(size_hw, int)
    corners = []
    for tile in plan.tiles():
        (y, x), (height, width) = tile.corner_yx, tile_hw
        assert y % 32 == x % 32 == 0
        assert y + height <= size_hw[0]
        assert x + width <= size_hw[1]
        assert tile.at_edge == (y == 0, y + height == size_hw[0], x == 0, x + width == size_hw[1])
        met[y : y + height, x : x + width] += 1
        corners.append(tile.corner_yx)
    assert met.min() >= 1
    for axis in (0, 1):
        starts = sorted({corner[axis] for corner in corners})
        assert all(b - a <= tile_hw[axis] - overlap for a, b in itertools.pairwise(starts))


def test_joined_maps_are_weighted_means():
    plan = TilePlan((32, 96), (32, 64), 32)
    joined = Joined(plan, 8)
    first, second = plan.tiles()
    joined.add(first, np.zeros((1, 4, 8), np.float32))
    joined.add(second, np.ones((1, 4, 8), np.float32))
    row = joined.result()[0, 0]
    # overlap: places 4 to 7; margin 1 place, ramp 2: weights of the second .0, .25, .75, 1, of the first mirrored
    np.testing.assert_allclose(row, [0, 0, 0, 0, 0, 0.25, 0.75, 1, 1, 1, 1, 1], atol=1e-6)


def test_a_map_with_holes_is_not_given():
    plan = TilePlan((32, 96), (32, 64), 32)
    joined = Joined(plan, 8)
    joined.add(next(iter(plan.tiles())), np.zeros((1, 4, 8), np.float32))
    with pytest.raises(RuntimeError, match="no tile"):
        joined.result()


@pytest.mark.parametrize(
    ("sizes", "overlap"), [(((33, 64), (32, 32)), 0), (((64, 64), (96, 32)), 0), (((64, 96), (64, 64)), 40)]
)
def test_plans_without_meaning_are_refused(sizes, overlap):
    with pytest.raises(ValueError, match="must"):
        TilePlan(*sizes, overlap)


def test_a_large_image_goes_in_tiles_by_itself_and_keeps_its_edges():
    task = made_segmenter(size=SizeOptions(native=True, max_pixels=128 * 128))
    image = halves((300, 500), at=201)
    found = task(image).class_map
    assert found.shape == (300, 500)
    assert set(task.made) == {(128, 128)}
    expected = np.where(np.arange(500) < 201, 1, 2)
    assert np.abs((found != expected).nonzero()[1] - 201).max(initial=0) <= 4
    settings = task.settings((300, 500))
    assert (settings["input_hw"], settings["tile_hw"], settings["overlap"]) == ([288, 512], [128, 128], 32)
