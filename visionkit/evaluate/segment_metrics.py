"""Measures of segmentations from counts of who was called what; NumPy only.

Long, Shelhamer, Darrell, Fully convolutional networks, CVPR 2015, section 5: with n_ij pixels of class i called j and
t_i = sum_j n_ij, pixel accuracy is sum_i n_ii / sum_i t_i, mean accuracy the mean of n_ii / t_i, mean IU the mean of
n_ii / (t_i + sum_j n_ji - n_ii), and frequency-weighted IU the mean of the same with weights t_i.

Classes that are absent: one without true pixels has no accuracy and is left out of that mean; its IU is 0 if it was
answered anywhere, and left out of that mean if it was not. Void pixels (255) are in no count. The counts of all images
are added up before anything is divided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.geometry.label_maps import class_iou, confusion_counts, mean_of_there

__all__ = ["SegmentScores", "confusion_counts", "score_counts", "score_segmentation"]

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SegmentScores:
    """What a segmenter scores on labelled images.

    Args:
        confusion: int64 (L, L), pixels; rows are true classes, columns answers.
        accuracy: float64 (L,) of each class, nan where it is not there.
        iu: float64 (L,) intersection over union, nan where the class is neither there nor answered.
    """

    confusion: Counts
    pixel_accuracy: float
    mean_accuracy: float
    mean_iu: float
    weighted_iu: float
    accuracy: Floats
    iu: Floats

    def as_table(self, labels: Sequence[str]) -> dict[str, Any]:
        """The scores as a table for JSON; what is nan becomes None."""
        classes = [
            {
                "class_name": name,
                "pixels": int(self.confusion[k].sum()),
                "accuracy": or_none(self.accuracy[k]),
                "iu": or_none(self.iu[k]),
            }
            for k, name in enumerate(labels)
        ]
        return {
            "pixels": int(self.confusion.sum()),
            "pixel_accuracy": or_none(self.pixel_accuracy),
            "mean_accuracy": or_none(self.mean_accuracy),
            "mean_iu": or_none(self.mean_iu),
            "frequency_weighted_iu": or_none(self.weighted_iu),
            "classes": classes,
            "confusion": self.confusion.tolist(),
        }


def or_none(value: float) -> float | None:
    """A number for JSON: six decimals, None for nan."""
    return None if np.isnan(value) else round(float(value), 6)


def score_counts(confusion: npt.ArrayLike) -> SegmentScores:
    """All measures of counts (L, L); nan where no pixel was counted.

    Raises:
        ValueError: the counts are not square, or negative.
    """
    counts = np.asarray(confusion, np.int64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or (counts < 0).any():
        raise ValueError(f"`confusion` must be counts (L, L), none negative. Received: shape={counts.shape}.")
    right, there = np.diag(counts).astype(np.float64), counts.sum(axis=1).astype(np.float64)
    total = float(there.sum())
    accuracy = np.divide(right, there, out=np.full(len(right), np.nan), where=there > 0)
    iu = class_iou(counts)
    weighted = float(np.nansum(there * np.nan_to_num(iu)))
    return SegmentScores(
        confusion=counts,
        pixel_accuracy=float(right.sum()) / total if total else float("nan"),
        mean_accuracy=mean_of_there(accuracy),
        mean_iu=mean_of_there(iu),
        weighted_iu=weighted / total if total else float("nan"),
        accuracy=accuracy,
        iu=iu,
    )


def score_segmentation(
    truth: npt.NDArray[np.integer[Any]], answer: npt.NDArray[np.integer[Any]], classes: int, *, ignore: int = 255
) -> SegmentScores:
    """All measures of one map, or of several stacked ones, against the truth of the same shape.

    Args:
        ignore: number in `truth` of pixels that do not count.
    """
    return score_counts(confusion_counts(truth, answer, classes, ignore=ignore))
