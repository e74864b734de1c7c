"""Measures of classifiers, by hand and against loops."""

from __future__ import annotations

import numpy as np
import pytest

from visionkit.evaluate.classify_metrics import (
    bootstrap_interval,
    calibration_error,
    confusion_matrix,
    most_confused,
    precision_recall,
    score_classifier,
    softmax,
    top_k_accuracy,
    wilson_interval,
    worst_mistakes,
)


@pytest.fixture(scope="module")
def sample() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 300)
    logits = rng.normal(size=(300, 7)).astype(np.float32)
    logits[np.arange(300), labels] += 1.5
    return softmax(logits), labels


def test_three_answers_by_hand() -> None:
    probs = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.2, 0.3, 0.5]], np.float32)
    labels = np.array([0, 1, 2])
    scores = score_classifier(probs, labels)
    assert scores.top1 == pytest.approx(2 / 3)
    assert scores.top5 == 1
    assert scores.confusion.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]
    assert scores.recall.tolist() == [1, 0, 1]
    assert scores.precision[0] == 0.5
    assert np.isnan(scores.precision[1])  # never answered
    # each in a bin of its own: |0.7 - 1| + |0.6 - 0| + |0.5 - 1| = 1.4, over 3
    assert scores.calibration == pytest.approx(1.4 / 3, abs=1e-6)


def test_against_loops(sample: tuple[np.ndarray, np.ndarray]) -> None:
    probs, labels = sample
    confusion, hits = np.zeros((7, 7), int), {1: 0, 5: 0}
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(probs, labels, strict=True):
        ranked = sorted(range(7), key=lambda k, row=row: (-row[k], k))
        confusion[label, ranked[0]] += 1
        for k in hits:
            hits[k] += label in ranked[:k]
        edge = next(b for b in range(15) if row[ranked[0]] <= (b + 1) / 15 + 1e-12)
        bins.setdefault(edge, []).append((float(row[ranked[0]]), ranked[0] == label))
    error = sum(abs(np.mean([c for c, _ in b]) - np.mean([r for _, r in b])) * len(b) for b in bins.values()) / 300
    assert np.array_equal(confusion_matrix(probs.argmax(1), labels, 7), confusion)
    assert top_k_accuracy(probs, labels, 1) == pytest.approx(hits[1] / 300)
    assert top_k_accuracy(probs, labels, 5) == pytest.approx(hits[5] / 300)
    assert calibration_error(probs, labels) == pytest.approx(error, abs=1e-6)
    precision, recall = precision_recall(confusion)
    for k in range(7):
        assert recall[k] == pytest.approx(confusion[k, k] / confusion[k].sum())
        assert precision[k] == pytest.approx(confusion[k, k] / confusion[:, k].sum())


def test_a_calibrated_classifier_has_almost_no_error() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.5, 1, 20000)
    probs = np.stack([confidence, 1 - confidence], 1).astype(np.float32)
    labels = (rng.random(20000) > confidence).astype(np.int64)
    assert calibration_error(probs, labels) < 0.02
    sure = np.where(probs > 0.5, 0.99, 0.01).astype(np.float32)  # the same answers, all too sure
    assert calibration_error(sure, labels) > 0.2


def test_the_interval_is_that_of_drawing_images() -> None:
    right = np.array([True] * 90 + [False] * 10)
    low, high = bootstrap_interval(right)
    rng = np.random.default_rng(5)
    drawn = np.quantile([rng.choice(right, 100).mean() for _ in range(4000)], [0.025, 0.975])
    assert [low, high] == pytest.approx(drawn.tolist(), abs=0.011)


def test_all_right_is_not_taken_for_certainty() -> None:
    right = np.ones(240, bool)
    assert bootstrap_interval(right) == (1.0, 1.0)  # drawing from ones gives ones
    # N / (N + z^2) = 240 / 243.84
    assert wilson_interval(right) == pytest.approx((0.98424, 1.0), abs=1e-4)
    probs = np.tile(np.array([[0.9, 0.1]], np.float32), (240, 1))
    assert score_classifier(probs, np.zeros(240, np.int64)).interval == wilson_interval(right)


def test_the_surest_mistakes_come_first() -> None:
    probs = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]], np.float32)
    assert worst_mistakes(probs, np.array([1, 1, 1, 0]), 5) == [0, 1]
    assert most_confused(np.array([[5, 2, 0], [3, 5, 0], [0, 0, 9]]), 5) == [(1, 0, 3), (0, 1, 2)]


def test_a_table_for_json_has_no_nan() -> None:
    table = score_classifier(np.array([[1, 0]], np.float32), np.array([0])).as_table(("a", "b"))
    assert table["classes"][1] == {"class_name": "b", "images": 0, "recall": None, "precision": None}


@pytest.mark.parametrize(
    ("shape", "labels", "told"), [((0, 3), [], "N > 0"), ((2, 3), [0], "shapes|labels"), ((1, 3), [3], r"\[0, 3\)")]
)
def test_what_does_not_fit_is_refused(shape: tuple[int, int], labels: list[int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        score_classifier(np.zeros(shape, np.float32), np.array(labels, np.int64))
