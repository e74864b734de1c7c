"""Non-maximum suppression: of boxes that overlap, the best one stays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.geometry.checks import as_boxes, as_vector

__all__ = ["class_nms", "nms", "soft_nms"]

Floats = npt.NDArray[Any]
Kept = npt.NDArray[np.int64]


def nms(
    xyxy: npt.ArrayLike,
    scores: npt.ArrayLike,
    iou_threshold: float,
    *,
    limit: int | None = None,
    pixel_offset: int = 0,
) -> Kept:
    """Which boxes stay, int64, best first: each is dropped that overlaps a better one that stays by more than allowed.

    Boxes of one score keep their order. A box without area overlaps nothing.

    Args:
        xyxy: (N, 4).
        scores: (N,).
        iou_threshold: the largest intersection over union that two may have and both stay.
        limit: how many stay at most.
        pixel_offset: 1 counts widths as `x2 - x1 + 1`, as py-faster-rcnn does; where boxes are continuous, this keeps
            other ones.
    """
    boxes = as_boxes(xyxy, "xyxy")
    return _greedy(boxes, as_vector(scores, "scores", len(boxes)), None, iou_threshold, limit, pixel_offset)


def class_nms(
    xyxy: npt.ArrayLike,
    scores: npt.ArrayLike,
    class_id: npt.ArrayLike,
    iou_threshold: float,
    *,
    limit: int | None = None,
) -> Kept:
    """Like `nms`, but boxes of different `class_id` (N,) do not suppress each other; best first over all classes."""
    boxes = as_boxes(xyxy, "xyxy")
    groups = as_vector(class_id, "class_id", len(boxes), dtype=np.int64)
    return _greedy(boxes, as_vector(scores, "scores", len(boxes)), groups, iou_threshold, limit, 0)


def _greedy(
    boxes: Floats, scores: Floats, groups: Floats | None, threshold: float, limit: int | None, pixel_offset: int
) -> Kept:
    if not 0 <= threshold <= 1:
        raise ValueError(f"`iou_threshold` must be in [0, 1]. Received: iou_threshold={threshold}.")
    if limit is not None and limit < 0:
        raise ValueError(f"`limit` must not be negative. Received: limit={limit}.")
    order = np.argsort(-scores, kind="stable")
    boxes = boxes[order]
    areas = _areas(boxes, pixel_offset)
    groups = None if groups is None else groups[order]
    there = np.ones(len(order), bool)
    kept: list[int] = []
    for i in range(len(order)):
        if limit is not None and len(kept) >= limit:
            break
        if not there[i]:
            continue
        kept.append(i)
        rest = slice(i + 1, None)
        over = _overlaps(boxes[i], boxes[rest], areas[i], areas[rest], pixel_offset) > threshold
        there[rest] &= ~over if groups is None else ~(over & (groups[rest] == groups[i]))
    return order[kept].astype(np.int64)


def _areas(boxes: Floats, pixel_offset: int) -> Floats:
    return np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2] + pixel_offset, 0), axis=-1)


def _overlaps(box: Floats, others: Floats, area: Floats, areas: Floats, pixel_offset: int) -> Floats:
    """Intersection over union (M,) of one box with others; 0 where the union is empty."""
    lower, upper = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    inter = np.prod(np.maximum(upper - lower + pixel_offset, 0), axis=-1)
    union = area + areas - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def soft_nms(
    xyxy: npt.ArrayLike,
    scores: npt.ArrayLike,
    *,
    method: str = "gaussian",
    sigma: float = 0.5,
    iou_threshold: float = 0.3,
    score_threshold: float = 1e-3,
) -> tuple[Kept, Floats]:
    """Boxes best first (K,) and their new scores (K,): overlap with a better box lowers a score instead of ending it.

    Bodla et al., Soft-NMS, ICCV 2017, section 4: the best box is taken, every other's score is multiplied by
    exp(-iou^2 / sigma), or with `method="linear"` by 1 - iou where iou is above `iou_threshold`; and so on with those
    left.

    Args:
        xyxy: (N, 4).
        scores: (N,).
        method: "gaussian" or "linear".
        sigma: of the Gaussian.
        iou_threshold: of the linear rule.
        score_threshold: boxes whose score falls below are dropped.
    """
    boxes = as_boxes(xyxy, "xyxy")
    left = as_vector(scores, "scores", len(boxes)).copy()
    if method not in {"gaussian", "linear"} or not sigma > 0 or math.isnan(score_threshold):
        raise ValueError(
            "`method` must be 'gaussian' or 'linear', `sigma` positive. "
            f"Received: method={method!r}, sigma={sigma}, score_threshold={score_threshold}."
        )
    areas, there = _areas(boxes, 0), left >= score_threshold
    kept: list[int] = []
    while there.any():
        best = int(np.argmax(np.where(there, left, -np.inf)))
        kept.append(best)
        there[best] = False
        iou = _overlaps(boxes[best], boxes, areas[best], areas, 0)
        fade = np.exp(-(iou**2) / sigma) if method == "gaussian" else np.where(iou > iou_threshold, 1 - iou, 1)
        left[there] *= fade[there].astype(left.dtype)
        there &= left >= score_threshold
    return np.array(kept, np.int64), left[kept]
