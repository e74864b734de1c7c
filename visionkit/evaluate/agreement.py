"""Where two models say the same of images that nobody labelled: the same top class, boxes, pixels, track."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.geometry.boxes import iou_aligned, iou_pairwise
from visionkit.geometry.label_maps import class_iou, confusion_counts, mean_of_there
from visionkit.structures import (
    Classification,
    DenseClassification,
    Detections,
    MultiClassification,
    Segmentation,
    Track,
)

__all__ = ["Agreement", "FrameAgreement", "agreement", "agreement_of_tracks", "compare_answers"]

Image = npt.NDArray[np.uint8]

SAME_BOX = 0.5  # intersection over union from which two boxes of a class are the same object


@dataclass(frozen=True, slots=True)
class FrameAgreement:
    """How far two answers about one frame are the same.

    Args:
        score: from 0, nothing, to 1, the same: the measure of its task (`compare_answers`).
        measures: that and others by name; nan where there was nothing to measure.
    """

    index: int
    score: float
    measures: Mapping[str, float]


@dataclass(frozen=True)
class Agreement:
    """How far two models agree on frames.

    Args:
        measure: name of the score: `top1`, `boxes`, `pixels` or `iou`.
        frames: one row each, in order.
    """

    measure: str
    frames: tuple[FrameAgreement, ...]

    @property
    def score(self) -> float:
        """Mean over the frames; nan without any."""
        return self.mean(self.measure)

    def mean(self, name: str) -> float:
        """Mean of a measure over the frames that have it; nan where none has."""
        values = [row.measures[name] for row in self.frames if not math.isnan(row.measures.get(name, math.nan))]
        return float(np.mean(values)) if values else math.nan

    def worst(self, count: int) -> list[FrameAgreement]:
        """The frames that agree least, where they do not agree wholly, the worst first."""
        apart = [row for row in self.frames if row.score < 1]
        return sorted(apart, key=lambda row: (row.score, row.index))[:count]

    def as_table(self) -> dict[str, Any]:
        """For JSON: the number of frames, the means of all measures, and the ten worst frames."""
        names = list(dict.fromkeys(name for row in self.frames for name in row.measures))
        means = {name: self.mean(name) for name in names}
        return {
            "measure": self.measure,
            "frames": len(self.frames),
            "score": _or_none(self.score),
            "means": {name: _or_none(value) for name, value in means.items()},
            "worst": [{"index": row.index, "score": row.score} for row in self.worst(10)],
        }


def agreement(first: Any, second: Any, frames: Iterable[Image]) -> Agreement:
    """How far two tasks of the same kind agree about images uint8 (H, W, 3) BGR; `compare_answers` says in what.

    Raises:
        ValueError: their answers are not of one kind.
    """
    rows, measure = [], ""
    for index, frame in enumerate(frames):
        measure, measures = compare_answers(first(frame), second(frame))
        rows.append(FrameAgreement(index, measures[measure], measures))
    return Agreement(measure, tuple(rows))


def agreement_of_tracks(first: Any, second: Any, frames: Iterable[Image], xyxy: npt.ArrayLike) -> Agreement:
    """How far two trackers agree that start with the same box, float (4,) pixels, in the first of the frames.

    `iou` is that of the two boxes; where both say that the object is lost it is 1, where one does, 0.
    """
    rows = []
    for index, frame in enumerate(frames):
        if not index:
            for tracker in (first, second):
                tracker.init(frame, np.asarray(xyxy, np.float32))
            continue
        measures = _tracks(first.update(frame), second.update(frame))
        rows.append(FrameAgreement(index, measures["iou"], measures))
    return Agreement("iou", tuple(rows))


def compare_answers(first: Any, second: Any) -> tuple[str, dict[str, float]]:
    """The name of the score of two answers of a kind, and their measures.

    Classifications: `top1`, 1 where the most probable class is the same; `confidence_apart`, of that class of the
    first. With several heads, their means. Segmentations: `pixels`, the share with the same class; `mean_iu`, of the
    classes that either has. Detections: `boxes`, 2 m / (n1 + n2) for m pairs of boxes of one class and an intersection
    over union of at least 0.5, the closest paired first (1 where neither has any); `iou` and `confidence_apart` of the
    pairs. Tracks: `iou`.

    Raises:
        ValueError: the answers are not of one kind.
    """
    for kinds, compare, name in _KINDS:
        if isinstance(first, kinds) and isinstance(second, kinds):
            return name, compare(first, second)
    raise ValueError(f"The answers must be of one kind. Received: {type(first).__name__} and {type(second).__name__}.")


def _classes(first: Any, second: Any) -> dict[str, float]:
    first, second = (getattr(one, "overall", one) for one in (first, second))
    if isinstance(first, MultiClassification) != isinstance(second, MultiClassification):
        raise ValueError("One model has several heads, the other has not.")
    if isinstance(first, MultiClassification):
        if set(first.heads) != set(second.heads):
            raise ValueError(f"The heads must be the same. Received: {sorted(first.heads)} and {sorted(second.heads)}.")
        each = [_classes(first.heads[head], second.heads[head]) for head in first.heads]
        return {name: float(np.nanmean([row[name] for row in each])) for name in each[0]}
    if not len(first.class_id) or not len(second.class_id):
        return {"top1": float(len(first.class_id) == len(second.class_id)), "confidence_apart": math.nan}
    top = first.class_id[0]
    found = second.confidence[second.class_id == top]
    apart = abs(float(first.confidence[0]) - float(found[0])) if len(found) else math.nan
    return {"top1": float(top == second.class_id[0]), "confidence_apart": apart}


def _boxes(first: Detections, second: Detections) -> dict[str, float]:
    iou = iou_pairwise(first.xyxy, second.xyxy).astype(np.float64)
    iou[first.class_id[:, None] != second.class_id[None]] = 0
    pairs: list[tuple[int, int]] = []
    left = iou.copy()
    while left.size and left.max() >= SAME_BOX:
        i, j = np.unravel_index(int(left.argmax()), left.shape)
        pairs.append((int(i), int(j)))
        left[i], left[:, j] = 0, 0
    total = len(first.xyxy) + len(second.xyxy)
    apart = [abs(float(first.confidence[i]) - float(second.confidence[j])) for i, j in pairs]
    return {
        "boxes": 2 * len(pairs) / total if total else 1.0,
        "iou": float(np.mean([iou[i, j] for i, j in pairs])) if pairs else math.nan,
        "confidence_apart": float(np.mean(apart)) if apart else math.nan,
    }


def _pixels(first: Segmentation, second: Segmentation) -> dict[str, float]:
    if first.class_map.shape != second.class_map.shape:
        raise ValueError(
            f"The maps must have one size. Received: {first.class_map.shape} and {second.class_map.shape}."
        )
    count = 1 + int(max(first.class_map.max(), second.class_map.max()))
    counts = confusion_counts(first.class_map, second.class_map, count, ignore=-1)  # 255 is a class like others
    return {
        "pixels": float((first.class_map == second.class_map).mean()),
        "mean_iu": mean_of_there(class_iou(counts)),
    }


def _tracks(first: Track, second: Track) -> dict[str, float]:
    lost = [one.state == "lost" for one in (first, second)]
    iou = float(all(lost)) if any(lost) else float(iou_aligned(first.xyxy[None], second.xyxy[None])[0])
    return {"iou": iou, "state": float(first.state == second.state)}


_KINDS: tuple[tuple[Any, Any, str], ...] = (
    ((Classification, MultiClassification, DenseClassification), _classes, "top1"),
    (Detections, _boxes, "boxes"),
    (Segmentation, _pixels, "pixels"),
    (Track, _tracks, "iou"),
)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
