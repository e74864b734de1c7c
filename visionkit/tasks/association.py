"""Detections of consecutive frames given the same number where they are the same object.

Zhang et al., ByteTrack: Multi-object tracking by associating every detection box, ECCV 2022: boxes that the detector is
sure of are matched first, the others only to objects that are still missing. Bewley et al., Simple online and realtime
tracking, ICIP 2016: a Kalman filter of constant velocity, matches by overlap.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from visionkit.missing import need
from visionkit.structures import Detections
from visionkit.tasks.motion import Motion

__all__ = [
    "TRACKER_KINDS",
    "AssociationOptions",
    "Associator",
    "ByteAssociator",
    "LibraryAssociator",
    "TrackerKind",
    "make_associator",
]

Floats = npt.NDArray[np.float64]
TrackerKind = Literal["auto", "own", "bytetrack", "sort", "ocsort"]
TRACKER_KINDS: tuple[TrackerKind, ...] = ("auto", "own", "bytetrack", "sort", "ocsort")
LIBRARY = {"bytetrack": "ByteTrackTracker", "sort": "SORTTracker", "ocsort": "OCSORTTracker"}

RATE = 30.0  # frames a second that the noise and the counts of frames are meant for
NO_ID = -1


@dataclass(frozen=True)
class AssociationOptions:
    """How boxes are joined.

    Args:
        conf: surer boxes are matched first, and begin new objects.
        low: less sure ones continue objects that are missing; those below are not looked at.
        iou: least overlap of a match.
        hits: an object has its number when it was seen in so many frames.
        lost_s: an object that was not seen for so many seconds is given up.
        other_class: factor on the overlap of boxes of different classes, which a detector may take for each other.
    """

    conf: float = 0.25
    low: float = 0.1
    iou: float = 0.2
    hits: int = 2
    lost_s: float = 1.0
    other_class: float = 0.6

    def __post_init__(self) -> None:
        for name in ("conf", "low", "iou", "other_class"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"`{name}` must be from 0 to 1. Received: {name}={value!r}.")
        if self.hits < 1 or not self.lost_s > 0:
            raise ValueError(
                f"`hits` and `lost_s` must be positive. Received: hits={self.hits!r}, lost_s={self.lost_s!r}."
            )


class Associator(Protocol):
    """What gives detections their numbers, called with the frames in order."""

    name: str
    options: AssociationOptions

    def __call__(self, detections: Detections, time_s: float, /) -> Detections:
        """The detections to keep, with `tracker_id` from 1 on, -1 where there is none yet."""

    def reset(self) -> None:
        """Forget what was seen; numbers are not given again."""


class ByteAssociator:
    """The two-stage matching of ByteTrack over a Kalman filter that knows how much time went by.

    Args:
        options: thresholds.
    """

    name = "own"

    def __init__(self, options: AssociationOptions | None = None) -> None:
        need("Numbering objects over time", "scipy")
        self.options = options or AssociationOptions()
        self._next = 1
        self.reset()

    def reset(self) -> None:
        """Forget what was seen; numbers are not given again."""
        self._motion = Motion()
        self._id = np.zeros(0, np.int64)
        self._class = np.zeros(0, np.int64)
        self._hits = np.zeros(0, np.int64)
        self._seen = np.zeros(0, np.float64)  # when it was last seen, in seconds
        self._time: float | None = None

    def __call__(self, detections: Detections, time_s: float) -> Detections:
        """The detections with their numbers; of those below `conf` only the ones that continue an object.

        Args:
            detections: of one frame, down to `low`.
            time_s: when it is shown; steps back begin anew.
        """
        options = self.options
        if self._time is not None and time_s < self._time:
            self.reset()
        first = self._time is None
        steps = 1.0 if self._time is None else (time_s - self._time) * RATE
        self._time = time_s
        self._keep(time_s - self._seen <= options.lost_s + 1e-9)
        self._motion.predict(steps)
        boxes = detections.xyxy.astype(np.float64)
        ids = np.full(len(boxes), NO_ID, np.int64)
        sure = detections.confidence >= options.conf
        maybe = ~sure & (detections.confidence >= options.low)
        open_tracks = np.ones(len(self._id), bool)
        for candidates, tracks, reach in (
            (sure, open_tracks, 0.0),
            (maybe, open_tracks & (self._id != NO_ID), 0.0),
            (sure, open_tracks, 0.25),  # what is new has no known speed yet: its surroundings too
        ):
            free = np.flatnonzero(candidates & (ids == NO_ID))
            known = np.flatnonzero(tracks & open_tracks)
            for track, box in self._matches(known, free, boxes, detections.class_id, reach, time_s):
                self._update(track, boxes[box], int(detections.class_id[box]), time_s)
                ids[box] = self._id[track] if self._id[track] != NO_ID else -2 - track
                open_tracks[track] = False
        born = np.flatnonzero(sure & (ids == NO_ID))
        ids[ids < NO_ID] = NO_ID
        self._missed(open_tracks)
        self._begin(boxes[born], detections.class_id[born], time_s, known=first)
        if first:
            ids[born] = self._id[len(self._id) - len(born) :]
        keep = sure | (ids != NO_ID)
        return replace(detections, tracker_id=ids)[keep]

    def _matches(
        self,
        tracks: npt.NDArray[np.int64],
        places: npt.NDArray[np.int64],
        boxes: Floats,
        classes: npt.NDArray[np.int64],
        reach: float,
        time_s: float,
    ) -> list[tuple[int, int]]:
        """Pairs (track, box) of the greatest sum of overlaps, each at least `iou`."""
        if not len(tracks) or not len(places):
            return []
        from scipy.optimize import linear_sum_assignment

        there, here = self._motion.boxes()[tracks], boxes[places]
        if reach:
            young = self._hits[tracks] < 3
            grown = np.where(young, np.minimum(1.0, reach * (time_s - self._seen[tracks]) * RATE), 0.0)
            overlap = _iou(_grown(there, grown[:, None])[:, None], _grown(here[None], grown[:, None, None]))
        else:
            overlap = _iou(there[:, None], here[None])
        same = self._class[tracks][:, None] == classes[places][None]
        overlap = np.where(same, overlap, self.options.other_class * overlap)
        overlap[overlap < self.options.iou] = 0.0
        rows, columns = linear_sum_assignment(overlap, maximize=True)
        return [(int(tracks[r]), int(places[c])) for r, c in zip(rows, columns, strict=True) if overlap[r, c] > 0]

    def _update(self, track: int, box: Floats, class_id: int, time_s: float) -> None:
        self._motion.correct(track, box)
        self._hits[track] += 1
        self._class[track] = class_id
        self._seen[track] = time_s
        if self._id[track] == NO_ID and self._hits[track] >= self.options.hits:
            self._id[track] = self._number()

    def _missed(self, open_tracks: npt.NDArray[np.bool_]) -> None:
        """What has no number yet and was not seen again is dropped; others keep their size while they are missing."""
        self._motion.rest(open_tracks)
        self._keep(~(open_tracks & (self._id == NO_ID)))

    def _begin(self, boxes: Floats, classes: npt.NDArray[np.int64], time_s: float, *, known: bool) -> None:
        count = len(boxes)
        at_once = known or self.options.hits == 1
        numbers = [self._number() if at_once else NO_ID for _ in range(count)]
        self._motion.add(boxes)
        self._id = np.concatenate([self._id, np.array(numbers, np.int64)])
        self._class = np.concatenate([self._class, np.asarray(classes, np.int64)])
        self._hits = np.concatenate([self._hits, np.ones(count, np.int64)])
        self._seen = np.concatenate([self._seen, np.full(count, time_s)])

    def _number(self) -> int:
        self._next += 1
        return self._next - 1

    def _keep(self, kept: npt.NDArray[np.bool_]) -> None:
        if kept.all():
            return
        self._motion.keep(kept)
        self._id, self._class, self._hits = self._id[kept], self._class[kept], self._hits[kept]
        self._seen = self._seen[kept]


class LibraryAssociator:
    """A tracker of the `trackers` package (extra `mot`).

    Args:
        kind: `bytetrack`, `sort` or `ocsort`.
        options: those of them that the tracker knows.
    """

    def __init__(self, kind: str, options: AssociationOptions | None = None) -> None:
        import trackers

        self.options, self.name = options or AssociationOptions(), kind
        values: dict[str, Any] = {
            "lost_track_buffer": max(1, round(30 * self.options.lost_s)),
            "frame_rate": RATE,
            "minimum_consecutive_frames": self.options.hits,
            "minimum_iou_threshold": self.options.iou,
            "track_activation_threshold": self.options.conf,
            "high_conf_det_threshold": self.options.conf,
        }
        function = getattr(trackers, LIBRARY[kind])
        known = function.__init__.__code__.co_varnames
        self._tracker = function(**{name: value for name, value in values.items() if name in known})
        self._time: float | None = None
        self._base = self._last = 0

    def reset(self) -> None:
        """Forget what was seen; numbers are not given again."""
        self._tracker.reset()
        self._time, self._base = None, self._last

    def __call__(self, detections: Detections, time_s: float) -> Detections:
        """As `ByteAssociator`."""
        if self._time is not None and time_s <= self._time:
            if time_s < self._time:
                self.reset()
            else:
                time_s = self._time + 1e-3 / RATE
        self._time = time_s
        known = detections.confidence >= self.options.low
        pool = detections[known]
        asked = pool.to_supervision()
        asked.mask = None
        asked.data["place"] = np.arange(len(pool))
        found = self._tracker.update(asked, timestamp=time_s)
        ids = np.full(len(pool), NO_ID, np.int64)
        if len(found):
            numbers = np.asarray(found.tracker_id, np.int64)
            ids[np.asarray(found.data["place"], np.int64)] = np.where(numbers >= 0, numbers + 1 + self._base, NO_ID)
        self._last = max(self._last, int(ids.max(initial=0)))
        keep = (pool.confidence >= self.options.conf) | (ids != NO_ID)
        return replace(pool, tracker_id=ids)[keep]


def make_associator(kind: TrackerKind = "auto", options: AssociationOptions | None = None) -> Associator:
    """What gives numbers: `auto` is ByteTrack of the `trackers` package where it is installed, else our own.

    Raises:
        ValueError: another kind.
        ImportError: a tracker of the package is asked for and the package is not installed.
    """
    if kind not in TRACKER_KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(TRACKER_KINDS)}. Received: kind={kind!r}.")
    if kind == "auto":
        kind = "bytetrack" if importlib.util.find_spec("trackers") is not None else "own"
    return ByteAssociator(options) if kind == "own" else LibraryAssociator(kind, options)


def _grown(boxes: Floats, share: Floats) -> Floats:
    """Boxes (..., 4) larger by a share of their size on each side."""
    sizes = boxes[..., 2:] - boxes[..., :2]
    return np.concatenate([boxes[..., :2] - share * sizes, boxes[..., 2:] + share * sizes], axis=-1)


def _iou(a: Floats, b: Floats) -> Floats:
    lower, upper = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    inter = np.prod(np.maximum(upper - lower, 0), axis=-1)
    areas = [np.prod(np.maximum(x[..., 2:] - x[..., :2], 0), axis=-1) for x in (a, b)]
    union = areas[0] + areas[1] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
