"""Objects counted where they cross lines and while they are in zones, from detections or from stored rows alike.

The geometry is supervision's (`LineZone`, `PolygonZone`). Coordinates are taken as rows hold them, rounded to
hundredths of a pixel, so that a stored `results.jsonl` gives the counts of the run that wrote it.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from visionkit.errors import UsageError
from visionkit.io.results import PIXEL_DIGITS, class_name
from visionkit.missing import need
from visionkit.structures import Detections

__all__ = ["ANCHORS", "Anchor", "CountPlan", "Counts", "detections_of_row"]

Anchor = Literal["corners", "center", "bottom"]
ANCHORS: tuple[Anchor, ...] = ("corners", "center", "bottom")
Point = tuple[float, float]

FAR = 4  # a zone may reach so many times as far as the frame does; its mask is held in memory
NO_ID = -1


@dataclass(frozen=True)
class CountPlan:
    """Which lines and zones are counted at.

    Args:
        lines: start and end of each, in pixels. Looking from start to end, `in` is what goes from the right hand to the
            left (in the image, with y downwards: upwards over a line from left to right).
        zones: corners of each, at least three.
        line_anchor: what of a box must be across a line: all four `corners`, its `center`, or the middle of its
            `bottom`.
        zone_anchor: what of a box must be in a zone.
    """

    lines: tuple[tuple[Point, Point], ...] = ()
    zones: tuple[tuple[Point, ...], ...] = ()
    line_anchor: Anchor = "corners"
    zone_anchor: Anchor = "bottom"

    def __post_init__(self) -> None:
        for line in self.lines:
            if line[0] == line[1]:
                raise UsageError(
                    "line-too-short", f"A line needs two ends that differ. Received: {_told(line)}, a line of length 0."
                )
        for zone in self.zones:
            if len(zone) < 3 or abs(_area(zone)) < 1:
                raise UsageError(
                    "zone-too-small",
                    f"A zone needs at least three corners around at least one pixel. Received: {_told(zone)}.",
                )
        for name in ("line_anchor", "zone_anchor"):
            if getattr(self, name) not in ANCHORS:
                raise ValueError(f"`{name}` must be one of {', '.join(ANCHORS)}. Received: {getattr(self, name)!r}.")

    def __bool__(self) -> bool:
        return bool(self.lines or self.zones)

    def check(self, size_hw: tuple[int, int]) -> None:
        """Refuse what lies outside of frames of a size.

        Raises:
            UsageError: `line-outside`, `zone-outside`.
        """
        height, width = size_hw
        for kind, shapes in (("line", self.lines), ("zone", self.zones)):
            for points in shapes:
                xs, ys = [x for x, _ in points], [y for _, y in points]
                beside = max(xs) <= 0 or max(ys) <= 0 or min(xs) >= width or min(ys) >= height
                far = max(map(abs, xs)) > FAR * width or max(map(abs, ys)) > FAR * height
                if beside or far:
                    why = "lies outside of" if beside else "reaches far beyond"
                    raise UsageError(
                        f"{kind}-outside",
                        f"The {kind} {_told(points)} {why} the first frame, which is {width} wide and {height} high.",
                    )


@dataclass
class _Zone:
    """What was counted in one zone."""

    region: Any
    inside: int = 0
    most: int = 0
    ids: dict[int, int] = field(default_factory=dict)  # the class each object had when it was first seen there


class Counts:
    """Counts over the frames it is given in order.

    Args:
        plan: lines and zones.
    """

    def __init__(self, plan: CountPlan) -> None:
        need("Counting at lines and in zones", "supervision")
        import supervision
        from supervision import Point, Position

        self._supervision = supervision
        self.plan = plan
        anchors = {
            "corners": (Position.TOP_LEFT, Position.TOP_RIGHT, Position.BOTTOM_LEFT, Position.BOTTOM_RIGHT),
            "center": (Position.CENTER,),
            "bottom": (Position.BOTTOM_CENTER,),
        }
        self._lines = [
            supervision.LineZone(Point(*start), Point(*end), triggering_anchors=anchors[plan.line_anchor])
            for start, end in plan.lines
        ]
        self._zones = [
            _Zone(supervision.PolygonZone(np.rint(zone).astype(np.int64), anchors[plan.zone_anchor]))
            for zone in plan.zones
        ]

    def add(self, detections: Detections) -> None:
        """Count one more frame."""
        boxes = np.array([[round(float(v), PIXEL_DIGITS) for v in box] for box in detections.xyxy]).reshape(-1, 4)
        ids = detections.tracker_id
        if ids is None:
            ids = np.full(len(boxes), NO_ID, np.int64)
        found = self._supervision.Detections(xyxy=boxes, class_id=detections.class_id, tracker_id=ids)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for line in self._lines:
                line.trigger(found)
            for zone in self._zones:
                inside = zone.region.trigger(found)
                zone.inside = int(inside.sum())
                zone.most = max(zone.most, zone.inside)
                for number, class_id in zip(ids[inside], detections.class_id[inside], strict=True):
                    if number != NO_ID:
                        zone.ids.setdefault(int(number), int(class_id))

    def now(self) -> dict[str, list[Any]]:
        """What a frame's row tells: of each line how many went in and out so far, of each zone how many are in it."""
        row: dict[str, list[Any]] = {}
        if self._lines:
            row["lines"] = [{"in": line.in_count, "out": line.out_count} for line in self._lines]
        if self._zones:
            row["zones"] = [{"inside": zone.inside} for zone in self._zones]
        return row

    def summary(self, names: Sequence[str] | Mapping[int, str] | None = None) -> dict[str, Any]:
        """All that was counted, by class names where they are known."""
        lines = [
            {
                "line": [value for point in points for value in point],
                "in": line.in_count,
                "out": line.out_count,
                "in_by_class": _named(line.in_count_per_class, names),
                "out_by_class": _named(line.out_count_per_class, names),
            }
            for points, line in zip(self.plan.lines, self._lines, strict=True)
        ]
        zones = [
            {
                "zone": [value for point in points for value in point],
                "objects": len(zone.ids),
                "objects_by_class": _named(Counter(zone.ids.values()), names),
                "most_at_once": zone.most,
                "inside_at_end": zone.inside,
            }
            for points, zone in zip(self.plan.zones, self._zones, strict=True)
        ]
        anchors = {"line_anchor": self.plan.line_anchor, "zone_anchor": self.plan.zone_anchor}
        return {"lines": lines, "zones": zones, **anchors}


