"""DET-3: non-maximum suppression against pair by pair, TensorFlow and OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.geometry.detection_cases import random_boxes, slow_nms
from visionkit.geometry.nms import class_nms, nms, soft_nms


def whole_sets(count: int) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Random sets of boxes at whole pixels, no two scores alike, with thresholds .3, .5, .7 in turn."""
    rng, sets = np.random.default_rng(3), []
    for index in range(count):
        start = rng.integers(0, 40, (int(rng.integers(2, 40)), 2))
        boxes = np.concatenate([start, start + rng.integers(1, 30, start.shape)], axis=1).astype(np.float32)
        scores = (rng.permutation(len(boxes)).astype(np.float32) + 1) / len(boxes)
        sets.append((boxes, scores, (0.3, 0.5, 0.7)[index % 3]))
    return sets


def test_det3_600_sets_as_pair_by_pair_tensorflow_and_opencv() -> None:
    import tensorflow as tf

    offset_differs = at_least_differs = 0
    for boxes, scores, threshold in whole_sets(600):
        kept = nms(boxes, scores, threshold).tolist()
        assert kept == slow_nms(boxes, scores, threshold)
        found = tf.image.non_max_suppression(boxes[:, [1, 0, 3, 2]], scores, len(boxes), threshold).numpy()
        assert kept == found.tolist()
        rects = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        assert kept == np.ravel(cv2.dnn.NMSBoxes(rects.tolist(), scores.tolist(), 0.0, threshold)).tolist()
        offset_differs += kept != nms(boxes, scores, threshold, pixel_offset=1).tolist()
        at_least_differs += kept != nms(boxes, scores, float(np.nextafter(np.float32(threshold), 0))).tolist()
    assert offset_differs > 100  # `+ 1` keeps other boxes: 312 of 600 by the reference's sets
    assert at_least_differs > 5  # and so does >= in the place of >


def test_pixel_offset_counts_both_edge_pixels() -> None:
    rng = np.random.default_rng(0)
    boxes = np.rint(random_boxes(rng, 60, (40, 60)))
    scores = rng.uniform(size=60).astype(np.float32)
    assert nms(boxes, scores, 0.4, pixel_offset=1).tolist() == slow_nms(boxes, scores, 0.4, 1)


def test_classes_do_not_meet() -> None:
    rng = np.random.default_rng(1)
    boxes, scores = random_boxes(rng, 80, (50, 70)), rng.uniform(size=80).astype(np.float32)
    classes = rng.integers(0, 3, 80)
    kept = class_nms(boxes, scores, classes, 0.4)
    for label in range(3):
        mine = np.flatnonzero(classes == label)
        expected = mine[slow_nms(boxes[mine], scores[mine], 0.4)]
        np.testing.assert_array_equal(kept[classes[kept] == label], expected)
    assert (np.diff(scores[kept]) <= 0).all()
    assert len(kept) > len(nms(boxes, scores, 0.4))
    np.testing.assert_array_equal(class_nms(boxes, scores, classes, 0.4, limit=7), kept[:7])


def test_few_and_degenerate_boxes() -> None:
    assert nms([], [], 0.5).tolist() == []
    assert nms([[0, 0, 4, 4]], [0.1], 0.5).tolist() == [0]
    assert nms([[1, 1, 1, 9]] * 2, [0.1, 0.2], 0.5).tolist() == [1, 0]  # no area, no overlap
    assert nms([[0, 0, 4, 4]] * 3, [0.5, 0.5, 0.5], 0.5).tolist() == [0]  # of equals the first
    assert nms([[0, 0, 4, 4], [4, 0, 8, 4]], [0.1, 0.2], 0.0).tolist() == [1, 0]  # touching is no overlap
    assert nms([[0, 0, 4, 4], [9, 9, 12, 12]], [0.1, 0.2], 0.5, limit=1).tolist() == [1]


def test_soft_nms_by_hand() -> None:
    boxes = [[0, 0, 10, 10], [0, 5, 10, 15], [50, 50, 60, 60]]  # the first two: 50 / 150
    kept, scores = soft_nms(boxes, [0.9, 0.8, 0.7])
    assert kept.tolist() == [0, 2, 1]
    np.testing.assert_allclose(scores, [0.9, 0.7, 0.8 * np.exp(-((1 / 3) ** 2) / 0.5)], rtol=1e-6)
    kept, scores = soft_nms(boxes, [0.9, 0.8, 0.7], method="linear")
    np.testing.assert_allclose(scores, [0.9, 0.7, 0.8 * 2 / 3], rtol=1e-6)
    kept, scores = soft_nms(boxes, [0.9, 0.8, 0.7], method="linear", iou_threshold=0.4, score_threshold=0.75)
    assert kept.tolist() == [0, 1]
    assert soft_nms([], [])[0].shape == (0,)


def test_soft_nms_as_tensorflow() -> None:
    import tensorflow as tf

    rng = np.random.default_rng(2)
    boxes, scores = random_boxes(rng, 60, (40, 60)), rng.uniform(size=60).astype(np.float32)
    kept, faded = soft_nms(boxes, scores, sigma=0.5, score_threshold=0.05)
    index, values = tf.image.non_max_suppression_with_scores(
        boxes[:, [1, 0, 3, 2]], scores, 60, iou_threshold=1.0, score_threshold=0.05, soft_nms_sigma=0.25
    )  # TensorFlow's is exp(-iou^2 / (2 sigma))
    np.testing.assert_array_equal(kept, index)
    np.testing.assert_allclose(faded, values, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: nms([[0, 0, 1, 1]], [1, 2], 0.5), "one number for each of 1 boxes"),
        (lambda: nms([[0, 0, 1]], [1], 0.5), r"`xyxy` must be \(N, 4\)"),
        (lambda: nms([], [], 1.5), "iou_threshold=1.5"),
        (lambda: nms([], [], 0.5, limit=-1), "limit=-1"),
        (lambda: soft_nms([], [], method="hard"), "method='hard'"),
        (lambda: soft_nms([], [], sigma=0), "sigma=0"),
    ],
)
def test_bad_arguments_are_named(call: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()  # type: ignore[operator]
