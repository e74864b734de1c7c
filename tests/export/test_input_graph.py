"""The graphs around a segmenter and a detector compute what the tasks in Python compute."""

from __future__ import annotations

import numpy as np
import pytest

from tests.export.plain import picture
from visionkit.export.input_graph import DetectGraph, SegmentGraph
from visionkit.tasks.detect_fit import detect_fit
from visionkit.tasks.input_rule import InputRule
from visionkit.tasks.segment_fit import SizeOptions, fit_of

SIZES = [(77, 120), (130, 61), (64, 96), (31, 45), (333, 257), (480, 640), (160, 240)]
BOXES = np.array([[-3, 4, 50, 60], [10, 11, 95, 63], [0, 0, 96, 64], [70, 2, 80, 9]], np.float32)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("preset", ["torch", "caffe"])
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_a_segmenters_input_to_the_last_level(resize, preset: str, size: tuple[int, int]) -> None:
    rule, image = InputRule.preset(preset, (64, 96), resize=resize), picture(*size)
    found = np.asarray(SegmentGraph(rule).inputs(image[None, ..., ::-1], False))[0]
    wanted = fit_of(rule, size, SizeOptions()).rule(image)
    levels = np.abs(found - wanted) * rule.std
    assert levels.max() < 1.001
    assert (levels > 1e-4).mean() < 1e-4  # one number in 18432 may lie on the edge between two levels
    fixed = np.asarray(SegmentGraph(rule).inputs(rule.pixels(image)[None, ..., ::-1], True))[0]
    assert np.abs((fixed - wanted) * rule.std).max() < 1e-4


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resize", ["stretch", "letterbox", "corner"])
def test_a_detectors_input_and_its_boxes(resize, size: tuple[int, int]) -> None:
    rule, image = InputRule.preset("torch", (64, 96), resize=resize), picture(*size)
    graph, fit = DetectGraph(rule), detect_fit(rule, size)
    given = image[None, ..., ::-1]
    wanted = np.full((64, 96, 3), np.nan, np.float32)
    fit(image, rule, wanted)
    assert np.abs(np.asarray(graph.inputs(given, False))[0] - wanted).max() < 1e-5
    boxes = np.asarray(graph.to_image(BOXES[None], given, False))[0]
    assert np.abs(boxes - fit.to_image(BOXES)).max() < 1e-4
    seen = fit.resized_hw if resize == "corner" else rule.size_hw
    assert np.asarray(graph.valid_hw(given, False)).tolist() == [list(seen)]


def test_a_corner_is_shortest_side_where_that_gives_the_same_size() -> None:
    rule, image = InputRule.preset("torch", (320, 448), resize="corner"), picture(96, 128)
    loose = InputRule.preset("torch", (320, 640), resize="shortest_side")
    ours, theirs = (detect_fit(one, (96, 128)) for one in (rule, loose))
    assert ours == theirs
    assert ours.input_hw == (320, 448)
    assert ours.resized_hw == (320, 426)
    pixels = rule.pixels(image)
    assert (pixels[:, 426:] == pixels[-1, -1]).all()
    assert not (pixels[:320, :426] == pixels[-1, -1]).all()


def test_a_detector_of_many_sizes_has_no_graph() -> None:
    with pytest.raises(ValueError, match="one size"):
        DetectGraph(InputRule.preset("torch", (64, 96), resize="shortest_side"))
