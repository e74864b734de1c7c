"""Scores of single-object tracking: success and precision curves of one pass (Wu et al., CVPR 2013, section 4)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from visionkit.geometry.boxes import box_centers, iou_aligned

__all__ = ["THRESHOLDS", "frame_success", "precision", "success_auc", "success_curve"]

THRESHOLDS = np.linspace(0, 1, 21)


def _pair(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    a, b = np.asarray(predicted, np.float32), np.asarray(truth, np.float32)
    if a.ndim != 2 or a.shape != b.shape or len(a) == 0:
        raise ValueError(
            "`predicted` and `truth` must be equally many boxes (N, 4), N > 0. "
            f"Received: shapes {a.shape} and {b.shape}."
        )
    known = np.isfinite(b).all(axis=1)
    return a[known], b[known]


def success_curve(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Share of frames whose overlap exceeds each of the 21 thresholds 0, 0.05 ... 1: float64 (21,).

    Both are boxes (N, 4) xyxy; frames whose truth is not finite are left out. The comparison is strict, as in the
    benchmark's own code, so that a perfect track scores 20 / 21.
    """
    overlap = iou_aligned(*_pair(predicted, truth))
    return (overlap[None] > THRESHOLDS[:, None]).mean(axis=1)


def frame_success(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Share of the thresholds that each frame's overlap exceeds, float64 (frames with a finite truth,).

    Its mean is the area under the success curve.
    """
    overlap = iou_aligned(*_pair(predicted, truth))
    return (overlap[:, None] > THRESHOLDS).mean(axis=1)


def success_auc(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Area under the success curve: the mean of its 21 values."""
    return float(success_curve(predicted, truth).mean())


def precision(predicted: npt.ArrayLike, truth: npt.ArrayLike, pixels: float = 20.0) -> float:
    """Share of frames whose centre is at most `pixels` from the true centre; boxes (N, 4) xyxy."""
    a, b = _pair(predicted, truth)
    distance = np.linalg.norm(box_centers(a) - box_centers(b), axis=1)
    return float((distance <= pixels).mean())
