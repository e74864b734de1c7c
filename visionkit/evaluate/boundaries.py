"""How well a segmentation follows the edges: IU in a band around them, and a boundary F-score. NumPy and OpenCV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.geometry.label_maps import class_iou, confusion_counts, mean_of_there

__all__ = ["WIDTHS", "boundary_f_score", "boundary_f_scores", "edge_distance", "trimap_counts", "trimap_iou"]

WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # pixels to either side
Labels = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]


def edge_distance(labels: Labels) -> npt.NDArray[np.float32]:
    """Euclidean distance (H, W) of each pixel to the nearest one that has a neighbour of another number; inf if none.

    Neighbours are the four beside, above and below; void is a number like the others.
    """
    edge = _edges(labels)
    if not edge.any():
        return np.full(labels.shape, np.inf, np.float32)
    return _distance(edge)


def _edges(labels: Labels) -> npt.NDArray[np.bool_]:
    edge = np.zeros(labels.shape, np.bool_)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge


def _distance(marked: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Euclidean distance of each pixel to the nearest marked one."""
    free = np.ascontiguousarray(~marked, np.uint8)
    return np.asarray(cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


def trimap_counts(
    truth: Labels, answer: Labels, classes: int, *, widths: Sequence[float] = WIDTHS, ignore: int = 255
) -> npt.NDArray[np.int64]:
    """Pixels of class i called j within each width of an edge of the truth: int64 (W, L, L).

    Kohli, Ladicky, Torr, Robust higher order potentials, IJCV 2009, section 6; Kraehenbuehl, Koltun, Efficient
    inference in fully connected CRFs, NIPS 2011, section 6. Width 1 are the pixels right at an edge, on both of its
    sides; the edges to void count, its pixels do not.

    Args:
        truth, answer: (H, W); `widths` in pixels to either side.
    """
    if not widths or min(widths) <= 0:
        raise ValueError(f"`widths` must be positive. Received: widths={tuple(widths)}.")
    distance = edge_distance(truth)
    banded = [np.where(distance < width, truth, ignore) for width in widths]
    return np.stack([confusion_counts(band, answer, classes, ignore=ignore) for band in banded])


def trimap_iou(
    answer: Labels, truth: Labels, widths: Sequence[float] = WIDTHS, *, classes: int | None = None, ignore: int = 255
) -> Floats:
    """Mean IU (W,) in bands of each width around the edges of the truth; nan where a band is empty."""
    if classes is None:
        classes = 1 + int(max(answer.max(initial=0), truth[truth != ignore].max(initial=0)))
    counts = trimap_counts(truth, answer, classes, widths=widths, ignore=ignore)
    return np.array([mean_of_there(class_iou(one)) for one in counts])


def boundary_f_scores(
    answer: Labels, truth: Labels, classes: int, *, tolerance: float | None = None, ignore: int = 255
) -> Floats:
    """F-score (L,) of each class's boundary in one image; nan where the class is neither there nor answered.

    Csurka, Larlus, Perronnin, What is a good evaluation measure for semantic segmentation?, BMVC 2013, section 2.2:
    precision is the fraction of the answer's boundary within `tolerance` of the truth's, recall the reverse. A class
    that is only there or only answered scores 0. Void pixels are neither.

    Args:
        tolerance: pixels; without, 0.75 % of the image's diagonal, as in the paper.
    """
    if truth.shape != answer.shape or truth.ndim != 2:
        raise ValueError(f"`truth` and `answer` must have one shape (H, W). Received: {truth.shape}, {answer.shape}.")
    reach = 0.0075 * math.hypot(*truth.shape) if tolerance is None else tolerance
    counted = truth != ignore
    scores = np.full(classes, np.nan)
    for k in range(classes):
        there, said = (truth == k) & counted, (answer == k) & counted
        if there.any() and said.any():
            scores[k] = _f_score(_edges(said) & said, _edges(there) & there, reach)
        elif there.any() or said.any():
            scores[k] = 0.0
    return scores


def _f_score(said: npt.NDArray[np.bool_], there: npt.NDArray[np.bool_], reach: float) -> float:
    if not said.any() or not there.any():  # what fills the image has no boundary
        return 1.0 if said.any() == there.any() else 0.0
    precision = float((_distance(there)[said] <= reach).mean())
    recall = float((_distance(said)[there] <= reach).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_f_score(
    answer: Labels, truth: Labels, classes: int, *, tolerance: float | None = None, ignore: int = 255
) -> float:
    """The mean of `boundary_f_scores` over the classes that are there or answered; nan where there is none."""
    return mean_of_there(boundary_f_scores(answer, truth, classes, tolerance=tolerance, ignore=ignore))
