"""Classes of pixels over images: colours told apart, legends legible and inside, images left alone."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from visionkit.draw import draw_segmentation, draw_uncertainty
from visionkit.draw.segment import CLASS_COLORS
from visionkit.structures import Segmentation

NAMES = ("background", "car", "person", "tree")
# Machado, Oliveira, Fernandes 2009: what protanopes, deuteranopes and tritanopes see, in linear RGB
BLINDNESS = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def blank(size_hw=(240, 320), level=120):
    return np.full((*size_hw, 3), level, np.uint8)


def squares(size_hw=(240, 320)):
    """Background with a class 2 square in the middle and a class 3 strip at the bottom."""
    ids = np.zeros(size_hw, np.uint8)
    height, width = size_hw
    ids[height // 3 : 2 * height // 3, width // 2 : 3 * width // 4] = 2
    ids[-height // 8 :] = 3
    return Segmentation(ids)


def seen_as(kind):
    """CIELAB of the class colours for such eyes."""
    rgb = np.array(CLASS_COLORS) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ np.transpose(BLINDNESS[kind])
    linear = np.clip(linear, 0, 1)
    rgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return cv2.cvtColor(rgb[None].astype(np.float32), cv2.COLOR_RGB2Lab)[0]


@pytest.mark.parametrize("kind", BLINDNESS)
def test_class_colors_are_told_apart_by_all_eyes(kind):
    """A difference of 2.3 in CIELAB is just noticed; Okabe and Ito's own seven keep 13 for tritanopes."""
    lab = seen_as(kind)
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)]
    assert min(distances) > 10
    first = [np.linalg.norm(a - b) for a, b in itertools.combinations(lab[:12], 2)]
    assert min(first) > 13


def test_classes_are_coloured_background_is_not_and_lines_run_between():
    image = draw_segmentation(blank(), squares(), NAMES, legend=False)
    assert (image[20, 20] == 120).all()
    for place, turn in (((120, 190), 1), ((235, 10), 2)):  # background takes no colour
        expected = 60 + np.array(CLASS_COLORS[turn][::-1]) / 2
        assert np.abs(image[place].astype(float) - expected).max() <= 1
    dark = (image == 20).all(axis=2)
    assert dark[120, 156:164].any()
    assert not dark[100:140, 170:230].any()


def test_the_legend_lists_only_what_is_there():
    without = draw_segmentation(blank(), squares(), NAMES, legend=False)
    image = draw_segmentation(blank(), squares(), NAMES)
    changed = (image != without).any(axis=2)
    rows = np.flatnonzero(changed.any(axis=1))
    one_more = Segmentation(squares().class_map.copy())
    one_more.class_map[0, 300:310] = 1
    more = draw_segmentation(blank(), one_more, NAMES)
    taller = np.flatnonzero((more != draw_segmentation(blank(), one_more, NAMES, legend=False)).any(axis=2).any(axis=1))
    assert np.ptp(taller) + 1 == pytest.approx((np.ptp(rows) + 1) * 3 / 2, abs=1)
    for turn in (1, 2):
        assert (image[:60, :20] == CLASS_COLORS[turn][::-1]).all(axis=2).any()
    assert not (image[:60, :20] == CLASS_COLORS[0][::-1]).all(axis=2).any()
    nothing = Segmentation(np.zeros((240, 320), np.uint8))
    assert np.array_equal(draw_segmentation(blank(), nothing, NAMES), blank())


@pytest.mark.parametrize("size_hw", [(240, 320), (720, 1280), (2160, 3840)])
def test_letters_grow_with_the_image(size_hw):
    image = draw_segmentation(blank(size_hw), squares(size_hw), NAMES)
    bright = (image > 200).all(axis=2)
    rows = np.flatnonzero(bright[: size_hw[0] // 4].any(axis=1))
    first = rows[: np.argmax(np.diff(rows) > 1) + 1]
    assert size_hw[0] / 60 < len(first) < size_hw[0] / 18  # the height of the first name


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 50), (8, 8), (20, 300), (300, 20), (33, 47)])
def test_any_size_and_any_name_can_be_drawn(size_hw):
    names = ("Ünlike\x1b[31m" * 20, "", "\u202etxt", "a\nb", "ok")
    ids = (np.arange(size_hw[0] * size_hw[1]).reshape(size_hw) % 7).astype(np.uint8)  # two ids without a name
    image = draw_segmentation(blank(size_hw), Segmentation(ids), names)
    assert image.shape == (*size_hw, 3)


def test_many_classes_keep_the_largest_and_say_how_many_are_left_out():
    ids = np.repeat(np.arange(60, dtype=np.uint8), 80).reshape(40, 120)
    image = draw_segmentation(blank((40, 120)), Segmentation(ids), [f"class {i}" for i in range(60)])
    assert image.shape == (40, 120, 3)


def test_wide_ids_and_palettes():
    ids = np.full((30, 40), 299, np.uint16)
    ids[:, :20] = 2
    image = draw_segmentation(blank((30, 40)), Segmentation(ids), legend=False)
    assert (image[:, :18] != 120).any()
    palette = ((0, 0, 0), (0, 0, 0), (200, 100, 50))
    image = draw_segmentation(blank((30, 40)), Segmentation(np.full((30, 40), 2)), palette=palette, legend=False)
    assert image[15, 20].tolist() == [85, 110, 160]


def test_the_image_itself_is_changed_only_in_place():
    given = blank()
    drawn = draw_segmentation(given, squares(), NAMES)
    assert (given == 120).all()
    assert draw_segmentation(given, squares(), NAMES, in_place=True) is given
    assert np.array_equal(given, drawn)
    with pytest.raises(ValueError, match="size"):
        draw_segmentation(blank((10, 10)), squares())


def test_uncertainty_is_brightest_where_the_entropy_is():
    entropy = np.zeros((6, 8), np.float32)
    entropy[3, 6] = 0.9
    image = draw_uncertainty(blank(), entropy).astype(int)
    warm = image[..., 2] - image[..., 0]
    warm[200:] = 0  # the legend
    y, x = np.unravel_index(warm.argmax(), warm.shape)
    assert (abs(y - 140), abs(x - 260)) <= (20, 20)
    assert np.abs(warm[20:100, 20:150]).max() < 5
    assert draw_uncertainty(blank((1, 1)), np.ones((1, 1), np.float32)).shape == (1, 1, 3)
