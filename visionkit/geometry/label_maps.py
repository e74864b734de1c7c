"""Counts over maps of class numbers: who was taken for whom, and intersection over union. Pure NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["class_iou", "confusion_counts", "mean_of_there"]

Labels = npt.NDArray[np.integer]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def confusion_counts(truth: Labels, answer: Labels, classes: int, *, ignore: int = 255) -> Counts:
    """Pixels n_ij of class i that are called j: int64 (L, L), rows are true classes.

    Args:
        truth, answer: of one shape.
        ignore: number in `truth` of pixels that do not count; `answer` may hold it there, and only there.

    Raises:
        ValueError: shapes differ, or a counted number is no class.
    """
    if truth.shape != answer.shape:
        raise ValueError(f"`truth` and `answer` must have one shape. Received: {truth.shape} and {answer.shape}.")
    counted = truth != ignore
    there, said = truth[counted].astype(np.int64), answer[counted].astype(np.int64)
    for name, values in (("truth", there), ("answer", said)):
        if values.size and (values.min() < 0 or values.max() >= classes):
            raise ValueError(
                f"`{name}` must be in [0, {classes}), or {ignore} where `truth` is. "
                f"Received: {values.min()} to {values.max()}."
            )
    return np.bincount(there * classes + said, minlength=classes * classes).reshape(classes, classes)


def class_iou(counts: Counts) -> Floats:
    """Intersection over union (..., L) of each class from counts (..., L, L): n_ii / (t_i + sum_j n_ji - n_ii).

    nan for a class that is neither there nor answered; 0 for one that is answered and not there.
    """
    right = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    union = counts.sum(axis=-1) + counts.sum(axis=-2) - right
    return np.divide(right, union, out=np.full(right.shape, np.nan), where=union > 0)


def mean_of_there(values: Floats) -> float:
    """The mean of the numbers that are not nan; nan where there is none."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else float("nan")
