"""The panel of classes: where it falls, what it shows, and that it fits."""

from __future__ import annotations

import numpy as np
import pytest

from visionkit.draw import draw_classes
from visionkit.draw.classes import BEST_BAR, _fitted, _lines
from visionkit.structures import Classification, DenseClassification, MultiClassification

NAMES = ["tabby", "tiger cat", "a dog of a very long name that no panel has room for", "猫\n\x1b[31m"]


def found(*probs):
    return Classification(np.arange(len(probs)), np.array(probs))


def blank(size_hw=(240, 400)):
    return np.full((*size_hw, 3), 128, np.uint8)


def panel(image):
    """(height, width) of what was drawn on a blank image, from the upper left corner."""
    rows, columns = np.nonzero((image != 128).any(axis=-1))
    return rows.max() + 1, columns.max() + 1


def bar_length(image):
    return int((np.abs(image.astype(int) - BEST_BAR) <= 2).all(axis=-1).sum(axis=1).max())


def test_the_argument_is_left_alone_unless_asked():
    image = blank()
    out = draw_classes(image, found(0.7, 0.2), NAMES)
    assert (image == 128).all()
    assert draw_classes(image, found(0.7, 0.2), NAMES, in_place=True) is image
    assert np.array_equal(image, out)


def test_bars_are_as_long_as_the_probabilities():
    lengths = [bar_length(draw_classes(blank(), found(p, 0.0), NAMES)) for p in (0.25, 0.5, 1.0)]
    assert lengths[1] == pytest.approx(2 * lengths[0], abs=2)
    assert lengths[2] == pytest.approx(2 * lengths[1], abs=2)
    assert bar_length(draw_classes(blank(), found(0.0), NAMES)) == 0


def test_one_line_a_class():
    heights = [panel(draw_classes(blank(), found(*[0.1] * count)))[0] for count in (1, 2, 3)]
    assert heights[2] - heights[1] == heights[1] - heights[0] > 8


@pytest.mark.parametrize("size_hw", [(240, 400), (720, 1280), (2160, 3840), (400, 240)])
def test_letters_grow_with_the_image_and_the_panel_leaves_most_of_it_free(size_hw):
    height, width = panel(draw_classes(blank(size_hw), found(0.7, 0.2, 0.05, 0.03, 0.01), NAMES))
    assert height <= 0.45 * size_hw[0]
    assert width <= 0.92 * size_hw[1]
    assert height / 5 >= max(9, min(size_hw) / 40)


@pytest.mark.parametrize("size_hw", [(1, 1), (2, 30), (30, 2), (16, 9), (40, 60)])
def test_tiny_images_are_drawn_on_without_failing(size_hw):
    image = draw_classes(blank(size_hw), found(0.7, 0.2, 0.05), NAMES)
    assert image.shape == (*size_hw, 3)


def test_long_names_are_cut_and_foreign_letters_replaced():
    lines = _lines(found(0.4, 0.3, 0.2, 0.1), NAMES)
    assert lines[2][0] == "a dog of a very long name th.."
    assert lines[3][0] == "???[31m"
    style, cut, width = _fitted(lines, 1, 90)
    assert width == 90
    assert max(style.size(name)[0] for name, _ in cut) <= 90 - style.size("100.0 %")[0]
    assert cut[2][0].endswith(".")


def test_classes_without_names_show_their_numbers():
    assert _lines(Classification([7, 1], [0.5, 0.4]), ["a"]) == [("7", 0.5), ("1", pytest.approx(0.4))]
    assert [name for name, _ in _lines(found(0.5), None)] == ["0"]


def test_heads_stand_under_their_names_and_dense_results_show_the_whole():
    one = panel(draw_classes(blank(), found(0.7, 0.2)))[0]
    both = MultiClassification({"kind": found(0.7, 0.2), "daytime": found(0.9, 0.1)})
    names = {"kind": NAMES, "daytime": ["day", "night"]}
    assert panel(draw_classes(blank(), both, names))[0] == pytest.approx(3 * one, abs=8)
    dense = DenseClassification(np.zeros((1, 1, 2)), np.zeros(1), np.zeros(1), (9.0, 9.0), found(0.7, 0.2))
    assert np.array_equal(draw_classes(blank(), dense, NAMES), draw_classes(blank(), found(0.7, 0.2), NAMES))


def test_nothing_found_draws_nothing():
    assert (draw_classes(blank(), found()) == 128).all()
