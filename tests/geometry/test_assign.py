"""DET-6: targets of anchors against a loop over anchors and objects, and samples of them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.geometry.detection_cases import random_boxes
from visionkit.geometry.anchors import faster_rcnn_anchors, shifted_anchors
from visionkit.geometry.assign import BACKGROUND, BETWEEN, assign_anchors, inside_image, sample_balanced
from visionkit.geometry.boxes import iou_aligned

SIZE_HW = (240, 352)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float(iou_aligned(a[None], b[None])[0])


def slow_assign(anchors: np.ndarray, truth: np.ndarray, best_rule: bool = True) -> list[int]:
    answers = []
    best = [max(iou(box, anchor) for anchor in anchors) for box in truth]
    for anchor in anchors:
        overlaps = [iou(box, anchor) for box in truth]
        nearest = max(range(len(truth)), key=lambda k: (overlaps[k], -k))
        claimed = best_rule and any(o == b > 0 for o, b in zip(overlaps, best, strict=True))
        if claimed or overlaps[nearest] >= 0.7:
            answers.append(nearest)
        else:
            answers.append(BACKGROUND if overlaps[nearest] < 0.3 else BETWEEN)
    return answers


def case() -> tuple[np.ndarray, np.ndarray]:
    anchors = shifted_anchors(faster_rcnn_anchors(scales=(2, 4)), (6, 8), (40, 44))
    truth = random_boxes(np.random.default_rng(4), 7, SIZE_HW)
    truth[0] = anchors[100]
    truth[1] = anchors[31] + [5, 3, 5, 3]
    return anchors, truth


def test_det6_as_a_loop_over_anchors_and_objects() -> None:
    anchors, truth = case()
    matched = assign_anchors(anchors, truth)
    assert matched.tolist() == slow_assign(anchors, truth)
    assert {BACKGROUND, BETWEEN} < set(matched.tolist())
    assert matched[100] == 0


def test_det6_without_the_rule_of_the_best_anchor_objects_go_without() -> None:
    anchors, truth = case()
    strict = assign_anchors(anchors, truth, allow_low_quality=False)
    assert strict.tolist() == slow_assign(anchors, truth, best_rule=False)
    missing = set(range(len(truth))) - set(strict.tolist())
    assert missing
    assert missing & set(assign_anchors(anchors, truth).tolist())


def test_det6_all_best_anchors_of_a_tie_take_part() -> None:
    anchors = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [50, 50, 60, 60]], np.float32)
    truth = [[5, 0, 25, 10]]  # 50 of 250 with each of the first two
    assert assign_anchors(anchors, truth).tolist() == [0, 0, BACKGROUND]
    assert assign_anchors(anchors, truth, claim=True, allow_low_quality=False).tolist() == [0, BACKGROUND, BACKGROUND]
    assert assign_anchors(anchors, [[80, 80, 90, 90]]).tolist() == [BACKGROUND] * 3  # overlaps none: claims none


def test_det6_anchors_across_the_edge_are_left_out() -> None:
    anchors, truth = case()
    inside = inside_image(anchors, SIZE_HW)
    by_hand = [a[0] >= 0 and a[1] >= 0 and a[2] <= 352 and a[3] <= 240 for a in anchors]
    assert inside.tolist() == by_hand
    matched = assign_anchors(anchors, truth, usable=inside)
    assert (matched[~inside] == BETWEEN).all()
    np.testing.assert_array_equal(matched[inside], assign_anchors(anchors[inside], truth))
    assert (matched != assign_anchors(anchors, truth)).any()
    assert inside_image([[-3, 0, 5, 5]], SIZE_HW, border=3).tolist() == [True]


def test_bounds_are_at_least_and_below() -> None:
    anchors = np.array([[0, 0, 10, 7], [0, 0, 10, 3], [0, 0, 10, 10]], np.float64)
    truth = np.array([[0, 0, 10, 10]], np.float64)
    # in float32 .7 and .3 are what 7 / 10 and 3 / 10 are
    seventy, thirty = (float(np.float32(n)) for n in (0.7, 0.3))
    matched = assign_anchors(anchors, truth, high=seventy, low=thirty, allow_low_quality=False)
    assert matched.tolist() == [0, BETWEEN, 0]


def test_ssd_objects_claim_their_best_anchor() -> None:
    anchors = np.array([[0, 0, 10, 10], [40, 40, 60, 60]], np.float32)
    truth = [[0, 0, 10, 9], [0, 0, 10, 30]]  # both overlap anchor 0 most
    matched = assign_anchors(anchors, truth, high=0.5, low=0.5, allow_low_quality=False, claim=True)
    assert matched.tolist() == [1, BACKGROUND]


def test_no_objects_and_no_anchors() -> None:
    assert assign_anchors([[0, 0, 1, 1]], []).tolist() == [BACKGROUND]
    assert assign_anchors([], [[0, 0, 1, 1]]).tolist() == []


def test_det6_256_at_one_to_one() -> None:
    matched = np.full(5000, BACKGROUND)
    matched[:400], matched[400:900] = 3, BETWEEN
    positive, negative = sample_balanced(matched, 256, 0.5, np.random.default_rng(0))
    assert (len(positive), len(negative)) == (128, 128)
    assert (matched[positive] == 3).all()
    assert (matched[negative] == BACKGROUND).all()
    assert len(set(positive.tolist())) == 128
    again = sample_balanced(matched, 256, 0.5, np.random.default_rng(0))
    np.testing.assert_array_equal(positive, again[0])
    assert (positive != sample_balanced(matched, 256, 0.5, np.random.default_rng(1))[0]).any()


def test_negatives_fill_up_what_positives_leave() -> None:
    matched = np.array([0, 1, BETWEEN] + [BACKGROUND] * 300)
    positive, negative = sample_balanced(matched, 256, 0.5, np.random.default_rng(0))
    assert positive.tolist() == [0, 1]
    assert len(negative) == 254
    positive, negative = sample_balanced(matched[:20], 256, 0.5, np.random.default_rng(0))
    assert (len(positive), len(negative)) == (2, 17)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: assign_anchors([], [], high=0.3, low=0.5), "low=0.5, high=0.3"),
        (lambda: assign_anchors([[0, 0, 1, 1]], [], usable=[True, False]), r"`usable` must be \(1,\)"),
        (lambda: sample_balanced([0], -1, 0.5, np.random.default_rng()), "count=-1"),
        (lambda: sample_balanced([0], 5, 1.5, np.random.default_rng()), "positive_share=1.5"),
    ],
)
def test_bad_arguments_are_named(call: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()  # type: ignore[operator]
