"""Average precision of boxes: which answers hit an object, and the area under precision over recall.

Everingham et al., The PASCAL Visual Object Classes challenge, IJCV 2010, section 4.2. An answer hits the object that it
overlaps most, if by at least the threshold and if no better answer has hit it before; a second answer to the same
object is a false one. Objects marked as ignored (difficult, crowds) count neither as found nor as missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["PrecisionRecall", "average_precision", "box_overlaps", "match_answers", "precision_recall"]

Floats = npt.NDArray[np.float64]
HIT, MISS, IGNORED = 1, 0, -1
METHODS = ("all-point", "11-point", "101-point")


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision and recall after each answer, the surest first.

    Args:
        confidence, precision, recall: float64 (K,); ignored answers are not among them.
        positives: objects that were there to be found.
    """

    confidence: Floats
    precision: Floats
    recall: Floats
    positives: int


def box_overlaps(
    a: npt.ArrayLike, b: npt.ArrayLike, *, crowd: npt.ArrayLike | None = None, pixel_offset: int = 0
) -> Floats:
    """Intersection over union float64 (N, M) of boxes (N, 4) and (M, 4) xyxy.

    Args:
        crowd: bool (M,); of these the intersection over the box of `a`, as COCO has it.
        pixel_offset: 1 counts widths as `x2 - x1 + 1`.
    """
    first, second = np.asarray(a, np.float64).reshape(-1, 1, 4), np.asarray(b, np.float64).reshape(1, -1, 4)
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2]) + pixel_offset
    inter = np.maximum(sides, 0).prod(axis=-1)
    areas = [np.maximum(box[..., 2:] - box[..., :2] + pixel_offset, 0).prod(axis=-1) for box in (first, second)]
    union = areas[0] + areas[1] - inter
    if crowd is not None:
        union = np.where(np.asarray(crowd, bool)[None], areas[0], union)
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def match_answers(
    overlaps: npt.ArrayLike, confidence: npt.ArrayLike, ignored: npt.ArrayLike, threshold: float
) -> npt.NDArray[np.int8]:
    """Of each answer to one image and class whether it hits: 1 yes, 0 no, -1 it does not count; int8 (N,).

    Args:
        overlaps: (N, M) of answers and objects.
        confidence: (N,); of two alike the earlier one comes first.
        ignored: bool (M,).
    """
    iou, flags = np.asarray(overlaps, np.float64), np.asarray(ignored, bool)
    result = np.full(len(iou), MISS, np.int8)
    if not iou.size:
        return result
    best, taken = iou.argmax(axis=1), np.zeros(iou.shape[1], bool)
    for k in np.argsort(-np.asarray(confidence, np.float64), kind="stable"):
        place = best[k]
        if iou[k, place] < threshold:
            continue
        if flags[place]:
            result[k] = IGNORED
        elif not taken[place]:
            result[k], taken[place] = HIT, True
    return result


def precision_recall(hits: npt.ArrayLike, confidence: npt.ArrayLike, positives: int) -> PrecisionRecall:
    """The curve of answers of one class over all images.

    Args:
        hits: (N,) as `match_answers` says.
        confidence: (N,).
        positives: objects that were there.
    """
    flags, sure = np.asarray(hits), np.asarray(confidence, np.float64)
    counted = flags != IGNORED
    flags, sure = flags[counted], sure[counted]
    order = np.argsort(-sure, kind="stable")
    found = np.cumsum(flags[order] == HIT, dtype=np.float64)
    answers = np.arange(1, len(order) + 1, dtype=np.float64)
    recall = found / positives if positives else np.full(len(order), np.nan)
    return PrecisionRecall(sure[order], found / answers, recall, int(positives))


def average_precision(curve: PrecisionRecall, *, method: str = "all-point") -> float:
    """Average precision of a curve; nan where there was nothing to be found.

    Args:
        method: `all-point`, the area under the precision that only falls (VOC since 2010); `11-point`, the mean of the
            best precision at a recall of at least 0, 0.1 … 1 (VOC until 2009); `101-point`, the same at 0, 0.01 … 1
            (COCO). The levels are the floats that both have: 0.6 is a little above 9 / 15, which does not reach it.
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}. Received: method={method!r}.")
    if not curve.positives:
        return float("nan")
    if not len(curve.recall):
        return 0.0
    falling = np.maximum.accumulate(curve.precision[::-1])[::-1]
    if method == "all-point":
        steps = np.diff(np.concatenate([[0.0], curve.recall]))
        return float((steps * falling).sum())
    points = 11 if method == "11-point" else 101
    levels = np.linspace(0, 1, points)
    places = np.searchsorted(curve.recall, levels, side="left")
    best = np.where(places < len(falling), falling[np.minimum(places, len(falling) - 1)], 0.0)
    return float(best.mean())


def class_curves(
    answers: Sequence[tuple[Any, Any, Any]],
    truths: Sequence[tuple[Any, Any, Any]],
    classes: int,
    *,
    threshold: float = 0.5,
    pixel_offset: int = 0,
) -> list[PrecisionRecall]:
    """The curve of each class over images.

    Args:
        answers: of each image boxes (N, 4), confidence (N,) and class ids (N,).
        truths: of each image boxes (M, 4), class ids (M,) and whether they are ignored (M,).
    """
    curves = []
    for class_id in range(classes):
        hits, sure, positives = [], [], 0
        for (boxes, confidence, ids), (objects, kinds, ignored) in zip(answers, truths, strict=True):
            own, there = np.asarray(ids) == class_id, np.asarray(kinds) == class_id
            skip = np.asarray(ignored, bool)[there]
            overlaps = box_overlaps(np.asarray(boxes)[own], np.asarray(objects)[there], pixel_offset=pixel_offset)
            hits.append(match_answers(overlaps, np.asarray(confidence)[own], skip, threshold))
            sure.append(np.asarray(confidence)[own])
            positives += int((~skip).sum())
        every = np.concatenate(hits) if hits else np.zeros(0, np.int8)
        curves.append(precision_recall(every, np.concatenate(sure) if sure else np.zeros(0), positives))
    return curves
