"""The rows of `results.jsonl`: plain values that strict JSON can hold."""

from __future__ import annotations

import math
from typing import Any

from visionkit.pipeline.stage import Item
from visionkit.structures import Track

__all__ = ["to_row", "track_fields"]

DAMAGED = "decode: the decoder complained about this frame; its pixels may be wrong"


def to_row(item: Item) -> dict[str, Any]:
    """The row of one frame: its place in time, its size, its results, and `error` where there is something to say."""
    frame = item.frame
    row: dict[str, Any] = {
        "index": frame.index,
        "pts_ms": _rounded(frame.pts_ms),
        "duration_ms": _rounded(frame.duration_ms),
        "source": frame.source,
        "size_hw": list(frame.size_hw),
    }
    for result in item.results.values():
        if isinstance(result, Track):
            row["track"] = track_fields(result)
    if frame.damaged:
        row["damaged"] = True
    error = item.error or (DAMAGED if frame.damaged else None)
    if error is not None:
        row["error"] = error
    return row


def track_fields(track: Track) -> dict[str, Any]:
    """`xyxy` in pixels (to 1/100), `confidence` and `state`."""
    return {
        "xyxy": [round(float(value), 2) for value in track.xyxy],
        "confidence": round(track.confidence, 4),
        "state": track.state,
    }


def _rounded(time_ms: float | None) -> float | None:
    """Milliseconds to the microsecond; what is not finite is not a time."""
    return round(time_ms, 3) if time_ms is not None and math.isfinite(time_ms) else None
