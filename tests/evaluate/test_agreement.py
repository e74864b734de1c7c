"""`visionkit.evaluate.agreement`: the score of made answers, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from visionkit.evaluate.agreement import Agreement, FrameAgreement, agreement, agreement_of_tracks, compare_answers
from visionkit.structures import Classification, Detections, MultiClassification, Segmentation, Track


def classes(*pairs: tuple[int, float]) -> Classification:
    return Classification(np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs], np.float32))


def boxes(*rows: tuple[list[float], float, int]) -> Detections:
    return Detections(
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows]),
    )


def test_classes_agree_in_the_most_probable_one() -> None:
    first = classes((3, 0.9), (1, 0.1))
    name, same = compare_answers(first, classes((3, 0.7), (1, 0.3)))
    assert name == "top1"
    assert same["top1"] == 1
    assert same["confidence_apart"] == pytest.approx(0.2)
    _, other = compare_answers(first, classes((1, 0.6), (3, 0.4)))
    assert other["top1"] == 0
    assert other["confidence_apart"] == pytest.approx(0.5)  # of class 3, wherever the second has it


def test_heads_are_averaged_and_must_be_the_same() -> None:
    one = MultiClassification({"colour": classes((0, 0.8)), "make": classes((1, 0.8))})
    two = MultiClassification({"colour": classes((0, 0.8)), "make": classes((2, 0.8))})
    assert compare_answers(one, two)[1]["top1"] == 0.5
    with pytest.raises(ValueError, match="heads"):
        compare_answers(one, MultiClassification({"colour": classes((0, 0.8))}))


def test_boxes_are_paired_once_within_their_class_and_closest_first() -> None:
    first = boxes(([0, 0, 10, 10], 0.9, 1), ([0, 0, 10, 8], 0.8, 1), ([50, 50, 70, 60], 0.9, 2))
    second = boxes(([0, 0, 10, 10], 0.7, 1), ([50, 50, 70, 60], 0.9, 3))
    name, measures = compare_answers(first, second)
    assert name == "boxes"
    # one pair of 3 + 2 boxes: the second 8-high box has nobody left, the third's twin is of another class
    assert measures["boxes"] == pytest.approx(2 / 5)
    assert measures["iou"] == 1.0
    assert measures["confidence_apart"] == pytest.approx(0.2)


def test_no_boxes_on_both_sides_agree_and_on_one_side_do_not() -> None:
    none = boxes()
    assert compare_answers(none, none)[1]["boxes"] == 1
    assert math.isnan(compare_answers(none, none)[1]["iou"])
    assert compare_answers(none, boxes(([0, 0, 1, 1], 0.5, 0)))[1]["boxes"] == 0


def test_pixels_and_the_mean_of_classes_that_are_there() -> None:
    first = Segmentation(np.array([[0, 0, 255], [0, 255, 255]], np.uint8))
    second = Segmentation(np.array([[0, 0, 255], [0, 255, 0]], np.uint8))
    name, measures = compare_answers(first, second)
    assert name == "pixels"
    assert measures["pixels"] == pytest.approx(5 / 6)
    assert measures["mean_iu"] == pytest.approx((3 / 4 + 2 / 3) / 2)
    with pytest.raises(ValueError, match="one size"):
        compare_answers(first, Segmentation(np.zeros((3, 2), np.uint8)))


def test_answers_of_two_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Classification.*Detections"):
        compare_answers(classes((0, 1.0)), boxes())


def test_the_worst_frames_come_first_and_equal_ones_not_at_all() -> None:
    answers = {0: 1, 1: 0, 2: 1, 3: 0}
    frames = [np.full((4, 6, 3), k, np.uint8) for k in answers]
    found = agreement(
        lambda image: classes((1, 0.9)), lambda image: classes((answers[int(image[0, 0, 0])], 0.9)), frames
    )
    assert found.score == 0.5
    assert [row.index for row in found.worst(5)] == [1, 3]
    assert found.as_table()["frames"] == 4
    assert math.isnan(Agreement("top1", ()).score)
    assert Agreement("top1", ()).as_table()["score"] is None
    assert FrameAgreement(0, 1.0, {"top1": 1.0}).score == 1


class Follower:
    """A tracker that answers what it was told to."""

    def __init__(self, tracks: list[Track]) -> None:
        self.tracks = list(tracks)

    def init(self, image: np.ndarray, xyxy: np.ndarray) -> None:
        self.first = xyxy

    def update(self, image: np.ndarray) -> Track:
        return self.tracks.pop(0)


def test_tracks_agree_in_their_boxes_and_in_being_lost() -> None:
    here, half = np.array([0, 0, 10, 10], np.float32), np.array([0, 0, 10, 5], np.float32)
    one = Follower([Track(here, 0.9, "tracking"), Track(here, 0.1, "lost"), Track(here, 0.1, "lost")])
    two = Follower([Track(half, 0.9, "tracking"), Track(here, 0.9, "tracking"), Track(half, 0.1, "lost")])
    found = agreement_of_tracks(one, two, [np.zeros((12, 16, 3), np.uint8)] * 4, here)
    assert [row.score for row in found.frames] == [0.5, 0.0, 1.0]
    assert [row.index for row in found.frames] == [1, 2, 3]
    assert found.mean("state") == pytest.approx(2 / 3)
