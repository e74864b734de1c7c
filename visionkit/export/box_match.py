"""Whether two answers of a detector are the same, where a tie may have gone the other way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.geometry.boxes import iou_pairwise

__all__ = ["BoxMatch", "compare_boxes", "match_boxes"]

Array = npt.NDArray[Any]
Answer = Mapping[str, Array]

TIE = 1e-4  # of scores and of overlaps: nearer than this, arithmetic's last digits decide
NEAR = 0.02  # boxes further apart, in shares of the image, or scores, are not the same box
NEEDED = ("boxes", "scores", "classes", "num_detections")
MOST_TIES = 0.02  # of the boxes; one may be in every answer


@dataclass(frozen=True)
class BoxMatch:
    """Boxes of two answers, one to one.

    Args:
        pairs: (K, 2), places in the first and in the second.
        ties: how many of either stand alone because of a tie: two scores, a score and the least one, or an overlap and
            its limit differ by less than `TIE`.
        alone: how many of either stand alone without.
    """

    pairs: npt.NDArray[np.int64]
    ties: int
    alone: int


def compare_boxes(*, conf: float, iou: float) -> Callable[[Answer, Answer, str, float], float | None]:
    """The `compare` of a detector's plan: the largest difference of boxes that are the same, 1 where others are there.

    Answers have the batch's axis first. Boxes are compared in shares of the image. Ties are allowed to one box, or to
    `MOST_TIES` of them.

    Args:
        conf: the least score that is told.
        iou: limit of the suppression.
    """

    def compare(served: Answer, expected: Answer, output: str, tolerance: float) -> float | None:
        if not (_is_answer(expected) and _is_answer(served) and set(expected) <= set(served)):
            return 1.0
        batch = len(expected["num_detections"])
        if any(len(served[name]) != batch for name in expected):
            return 1.0
        images = [[{name: part[i] for name, part in one.items()} for one in (served, expected)] for i in range(batch)]
        return max(compare_one(first, second, output) for first, second in images)

    def compare_one(served: Answer, expected: Answer, output: str) -> float:
        match = match_boxes(served, expected, conf=conf, iou=iou)
        most = max(1, int(MOST_TIES * int(expected["num_detections"])))
        if match.alone or match.ties > 2 * most:  # a tie leaves one alone in either answer
            return 1.0
        ours, theirs = match.pairs.T
        if output == "num_detections":
            return 0.0
        first, second = (np.asarray(answer[output], np.float64) for answer in (served, expected))
        if first.shape != second.shape:
            return 1.0
        apart = np.abs(first[ours] - second[theirs])
        if output == "xyxy":
            apart = apart / np.maximum(_sides(expected), 1.0)
        return float(apart.max(initial=0.0))

    return compare


def _is_answer(answer: Answer) -> bool:
    """Whether it has a detector's outputs, of shapes that go together."""
    if not set(NEEDED) <= set(answer):
        return False
    boxes, count = answer["boxes"], answer["num_detections"]
    rows = [part for name, part in answer.items() if name != "num_detections"]
    return (
        boxes.ndim == 3
        and boxes.shape[2] == 4
        and count.dtype.kind in "iu"
        and count.shape == boxes.shape[:1]
        and all(part.shape[:2] == boxes.shape[:2] for part in rows)
        and answer["scores"].shape == answer["classes"].shape == boxes.shape[:2]
    )


def match_boxes(served: Answer, expected: Answer, *, conf: float, iou: float) -> BoxMatch:
    """Which boxes are the same: of one class, near in place and score, the nearest first."""
    first, second = _told(served), _told(expected)
    apart = np.abs(first.boxes[:, None] - second.boxes[None]).max(axis=2, initial=0.0)
    apart = np.maximum(apart, np.abs(first.scores[:, None] - second.scores[None]))
    apart[first.classes[:, None] != second.classes[None]] = np.inf
    pairs = []
    while apart.size and apart.min() <= NEAR:
        place = np.unravel_index(int(apart.argmin()), apart.shape)
        pairs.append(place)
        apart[place[0]], apart[:, place[1]] = np.inf, np.inf
    found = np.array(pairs, np.int64).reshape(-1, 2)
    left = [np.setdiff1d(np.arange(len(one.scores)), found[:, side]) for side, one in enumerate((first, second))]
    tied = [
        _tied(one, other, place, conf, iou, full)
        for one, other, places, full in (
            (first, second, left[0], _full(expected)),
            (second, first, left[1], _full(served)),
        )
        for place in places
    ]
    return BoxMatch(found, sum(tied), len(tied) - sum(tied))


@dataclass(frozen=True)
class _Told:
    boxes: Array
    scores: Array
    classes: Array


def _told(answer: Answer) -> _Told:
    count = int(answer["num_detections"])
    boxes, scores = (np.asarray(answer[name][:count], np.float64) for name in ("boxes", "scores"))
    return _Told(boxes, scores, np.asarray(answer["classes"][:count]))


def _full(answer: Answer) -> bool:
    return int(answer["num_detections"]) == len(answer["scores"])


def _tied(one: _Told, other: _Told, place: int, conf: float, iou: float, full: bool) -> bool:
    """Whether a box of `one` may be missing in `other` because of a tie."""
    score = one.scores[place]
    if score - conf < TIE or (full and score - other.scores.min() < TIE):
        return True
    same = other.classes == one.classes[place]
    over = iou_pairwise(one.boxes[place : place + 1], other.boxes[same])[0]
    near = other.scores[same] - score
    # one of the two suppressed the other, or it was on the edge of being suppressed
    return bool(((np.abs(near) < TIE) & (over > iou)).any() or ((near > -TIE) & (np.abs(over - iou) < TIE)).any())


def _sides(answer: Answer) -> float:
    """A length of the image, in its pixels: at least half of that of what is in it."""
    return float(np.abs(np.asarray(answer["xyxy"])).max(initial=0.0))
