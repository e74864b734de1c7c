"""Measures of segmentation: SEG-3 against loops over pixels, the rule for absent classes, bands and boundaries."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from visionkit.evaluate.boundaries import (
    boundary_f_score,
    boundary_f_scores,
    edge_distance,
    trimap_counts,
    trimap_iou,
)
from visionkit.evaluate.segment_metrics import confusion_counts, score_counts, score_segmentation

Maps = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


def random_maps(seed: int, classes: int, absent: set[int]) -> Maps:
    """Truth with void, and an answer that is right for about half of the pixels; `absent` classes are not in truth."""
    rng = np.random.default_rng(seed)
    there = [k for k in range(classes) if k not in absent]
    truth = rng.choice([*there, 255], size=(3, 13, 17))
    answer = np.where((rng.random(truth.shape) < 0.5) & (truth != 255), truth, rng.integers(0, classes, truth.shape))
    return truth, answer


def by_loops(truth: npt.NDArray[np.int64], answer: npt.NDArray[np.int64], classes: int) -> dict[str, float]:
    """The four measures of the FCN paper, pixel by pixel, with nothing of NumPy."""
    right = [0] * classes
    there = [0] * classes
    said = [0] * classes
    for t, a in zip(truth.ravel().tolist(), answer.ravel().tolist(), strict=True):
        if t == 255:
            continue
        there[t] += 1
        said[a] += 1
        right[t] += t == a
    accuracies, ious, weighted = [], [], 0.0
    for k in range(classes):
        if there[k]:
            accuracies.append(right[k] / there[k])
        union = there[k] + said[k] - right[k]
        if union:
            ious.append(right[k] / union)
            weighted += there[k] * right[k] / union
    total = sum(there)
    return {
        "pixel_accuracy": sum(right) / total,
        "mean_accuracy": sum(accuracies) / len(accuracies),
        "mean_iu": sum(ious) / len(ious),
        "weighted_iu": weighted / total,
    }


@pytest.mark.parametrize("absent", [set(), {2}, {0, 4}])
@pytest.mark.parametrize("seed", [0, 1])
def test_four_measures_equal_a_loop_over_pixels(seed: int, absent: set[int]) -> None:
    truth, answer = random_maps(seed, 6, absent)
    scores = score_segmentation(truth, answer, 6)
    for name, value in by_loops(truth, answer, 6).items():
        assert getattr(scores, name) == pytest.approx(value, rel=0, abs=1e-12), name
    # the known-wrong ways give other numbers: void counted as a class, absent classes counted as nought
    void_counted = score_segmentation(np.where(truth == 255, 0, truth), answer, 6)
    assert abs(void_counted.pixel_accuracy - scores.pixel_accuracy) > 0.01
    if absent:
        zeros = float(np.nan_to_num(scores.accuracy).mean())
        assert abs(zeros - scores.mean_accuracy) > 0.01


def test_a_worked_case() -> None:
    truth = np.array([[0, 0, 1], [1, 1, 255]])
    answer = np.array([[0, 1, 1], [1, 0, 1]])
    scores = score_segmentation(truth, answer, 3)
    assert scores.confusion.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert scores.pixel_accuracy == pytest.approx(3 / 5)
    assert scores.mean_accuracy == pytest.approx((1 / 2 + 2 / 3) / 2)
    # class 0: 1 of 2 + 2 - 1 = 3; class 1: 2 of 3 + 3 - 2 = 4; class 2 is neither there nor answered
    assert scores.mean_iu == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert scores.weighted_iu == pytest.approx((2 * 1 / 3 + 3 * 2 / 4) / 5)
    assert np.isnan(scores.iu[2])
    assert np.isnan(scores.accuracy[2])


def test_a_class_that_is_answered_but_not_there_has_an_iu_of_nought() -> None:
    scores = score_segmentation(np.array([[0, 0]]), np.array([[0, 2]]), 3)
    assert scores.iu.tolist()[::2] == [0.5, 0.0]
    assert np.isnan(scores.iu[1])
    assert scores.mean_iu == pytest.approx(0.25)
    assert scores.mean_accuracy == pytest.approx(0.5)  # of class 0 alone


def test_counts_of_images_add_up() -> None:
    truth, answer = random_maps(3, 4, set())
    parts = sum(confusion_counts(t, a, 4) for t, a in zip(truth, answer, strict=True))
    assert np.array_equal(parts, confusion_counts(truth, answer, 4))


def test_nothing_but_void_is_not_a_number() -> None:
    scores = score_segmentation(np.full((2, 3), 255), np.zeros((2, 3), np.int64), 2)
    assert all(math.isnan(v) for v in (scores.pixel_accuracy, scores.mean_accuracy, scores.mean_iu, scores.weighted_iu))
    assert scores.as_table(("a", "b"))["mean_iu"] is None


def test_bad_maps_are_refused() -> None:
    truth = np.zeros((2, 3), np.int64)
    with pytest.raises(ValueError, match="one shape"):
        confusion_counts(truth, np.zeros((3, 2), np.int64), 2)
    with pytest.raises(ValueError, match="`answer` must be in"):
        confusion_counts(truth, np.full((2, 3), 2), 2)
    with pytest.raises(ValueError, match="`truth` must be in"):
        confusion_counts(np.full((2, 3), -1), truth, 2)
    with pytest.raises(ValueError, match="counts"):
        score_counts(np.zeros((2, 3)))
    assert confusion_counts(np.full((2, 3), 255), np.full((2, 3), 99), 2).sum() == 0  # an answer there is not looked at


def test_distance_to_edges_equals_a_search_through_all_pixels() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((9, 14)) < 0.08).astype(np.int64)
    edges = [
        (y, x)
        for y in range(9)
        for x in range(14)
        for j, i in ((y, x + 1), (y, x - 1), (y + 1, x), (y - 1, x))
        if 0 <= j < 9 and 0 <= i < 14 and labels[j, i] != labels[y, x]
    ]
    for (y, x), distance in np.ndenumerate(edge_distance(labels)):
        assert distance == pytest.approx(min(math.hypot(y - j, x - i) for j, i in edges), abs=1e-4)
    assert np.isinf(edge_distance(np.zeros((3, 4), np.int64))).all()


def test_bands_hold_the_pixels_beside_an_edge_and_no_others() -> None:
    truth = np.zeros((6, 10), np.int64)
    truth[:, 5:] = 1
    answer = truth.copy()
    answer[:, 4] = 1  # wrong right beside the edge
    answer[:, 0] = 1  # wrong far from it
    counts = trimap_counts(truth, answer, 2, widths=(1, 2, 10))
    # width 1: columns 4 and 5; width 2: 3 to 6; width 10: all
    assert counts.sum(axis=(1, 2)).tolist() == [12, 24, 60]
    assert counts[0].tolist() == [[0, 6], [0, 6]]
    assert counts[2].tolist() == [[18, 12], [0, 30]]
    # class 0: 0 of 6, class 1: 6 of 12 right at the edge
    assert trimap_iou(answer, truth, (1, 10)).tolist() == pytest.approx([0.25, (18 / 30 + 30 / 42) / 2])
    truth[0] = 255
    assert trimap_counts(truth, answer, 2, widths=(10,)).sum() == 50
    with pytest.raises(ValueError, match="widths"):
        trimap_counts(truth, answer, 2, widths=(0,))


def square(top: int, left: int, side: int = 8) -> npt.NDArray[np.int64]:
    out = np.zeros((24, 30), np.int64)
    out[top : top + side, left : left + side] = 1
    return out


def test_boundary_f_score_allows_a_shift_within_its_tolerance_only() -> None:
    truth = square(6, 9)
    assert boundary_f_score(truth, truth, 2, tolerance=1) == 1.0
    assert boundary_f_score(square(6, 10), truth, 2, tolerance=1) == 1.0
    shifted = boundary_f_scores(square(6, 12), truth, 2, tolerance=1)[1]
    assert 0 < shifted < 1
    assert boundary_f_score(square(15, 20), truth, 2, tolerance=1) < 0.1
    # a class that is only answered, only there, or neither
    scores = boundary_f_scores(np.zeros((24, 30), np.int64), truth, 3, tolerance=1)
    assert scores[1] == 0.0
    assert np.isnan(scores[2])


def test_boundary_f_score_counts_by_hand() -> None:
    truth, answer = np.zeros((3, 12), np.int64), np.zeros((3, 12), np.int64)
    truth[:, 4:] = 1
    answer[:, 7:] = 1
    # boundary of class 1: column 4 in truth, column 7 in the answer, 3 apart
    assert boundary_f_scores(answer, truth, 2, tolerance=2.9)[1] == 0.0
    assert boundary_f_scores(answer, truth, 2, tolerance=3.0)[1] == 1.0
    whole = np.ones((3, 12), np.int64)
    assert boundary_f_scores(whole, whole, 2).tolist()[1] == 1.0  # it fills the image: no boundary, and none missed
    assert boundary_f_scores(np.zeros_like(whole), whole, 2).tolist() == [0.0, 0.0]