def detections_of_row(row: Mapping[str, Any]) -> Detections | None:
    """The boxes of one row of `results.jsonl`, without masks; None where the frame failed or rows hold no detections.

    An object without a number has -1.
    """
    found: Iterable[Mapping[str, Any]] | None = row.get("detections")
    if found is None:
        return None
    kept = [one for one in found if None not in one["xyxy"]]
    return Detections(
        np.array([one["xyxy"] for one in kept], np.float32).reshape(-1, 4),
        np.array([one["confidence"] or 0.0 for one in kept], np.float32),
        np.array([one["class_id"] for one in kept], np.int64),
        tracker_id=np.array([one.get("tracker_id", NO_ID) for one in kept], np.int64),
    )


def _named(counts: Mapping[Any, int], names: Sequence[str] | Mapping[int, str] | None) -> dict[str, int]:
    """Counts by class name, in the order of class ids; equal names are added up."""
    found: dict[str, int] = {}
    for class_id in sorted(counts, key=lambda one: -1 if one is None else int(one)):
        number = -1 if class_id is None else int(class_id)
        name = class_name(number, names)
        found[name] = found.get(name, 0) + int(counts[class_id])
    return found


def _told(points: Sequence[Point]) -> str:
    return ",".join(f"{value:g}" for point in points for value in point)


def _area(points: Sequence[Point]) -> float:
    x, y = np.array(points, np.float64).T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
