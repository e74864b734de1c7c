"""From an SSD's answer to boxes: probabilities, default boxes moved, the best of each class, overlaps suppressed.

The order and the thresholds are torchvision's (`SSDRule`). Boxes below the threshold cost one comparison each, so that
at a usual confidence decoding is nearly free.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError
from visionkit.geometry.box_codec import decode_boxes
from visionkit.geometry.ssd_rule import SSDRule
from visionkit.tasks.detect_network import Limits, RawDetections

if TYPE_CHECKING:
    from visionkit.runtime import Runner

__all__ = ["SSDEngine", "decode_ssd"]

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

BLOCK = 256  # boxes whose overlaps are looked at together


def decode_ssd(
    logits: Floats,
    deltas: Floats,
    anchors: Floats,
    rule: SSDRule,
    *,
    conf: float | None = None,
    iou: float | None = None,
    max_det: int | None = None,
) -> RawDetections:
    """The boxes of one input, most probable first, cut to the input.

    Args:
        logits: (A, L) of each default box, class 0 the background.
        deltas: (A, 4) of each default box.
        anchors: (A, 4) `rule.anchors()`.
        rule: codec and thresholds.
        conf: boxes of at least this probability; None is of more than the rule's.
        iou: in the place of the rule's `nms`.
        max_det: in the place of the rule's `detections`.

    Raises:
        ModelError: `model-unfit`, the shapes are not those of the rule; `model-not-finite`.
    """
    if logits.shape[:1] != anchors.shape[:1] or logits.ndim != 2 or deltas.shape != anchors.shape:
        raise ModelError(
            "model-unfit",
            f"the network's answer is of logits {logits.shape} and deltas {deltas.shape}, its default boxes are "
            f"{len(anchors)}",
        )
    floor = float(np.nextafter(np.float32(rule.score), np.float32(1))) if conf is None else conf
    boxes, classes, scores = _candidates(logits, floor)
    if not np.isfinite(deltas).all():
        raise ModelError("model-not-finite", "the network's answer is not finite (NaN or infinity)")
    order = np.argsort(-scores, kind="stable")
    order = order[_rank_in_class(classes[order]) < rule.candidates]
    boxes, classes, scores = boxes[order], classes[order], scores[order]
    height, width = rule.size_hw
    moved, back = np.unique(boxes, return_inverse=True)  # a default box may stand for several classes
    xyxy = decode_boxes(deltas[moved], anchors[moved], rule.weights)
    xyxy = np.clip(xyxy, 0, np.array([width, height] * 2, np.float32))[back].astype(np.float32)
    limit = rule.detections if max_det is None else max_det
    kept = _suppressed(xyxy, classes, rule.nms if iou is None else iou, limit)
    return RawDetections(xyxy[kept], scores[kept], classes[kept])


def _candidates(logits: Floats, floor: float) -> tuple[Ids, Ids, Floats]:
    """Default box, class and probability of each pair that reaches `floor`, row by row."""
    best = logits[:, 1:].max(axis=1)
    top = np.maximum(best, logits[:, 0])
    if not np.isfinite(top).all():
        raise ModelError("model-not-finite", "the network's answer is not finite (NaN or infinity)")
    # p = exp(l - top) / sum, and the sum is at least 1; the margin is for rounding
    rows = np.flatnonzero(best - top >= (math.log(floor) - 1e-3 if floor > 0 else -math.inf))
    probs = np.exp(logits[rows] - top[rows, None])
    probs /= probs.sum(axis=1, keepdims=True)
    place, classes = np.nonzero(probs[:, 1:] >= floor)
    return rows[place], classes + 1, probs[place, classes + 1]


def _rank_in_class(classes: Ids) -> Ids:
    """How many of the same class stand before each."""
    order = np.argsort(classes, kind="stable")
    ordered = classes[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(ordered) else order
    lengths = np.diff(np.append(starts, len(ordered)))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(ordered)) - np.repeat(starts, lengths)
    return rank


def _suppressed(xyxy: Floats, classes: Ids, iou: float, limit: int) -> Ids:
    """The first `limit` boxes that no kept one of their class before them overlaps by more than `iou`.

    `geometry.nms.class_nms` for boxes in order of score, a block at a time, ended when there are enough.
    """
    kept = np.zeros(0, np.int64)
    for begin in range(0, len(xyxy), BLOCK):
        block = np.arange(begin, min(begin + BLOCK, len(xyxy)))
        there = ~_over(xyxy, classes, kept, block, iou).any(axis=0)
        block = block[there]
        over = _over(xyxy, classes, block, block, iou)
        there = np.ones(len(block), bool)
        for place in np.flatnonzero(np.triu(over, 1).any(axis=1)):
            if there[place]:
                there[place + 1 :] &= ~over[place, place + 1 :]
        kept = np.concatenate([kept, block[there]])
        if len(kept) >= limit:
            return kept[:limit]
    return kept


def _over(xyxy: Floats, classes: Ids, first: Ids, second: Ids, iou: float) -> npt.NDArray[np.bool_]:
    """Whether boxes (N,) and (M,) are of one class and overlap by more than `iou`, (N, M)."""
    a, b = xyxy[first][:, None], xyxy[second][None]
    sides: Any = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    inter = np.maximum(sides, 0).prod(axis=-1)
    union = _areas(a) + _areas(b) - inter
    share = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    same: npt.NDArray[np.bool_] = classes[first][:, None] == classes[second]
    return same & (share > iou)


def _areas(boxes: Floats) -> Floats:
    areas: Floats = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return areas


class SSDEngine:
    """A compiled SSD as an engine of `DetectNetwork`.

    Args:
        runner: of the network; outputs `class_logits` (B, A, L) and `box_deltas` (B, A, 4).
        rule: of the network at the runner's size of input.
    """

    def __init__(self, runner: Runner, rule: SSDRule) -> None:
        self._runner, self.rule = runner, rule
        self._anchors = rule.anchors()
        (self._input,) = runner.inputs
        self.batch = int(runner.inputs[self._input].shape[0] or 1)
        self.runtime, self.precision, self.threads = runner.name, runner.precision, runner.threads

    def __call__(self, inputs: Floats, valid_hw: Floats, limits: Limits, /) -> list[RawDetections]:
        """What is in each of the inputs float32 (B, h, w, 3); `valid_hw` means nothing, as they are filled."""
        answer = self._runner(**{self._input: inputs})
        logits, deltas = (np.asarray(answer[name], np.float32) for name in ("class_logits", "box_deltas"))
        how: dict[str, Any] = {"conf": limits.conf, "iou": limits.iou, "max_det": limits.max_det}
        return [decode_ssd(*one, self._anchors, self.rule, **how) for one in zip(logits, deltas, strict=True)]

    def close(self) -> None:
        """Give the network's memory back."""
        self._runner.close()
