"""DET-8: smooth L1, the losses of both stages, SSD's and the masks' by hand, and the wrong ones that differ."""

from __future__ import annotations

import math

import numpy as np
import pytest
from keras import ops

from visionkit.train.detect_loss import (
    SSDLoss,
    box_loss,
    class_loss,
    foreground_accuracy,
    hardest_negatives,
    mask_loss,
    objectness_loss,
    smooth_l1,
)


def number(value: object) -> float:
    return float(ops.convert_to_numpy(value))


def entropy(logits: list[float], label: int) -> float:
    return math.log(sum(math.exp(v) for v in logits)) - logits[label]


def test_smooth_l1_on_both_sides_of_its_joint() -> None:
    values = np.array([-2.0, -1.0, -0.5, 0.0, 0.3, 1.0, 3.0], np.float32)
    np.testing.assert_allclose(smooth_l1(values), [1.5, 0.5, 0.125, 0, 0.045, 0.5, 2.5], atol=1e-6)
    # with beta 1/9, torchvision's in the first stage: 0.5 * 0.05^2 * 9 and 2 - 1/18
    np.testing.assert_allclose(smooth_l1(np.array([0.05, 2.0], np.float32), 1 / 9), [0.01125, 2 - 1 / 18], atol=1e-6)


def test_second_stage_by_hand() -> None:
    logits = [[1.0, 2.0, 0.0], [0.5, 0.0, -1.0], [9.0, 9.0, 9.0]]
    labels = [1, 0, -1]  # the last one does not count
    expected = (entropy(logits[0], 1) + entropy(logits[1], 0)) / 2
    assert number(class_loss(np.array(logits, np.float32), np.array(labels))) == pytest.approx(expected, abs=1e-6)
    deltas = np.array([[0.0, 0.5, 2.0, 0.0], [5.0, 5.0, 5.0, 5.0]], np.float32)
    found = box_loss(deltas, np.zeros((2, 4), np.float32), np.array([True, False]), 2)
    assert number(found) == pytest.approx((0.125 + 1.5) / 2, abs=1e-6)  # over both samples, of the positive alone
    assert number(found) != pytest.approx((0.125 + 1.5) / 1)


def test_first_stage_by_hand() -> None:
    logits, labels = np.array([2.0, -1.0, 0.5, 30.0], np.float32), np.array([1, 0, 0, -1])
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1)) + math.log1p(math.exp(0.5))) / 3
    assert number(objectness_loss(logits, labels)) == pytest.approx(expected, abs=1e-6)
    assert number(objectness_loss(logits, np.full(4, -1))) == 0.0


def test_mask_loss_is_of_the_true_class_and_of_positives_only() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 4, 4, 3)).astype(np.float32)
    targets = (rng.random((3, 4, 4)) < 0.5).astype(np.float32)
    labels = np.array([2, 0, 1])

    def by_hand(k: int, channel: int) -> float:
        p = 1 / (1 + np.exp(-logits[k, ..., channel].astype(np.float64)))
        return float(-(targets[k] * np.log(p) + (1 - targets[k]) * np.log(1 - p)).mean())

    expected = (by_hand(0, 2) + by_hand(2, 1)) / 2
    assert number(mask_loss(logits, targets, labels)) == pytest.approx(expected, abs=1e-6)
    other = logits.copy()
    other[0, ..., 1] += 5  # another class's mask
    other[1] += 5  # background
    assert number(mask_loss(other, targets, labels)) == pytest.approx(expected, abs=1e-6)
    # the known wrong one: a softmax over the classes, in which they compete
    shifted = np.exp(logits.astype(np.float64))
    share = shifted / shifted.sum(axis=-1, keepdims=True)
    wrong = np.mean(
        [
            -(targets[k] * np.log(share[k, ..., c]) + (1 - targets[k]) * np.log(1 - share[k, ..., c])).mean()
            for k, c in ((0, 2), (2, 1))
        ]
    )
    assert abs(wrong - expected) > 0.05
    assert number(mask_loss(logits, targets, np.zeros(3, int))) == 0.0


def ssd_case() -> tuple[np.ndarray, np.ndarray]:
    """Two images of seven boxes and three classes; in the second is nothing."""
    rng = np.random.default_rng(1)
    answers = rng.normal(size=(2, 7, 3 + 4)).astype(np.float32)
    truth = np.zeros((2, 7, 5), np.float32)
    truth[0, 2] = [2, 0.1, -0.2, 3.0, 0.0]
    truth[0, 5, 0] = -1
    return truth, answers


def test_ssd_loss_by_hand() -> None:
    truth, answers = ssd_case()
    losses = [entropy(answers[0, k, :3].tolist(), 2 if k == 2 else 0) for k in range(7)]
    negatives = sorted((losses[k] for k in (0, 1, 3, 4, 6)), reverse=True)[:3]  # three to one, the hardest
    change = np.abs(answers[0, 2, 3:] - truth[0, 2, 1:]).astype(float)
    boxes = sum(0.5 * v * v if v < 1 else v - 0.5 for v in change)
    expected = losses[2] + sum(negatives) + boxes  # one positive in the whole batch
    assert number(SSDLoss()(truth, answers)) == pytest.approx(expected, abs=1e-5)
    easiest = sorted(losses[k] for k in (0, 1, 3, 4, 6))[:3]
    assert abs(losses[2] + sum(easiest) + boxes - expected) > 0.1
    everything = losses[2] + sum(losses[k] for k in (0, 1, 3, 4, 6)) + boxes
    assert abs(everything - expected) > 0.1


def test_hardest_negatives_are_counted_image_by_image() -> None:
    losses = np.array([[5.0, 1, 4, 3, 2], [9, 8, 7, 6, 5]], np.float32)
    labels = np.array([[1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    chosen = ops.convert_to_numpy(hardest_negatives(losses, labels, 2.0))
    assert chosen.tolist() == [[False, False, True, True, False], [False] * 5]


def test_accuracy_is_of_objects() -> None:
    truth, answers = ssd_case()
    answers[0, 2, :3] = [0, 0, 1]
    assert number(foreground_accuracy(truth, answers)) == 1.0
    answers[0, 2, :3] = [1, 0, 0]
    assert number(foreground_accuracy(truth, answers)) == 0.0
