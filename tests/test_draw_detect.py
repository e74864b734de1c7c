"""Detections drawn on images from tiny to 4K: inside the image, in place or on a copy, whatever the names are."""

from __future__ import annotations

import numpy as np
import pytest

from visionkit.draw import DetectionDrawer, draw_counts, draw_detections
from visionkit.structures import Detections

SIZES = [(1, 1), (3, 200), (48, 64), (432, 768), (2160, 3840)]


def grey(size_hw):
    return np.full((*size_hw, 3), 96, np.uint8)


def some(size_hw, *, ids=None, masks=False):
    height, width = size_hw
    boxes = np.array([[0, 0, 1, 1], [0.1, 0.2, 0.6, 0.7], [0.5, 0.5, 0.55, 0.52]], np.float32)
    boxes = boxes * np.array([width, height] * 2, np.float32)
    mask = np.zeros((3, height, width), bool)
    mask[:, : max(1, height // 2)] = True
    return Detections(boxes, [0.999, 0.5, 0.3], [0, 1, 70], mask if masks else None, ids)


@pytest.mark.parametrize("size_hw", SIZES)
@pytest.mark.parametrize("masks", [False, True])
def test_any_size_is_drawn_on_and_a_copy_leaves_the_image_alone(size_hw, masks):
    image = grey(size_hw)
    drawn = draw_detections(image, some(size_hw, masks=masks), ("a" * 80, "\u65e5\x1b[31m"))
    assert drawn.shape == image.shape
    assert (image == 96).all()
    assert (drawn != 96).any()
    assert draw_detections(image, some(size_hw), in_place=True) is image
    assert (image != 96).any()


def test_nothing_found_changes_nothing():
    image = grey((48, 64))
    assert (draw_detections(image, Detections.empty()) == image).all()
    DetectionDrawer()(image, Detections.empty())
    assert (image == 96).all()


def test_colours_tell_classes_or_objects_apart():
    def border(classes, ids):
        boxes = np.array([[10, 40, 60, 90], [120, 40, 170, 90]], np.float32)
        drawn = draw_detections(grey((120, 200)), Detections(boxes, [0.9, 0.9], classes, None, ids))
        return [tuple(int(v) for v in drawn[80, x]) for x in (10, 120)]

    a, b = border([0, 1], None)
    assert a != b
    same = border([0, 0], None)
    assert same[0] == same[1]
    numbered = border([0, 0], [1, 2])
    assert numbered[0] != numbered[1]
    assert border([0, 0], [-1, -1])[0] == same[0]  # nobody has a number yet: classes


def test_masks_of_another_size_are_refused():
    found = Detections(np.array([[0, 0, 9, 9]]), [1], [0], np.ones((1, 5, 5), bool))
    with pytest.raises(ValueError, match="image's size"):
        draw_detections(grey((20, 20)), found)


def test_a_path_is_drawn_and_forgotten():
    drawer = DetectionDrawer(length=10)
    for step in range(12):
        image = grey((120, 300))
        box = np.array([[10 + 20 * step, 60, 30 + 20 * step, 100]], np.float32)
        drawer(image, Detections(box, [0.9], [0], None, [5]))
    behind = image[80, 150:215]  # between the box and where it was a few frames ago
    assert (behind != 96).any()
    assert (image[80, 20:60] == 96).all()  # longer ago than the path holds
    for _ in range(100):
        drawer(grey((120, 300)), Detections.empty())
    assert not drawer._paths
    drawer(grey((60, 50)), Detections(np.array([[1, 1, 9, 9]]), [0.9], [0], None, [5]))
    assert len(drawer._paths[5]) == 1


@pytest.mark.parametrize("size_hw", SIZES)
def test_lines_and_zones_with_their_counts(size_hw):
    height, width = size_hw
    lines, zones = [((0, height / 2), (width, height / 3))], [((-5, -5), (width / 2, 0), (width / 3, 2 * height))]
    image = grey(size_hw)
    drawn = draw_counts(image, lines, zones, {"lines": [{"in": 3, "out": 12}], "zones": [{"inside": 4}]})
    assert (image == 96).all()
    assert (drawn != 96).any()


def test_counts_lie_above_masks():
    """A mask over the whole image must not hide the number."""
    counts = {"lines": [{"in": 0, "out": 0}]}
    found = Detections(np.array([[0, 0, 300, 200]]), [0.9], [0], np.ones((1, 200, 300), bool), [1])
    image = grey((200, 300))
    DetectionDrawer(lines=[((0, 100), (300, 100))])(image, found, ("car",), counts)
    assert (image[100:125, 120:180] == (26, 22, 18)).all(axis=2).any()
