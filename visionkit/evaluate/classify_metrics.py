"""Measures of classifiers from probabilities and labels; NumPy only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "ClassifyScores",
    "bootstrap_interval",
    "calibration_error",
    "confusion_matrix",
    "most_confused",
    "precision_recall",
    "score_classifier",
    "softmax",
    "top_k_accuracy",
    "wilson_interval",
    "worst_mistakes",
]

Probs = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClassifyScores:
    """What a classifier scores on N labelled images.

    Args:
        top1, top5: fraction of images whose class is the first, or among the first five.
        interval: 95 % interval of `top1`: bootstrap; Wilson's where all or none are right, of which drawing again
            tells nothing.
        calibration: expected calibration error of 15 bins.
        confusion: int64 (L, L); rows are true classes, columns answers.
        precision, recall: float64 (L,); nan where there is nothing to divide by.
    """

    count: int
    top1: float
    top5: float
    interval: tuple[float, float]
    calibration: float
    confusion: npt.NDArray[np.int64]
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]

    def as_table(self, labels: tuple[str, ...]) -> dict[str, Any]:
        """The scores as a table for JSON; what is nan becomes None."""
        classes = [
            {
                "class_name": name,
                "images": int(self.confusion[k].sum()),
                "recall": _or_none(self.recall[k]),
                "precision": _or_none(self.precision[k]),
            }
            for k, name in enumerate(labels)
        ]
        return {
            "images": self.count,
            "top1": round(self.top1, 6),
            "top1_interval95": [round(edge, 6) for edge in self.interval],
            "top5": round(self.top5, 6),
            "calibration_error": round(self.calibration, 6),
            "classes": classes,
            "confusion": self.confusion.tolist(),
        }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)


def score_classifier(probs: Probs, labels: Labels) -> ClassifyScores:
    """All measures of probabilities (N, L) against class ids (N,).

    Raises:
        ValueError: no rows, shapes that do not fit, or an id that is no class.
    """
    if probs.ndim != 2 or not len(probs) or labels.shape != probs.shape[:1]:
        raise ValueError(f"`probs` must be (N, L) and `labels` (N,), N > 0. Received: {probs.shape}, {labels.shape}.")
    if labels.min() < 0 or labels.max() >= probs.shape[1]:
        raise ValueError(f"`labels` must be in [0, {probs.shape[1]}). Received: {labels.min()} to {labels.max()}.")
    answers = probs.argmax(axis=1)
    confusion = confusion_matrix(answers, labels, probs.shape[1])
    precision, recall = precision_recall(confusion)
    return ClassifyScores(
        count=len(probs),
        top1=top_k_accuracy(probs, labels, 1),
        top5=top_k_accuracy(probs, labels, 5),
        interval=_interval(answers == labels),
        calibration=calibration_error(probs, labels),
        confusion=confusion,
        precision=precision,
        recall=recall,
    )


def top_k_accuracy(probs: Probs, labels: Labels, k: int) -> float:
    """Fraction of rows whose label is among the k most probable; of equals, the smaller id comes first."""
    order = np.argsort(-probs, axis=1, kind="stable")[:, :k]
    return float((order == labels[:, None]).any(axis=1).mean())


def confusion_matrix(answers: Labels, labels: Labels, classes: int) -> npt.NDArray[np.int64]:
    """Counts (L, L): rows are true classes, columns answers."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, answers), 1)
    return counts


def precision_recall(
    confusion: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Precision and recall (L,) of each class; nan where it was never answered, or never there."""
    right = np.diag(confusion).astype(np.float64)
    answered, there = confusion.sum(axis=0), confusion.sum(axis=1)
    nothing = np.full(len(right), np.nan)
    precision = np.divide(right, answered, out=nothing.copy(), where=answered > 0)
    recall = np.divide(right, there, out=nothing.copy(), where=there > 0)
    return precision, recall


def calibration_error(probs: Probs, labels: Labels, bins: int = 15) -> float:
    """Expected calibration error: how far confidence and accuracy are apart, over bins of the confidence.

    Guo, Pleiss, Sun, Weinberger, On calibration of modern neural networks, ICML 2017, equation 3. A bin holds the
    confidences above its lower edge up to its upper edge.
    """
    confidence = probs.max(axis=1).astype(np.float64)
    right = probs.argmax(axis=1) == labels
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    apart = np.bincount(which, weights=confidence - right, minlength=bins)
    return float(np.abs(apart).sum() / len(probs))


def bootstrap_interval(
    right: npt.NDArray[np.bool_], *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Interval of the mean of `right` (N,) by drawing N images again and again (percentile bootstrap; Efron, 1979)."""
    # the mean of N draws out of N ones and zeros has a binomial distribution: no need to draw images one by one
    means = np.random.default_rng(seed).binomial(len(right), right.mean(), draws) / len(right)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilson_interval(right: npt.NDArray[np.bool_], *, z: float = 1.959964) -> tuple[float, float]:
    """Score interval of the mean of `right` (N,); Wilson, Probable inference, JASA 1927. z: 1.96 for 95 %."""
    count, mean = len(right), float(right.mean())
    middle, scale = mean + z * z / (2 * count), 1 + z * z / count
    half = z * math.sqrt(mean * (1 - mean) / count + z * z / (4 * count * count))
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def _interval(right: npt.NDArray[np.bool_]) -> tuple[float, float]:
    return wilson_interval(right) if right.all() or not right.any() else bootstrap_interval(right)


def worst_mistakes(probs: Probs, labels: Labels, most: int) -> list[int]:
    """Rows of wrong answers, the surest first."""
    answers = probs.argmax(axis=1)
    wrong = np.flatnonzero(answers != labels)
    return [int(row) for row in wrong[np.argsort(-probs[wrong, answers[wrong]], kind="stable")][:most]]


def softmax(logits: npt.NDArray[np.float32]) -> Probs:
    """Probabilities (N, L) of logits (N, L)."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def most_confused(confusion: npt.NDArray[np.int64], most: int) -> list[tuple[int, int, int]]:
    """(true class, answer, images) of the classes most often taken for others, at most `most` of them."""
    wrong = confusion * (1 - np.eye(len(confusion), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [(*divmod(int(place), len(confusion)), int(wrong.flat[place])) for place in order]
    return [pair for pair in pairs if pair[2]]
