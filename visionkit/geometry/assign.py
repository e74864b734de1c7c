"""Which anchor answers for which object, and which of them a step of training looks at."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from visionkit.geometry.boxes import iou_pairwise
from visionkit.geometry.checks import as_boxes

__all__ = ["BACKGROUND", "BETWEEN", "assign_anchors", "inside_image", "sample_balanced"]

Indices = npt.NDArray[np.int64]
BACKGROUND, BETWEEN = -1, -2


def inside_image(anchors: npt.ArrayLike, size_hw: tuple[int, int], *, border: float = 0) -> npt.NDArray[np.bool_]:
    """Which boxes (N, 4) do not cross the image's edge by more than `border` pixels, bool (N,)."""
    boxes, (height, width) = as_boxes(anchors, "anchors"), size_hw
    limit = np.array([width, height], boxes.dtype) + border
    within = np.concatenate([boxes[:, :2] >= -border, boxes[:, 2:] <= limit], axis=-1)
    return np.logical_and.reduce(within, axis=-1)


def assign_anchors(
    anchors: npt.ArrayLike,
    truth: npt.ArrayLike,
    *,
    high: float = 0.7,
    low: float = 0.3,
    allow_low_quality: bool = True,
    claim: bool = False,
    usable: npt.ArrayLike | None = None,
) -> Indices:
    """For each anchor the object that it answers for, int64 (N,): its index, -1 background, -2 neither.

    Ren et al., Faster R-CNN, NIPS 2015, section 3.1.2: an anchor takes the object that it overlaps most where that is
    `high` or more, is background below `low`, and is left out between. So that no object goes without, the anchors
    that overlap an object as much as any anchor does take part too (all of them where several are alike), whatever the
    overlap, if there is one; each answers for the object that it overlaps most itself, as in torchvision.

    Args:
        anchors: (N, 4) xyxy.
        truth: (M, 4) xyxy, M may be 0: then all is background.
        high, low: bounds of the intersection over union; (0.5, 0.5) and no low quality for the second stage.
        allow_low_quality: whether objects claim their best anchors.
        claim: each object takes its one best anchor for itself, SSD's rule (Liu et al., ECCV 2016, section 2.2); where
            two want the same, the later one has it, as in torchvision.
        usable: bool (N,); the others are -2 and claim nothing, such as `~inside_image(...)` in Faster R-CNN's training.
    """
    if not 0 <= low <= high <= 1:
        raise ValueError(f"`low` and `high` must be in [0, 1], in this order. Received: low={low}, high={high}.")
    boxes, objects = as_boxes(anchors, "anchors"), as_boxes(truth, "truth")
    there = np.ones(len(boxes), bool) if usable is None else np.asarray(usable, bool)
    if there.shape != (len(boxes),):
        raise ValueError(f"`usable` must be ({len(boxes)},). Received: shape={there.shape}.")
    matched = np.full(len(boxes), BETWEEN, np.int64)
    matched[there] = _match(boxes[there], objects, high, low, allow_low_quality, claim)
    return matched


def _match(
    anchors: npt.NDArray[np.float32], truth: npt.NDArray[np.float32], high: float, low: float, best: bool, claim: bool
) -> Indices:
    if not len(truth) or not len(anchors):
        return np.full(len(anchors), BACKGROUND, np.int64)
    iou = iou_pairwise(truth, anchors)  # (M, N)
    nearest, overlap = iou.argmax(axis=0), iou.max(axis=0)
    matched = np.where(overlap >= high, nearest, np.where(overlap < low, BACKGROUND, BETWEEN)).astype(np.int64)
    if best:
        most = iou.max(axis=1, keepdims=True)
        chosen = ((iou == most) & (most > 0)).any(axis=0)
        matched[chosen] = nearest[chosen]
    if claim:
        for index, (anchor, most_) in enumerate(zip(iou.argmax(axis=1), iou.max(axis=1), strict=True)):
            if most_ > 0:
                matched[anchor] = index
    return matched


def sample_balanced(
    matched: npt.ArrayLike, count: int, positive_share: float, rng: np.random.Generator
) -> tuple[Indices, Indices]:
    """Indices of the positives and of the negatives that a step looks at, both ascending.

    At most `count` together and at most `count * positive_share` positives; negatives fill up what positives leave,
    256 at one to one in Faster R-CNN's first stage.

    Args:
        matched: int (N,), as from `assign_anchors`: 0 and more positive, -1 negative, others left out.
        count: how many together.
        positive_share: in [0, 1].
        rng: draws without putting back.
    """
    if count < 0 or not 0 <= positive_share <= 1:
        raise ValueError(
            "`count` must not be negative, `positive_share` in [0, 1]. "
            f"Received: count={count}, positive_share={positive_share}."
        )
    answers = np.asarray(matched)
    positive, negative = np.flatnonzero(answers >= 0), np.flatnonzero(answers == BACKGROUND)
    positive = rng.permutation(positive)[: int(count * positive_share)]
    negative = rng.permutation(negative)[: count - len(positive)]
    return np.sort(positive).astype(np.int64), np.sort(negative).astype(np.int64)
