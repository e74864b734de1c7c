"""What is made of an SSD's answer, against the steps of torchvision written as loops."""

from __future__ import annotations

import numpy as np
import pytest

from visionkit.errors import ModelError
from visionkit.geometry.box_codec import decode_boxes
from visionkit.geometry.nms import nms
from visionkit.geometry.ssd_rule import SSDRule
from visionkit.tasks.ssd import decode_ssd

RULE = SSDRule(size_hw=(96, 160), levels=3, scales=(0.2, 0.8), candidates=40, detections=60, score=0.02)


def answer(classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.RandomState(seed)
    anchors = RULE.anchors()
    logits = random.standard_normal((len(anchors), classes)) * 2
    return logits.astype(np.float32), random.standard_normal((len(anchors), 4)).astype(np.float32), anchors


def by_loops(
    logits: np.ndarray, deltas: np.ndarray, anchors: np.ndarray, rule: SSDRule
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """torchvision's `postprocess_detections`, class by class."""
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    height, width = rule.size_hw
    boxes = np.clip(decode_boxes(deltas, anchors, rule.weights), 0, [width, height] * 2)
    rows: list[tuple[float, int, np.ndarray]] = []
    for label in range(1, logits.shape[1]):
        there = np.flatnonzero(probs[:, label] > rule.score)
        there = there[np.argsort(-probs[there, label], kind="stable")][: rule.candidates]
        kept = there[nms(boxes[there], probs[there, label], rule.nms)]
        rows += [(float(probs[i, label]), label, boxes[i]) for i in kept]
    rows.sort(key=lambda row: -row[0])
    rows = rows[: rule.detections]
    return np.array([r[2] for r in rows]), np.array([r[0] for r in rows]), np.array([r[1] for r in rows])


@pytest.mark.parametrize("detections", [60, 1000])
def test_boxes_are_those_of_the_loops(detections: int) -> None:
    rule = SSDRule(**{**vars(RULE), "detections": detections})
    given = answer()
    xyxy, scores, classes = by_loops(*given, rule)
    found = decode_ssd(*given, rule)
    assert len(scores) > 50
    np.testing.assert_array_equal(found.classes, classes)
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)
    np.testing.assert_allclose(found.xyxy, xyxy, atol=1e-4)


def test_a_confidence_takes_the_place_of_the_rules() -> None:
    given = answer()
    every = decode_ssd(*given, RULE, max_det=1000)
    some = decode_ssd(*given, RULE, conf=0.8, max_det=1000)
    count = int((every.scores >= 0.8).sum())
    assert 0 < count == len(some.scores) < len(every.scores)
    np.testing.assert_array_equal(some.xyxy, every.xyxy[:count])
    exact = float(every.scores[5])
    assert len(decode_ssd(*given, RULE, conf=exact, max_det=1000).scores) == 6  # of at least this


def test_candidates_are_counted_class_by_class() -> None:
    logits, deltas, anchors = answer()
    few = SSDRule(**{**vars(RULE), "candidates": 3, "nms": 1.0, "detections": 100})
    np.testing.assert_array_equal(np.bincount(decode_ssd(logits, deltas, anchors, few).classes), [0, 3, 3, 3, 3])


def test_overlaps_are_suppressed_within_a_class_only() -> None:
    anchors = RULE.anchors()[[0, 0, 0]]
    logits = np.array([[0, 5, 4.9], [0, 4, -9], [0, -9, -9]], np.float32)
    found = decode_ssd(logits, np.zeros((3, 4), np.float32), anchors, RULE)
    assert found.classes.tolist() == [1, 2]
    assert len(decode_ssd(logits, np.zeros((3, 4), np.float32), anchors, RULE, iou=1.0).scores) == 3


def test_nothing_found_is_no_boxes() -> None:
    _, deltas, anchors = answer()
    logits = np.tile(np.array([20, 0, 0, 0, 0], np.float32), (len(anchors), 1))
    found = decode_ssd(logits, deltas, anchors, RULE)
    assert found.xyxy.shape == (0, 4)
    assert found.scores.shape == found.classes.shape == (0,)


@pytest.mark.parametrize("part", [0, 1])
def test_an_answer_that_is_not_finite_is_refused(part: int) -> None:
    given = answer()
    given[part][7, 2] = np.nan
    with pytest.raises(ModelError) as caught:
        decode_ssd(*given, RULE)
    assert caught.value.slug == "model-not-finite"


def test_an_answer_of_another_network_is_refused() -> None:
    logits, deltas, anchors = answer()
    with pytest.raises(ModelError, match="its default boxes are") as caught:
        decode_ssd(logits[:-1], deltas[:-1], anchors, RULE)
    assert caught.value.slug == "model-unfit"
