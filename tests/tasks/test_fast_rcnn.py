"""Fast R-CNN over given boxes as a task, and boxes by selective search."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

import visionkit.nets.fast_rcnn_vgg as family
from visionkit.errors import UsageError
from visionkit.geometry.detection_rules import rcnn_rule
from visionkit.nets.rcnn import rcnn_parts
from visionkit.runtime import compile_model
from visionkit.tasks.fast_rcnn import FastRCNN, published_rule, selective_search
from visionkit.tasks.rcnn import RCNNPipeline, RCNNRunners

SIZE = (128, 192)


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> FastRCNN:
    """One whose fourth class always wins and which moves each box right by a tenth of its width."""
    monkeypatch.setattr(family, "UNITS", 16)
    monkeypatch.setattr(family, "STAGES_16", ((1, 8),) * 5)
    model = family.fast_rcnn_vgg16(classes=5, size_hw=SIZE, boxes=4)
    for name, bias in (("cls_score", [0, 0, 0, 0, 6]), ("bbox_pred", [0.0] * 16 + [1.0, 0, 0, 0])):
        layer = model.get_layer(f"roi_heads.box_predictor.{name}")
        layer.set_weights([0 * np.asarray(layer.kernel), np.array(bias, np.float32)])
    trunk, head, _ = rcnn_parts(model)
    runners = RCNNRunners(compile_model(trunk, runtime="keras"), compile_model(head, runtime="keras", batch=4))
    return FastRCNN(RCNNPipeline(runners, rcnn_rule("fast_rcnn_vgg16")), SIZE)


def test_boxes_come_back_in_pixels_of_the_image(task: FastRCNN) -> None:
    image = np.random.RandomState(0).randint(0, 255, (64, 90, 3), np.uint8)  # goes in at twice its size
    boxes = [[10, 5, 29.5, 40], [50, 20, 70, 60]]
    found = task(image, boxes)
    assert found.class_id.tolist() == [3, 3]
    np.testing.assert_allclose(found.confidence, np.exp(6) / (np.exp(6) + 4), rtol=1e-5)
    # py-faster-rcnn counts both edge pixels: widths in the input are 39 + 1 and 40 + 1, a decoded box is one longer
    order = np.argsort(found.xyxy[:, 0])
    shift = [0.1 * 40 / 2, 0.1 * 41 / 2]
    for k, row in enumerate(found.xyxy[order]):
        x1, y1, x2, y2 = boxes[k]
        np.testing.assert_allclose(row, [x1 + shift[k], y1, x2 + shift[k] + 0.5, y2 + 0.5], atol=1e-3)


def test_no_boxes_are_no_detections(task: FastRCNN) -> None:
    assert len(task(np.zeros((64, 90, 3), np.uint8), [])) == 0


@pytest.mark.parametrize("boxes", [[[1, 2, 3]], [[1, 2, 3, np.nan]]])
def test_boxes_of_another_form_are_refused(boxes: list[Any], task: FastRCNN) -> None:
    with pytest.raises(ValueError, match="`boxes` must be finite numbers"):
        task(np.zeros((64, 90, 3), np.uint8), boxes)


def test_the_input_is_the_published_one() -> None:
    rule = published_rule()
    assert (rule.size_hw, rule.resize, rule.channel_order) == ((600, 1000), "shortest_side", "bgr")
    assert rule.mean == (102.9801, 115.9465, 122.7717)


def test_selective_search_tells_that_contrib_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "ximgproc", raising=False)
    with pytest.raises(UsageError, match="opencv-contrib-python") as caught:
        selective_search(np.zeros((8, 9, 3), np.uint8))
    assert caught.value.slug == "contrib-missing"


def test_selective_searchs_boxes_are_corners(monkeypatch: pytest.MonkeyPatch) -> None:
    class Search:
        def setBaseImage(self, image: np.ndarray) -> None: ...
        def switchToSelectiveSearchFast(self) -> None: ...
        def process(self) -> np.ndarray:
            return np.array([[2, 3, 10, 20], [0, 0, 5, 5], [1, 1, 1, 1]], np.int32)

    module = SimpleNamespace(segmentation=SimpleNamespace(createSelectiveSearchSegmentation=Search))
    monkeypatch.setattr(cv2, "ximgproc", module, raising=False)
    found = selective_search(np.zeros((30, 40, 3), np.uint8), limit=2)
    np.testing.assert_array_equal(found, [[2, 3, 12, 23], [0, 0, 5, 5]])
