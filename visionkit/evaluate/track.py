"""One-pass evaluation of trackers on annotated sequences, with OpenCV's trackers beside ours where installed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.errors import InputError
from visionkit.evaluate.sequences import Sequence
from visionkit.evaluate.track_metrics import precision, success_auc
from visionkit.geometry.boxes import clip_boxes
from visionkit.pipeline.track import Tracker
from visionkit.structures import Track

__all__ = ["Score", "evaluate_tracker", "opencv_trackers"]


@dataclass(frozen=True)
class Score:
    """One tracker on one sequence: success AUC (21 thresholds), precision at 20 px, frames a second.

    The speed counts reading and decoding the frames' files as well as tracking. `boxes` float32 (N, 4) xyxy are its
    answers, the first of which was given.
    """

    sequence: str
    frames: int
    auc: float
    precision: float
    fps: float
    boxes: npt.NDArray[np.float32] = field(compare=False, repr=False)


def evaluate_tracker(make: Callable[[], Tracker], sequences: Iterable[Sequence]) -> list[Score]:
    """Scores of one pass over each sequence, from the first frame's true box; `make` gives a fresh tracker."""
    return [_one_pass(make(), sequence) for sequence in sequences]


def _one_pass(tracker: Tracker, sequence: Sequence) -> Score:
    boxes = [sequence.truth[0]]
    started = time.perf_counter()
    tracker.init(_read(sequence, 0), sequence.truth[0])
    for i in range(1, len(sequence.frames)):
        boxes.append(tracker.update(_read(sequence, i)).xyxy)
    seconds = time.perf_counter() - started
    found = np.stack(boxes)
    return Score(
        sequence.name,
        len(boxes),
        success_auc(found, sequence.truth),
        precision(found, sequence.truth),
        len(boxes) / seconds,
        found,
    )


def _read(sequence: Sequence, index: int) -> npt.NDArray[np.uint8]:
    path = sequence.frames[index]
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError("input-undecodable", f"{path} is not an image that can be decoded.")
    return np.asarray(image, np.uint8)


class _OpenCVTracker:
    """One of OpenCV's trackers behind our contract; where it reports failure the last box stays."""

    def __init__(self, create: Callable[[], Any]) -> None:
        self._tracker = create()
        self._box = np.zeros(4, np.float32)

    def init(self, image: npt.NDArray[np.uint8], xyxy: npt.ArrayLike, /) -> None:
        self._box = clip_boxes(xyxy, (image.shape[0], image.shape[1]))
        x1, y1, x2, y2 = (round(float(v)) for v in self._box)
        self._tracker.init(image, (x1, y1, max(1, x2 - x1), max(1, y2 - y1)))

    def update(self, image: npt.NDArray[np.uint8], /) -> Track:
        found, (x, y, w, h) = self._tracker.update(image)
        if found:
            self._box = np.array([x, y, x + w, y + h], np.float32)
        return Track(self._box, float(found), "tracking" if found else "lost")


def opencv_trackers() -> dict[str, Callable[[], Tracker]]:
    """OpenCV's trackers that need no model file: MIL, and KCF and CSRT of the contrib wheel, as far as installed."""
    found: dict[str, Callable[[], Tracker]] = {}
    for name in ("MIL", "KCF", "CSRT"):
        kind = getattr(cv2, f"Tracker{name}", None)
        create = getattr(kind, "create", None) or getattr(cv2, f"Tracker{name}_create", None)
        if create is not None:
            found[name] = lambda create=create: _OpenCVTracker(create)  # type: ignore[misc]
    return found
