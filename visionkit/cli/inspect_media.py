"""`visionkit inspect MEDIA`: what a source says of itself, and with `--count` what it really holds."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from visionkit.cli.text import emit, emit_json, file_size, tell

if TYPE_CHECKING:
    from visionkit.io import MediaInfo, Source

__all__ = ["inspect_media"]

EXIT_DAMAGED = 4
# Containers round times to their own ticks, to milliseconds at the coarsest (Matroska): 33, 33, 34 ms is a steady rate.
STEADY_MS = 2.0


def inspect_media(media: str, *, count: bool, as_json: bool, max_pixels: int) -> int:
    """Tell what a video, an image, a folder or a glob of images really holds.

    Declared numbers are the container's word and may be wrong; `count` decodes every frame and tells the true ones.

    Returns:
        The exit code: 4 where counting met damage.
    """
    from visionkit.io import open_source

    with open_source(media, max_pixels=max_pixels) as source:
        facts = _declared(source.info)
        if count:
            facts |= {"counted": _counted(source)}
        complete = source.report.complete
        summary = source.report.summary()
    if as_json:
        emit_json(facts)
    else:
        for line in _lines(facts):
            emit(line)
    if count and not complete:
        return tell("input-damaged", f"{source.info.name}: {summary}.", EXIT_DAMAGED)
    return 0


def _declared(info: MediaInfo) -> dict[str, Any]:
    """What the source says of itself, as JSON can hold it."""
    facts = asdict(info)
    return {"name": facts.pop("name"), "kind": facts.pop("kind"), **facts, "path": info.name if info.path else None}


def _counted(source: Source) -> dict[str, Any]:
    """What reading every frame finds."""
    times: list[tuple[int, float]] = []
    sizes: dict[tuple[int, int], int] = {}
    for frame in source:
        sizes[frame.size_hw] = sizes.get(frame.size_hw, 0) + 1
        if frame.pts_ms is not None:
            times.append((frame.index, frame.pts_ms))
    report = source.report
    return {
        "frames": report.frames,
        "damaged": report.damaged,
        "skipped": report.skipped,
        "ended_early": report.ended_early,
        "sizes_hw": [{"size_hw": list(size), "frames": frames} for size, frames in sizes.items()],
        **_timing(times),
        "events": report.events,
        "failures": report.failures,
    }


def _timing(times: list[tuple[int, float]]) -> dict[str, Any]:
    """First and last time, and whether frames come at a steady rate; `times` are (index, milliseconds), in order."""
    found: dict[str, Any] = {
        "first_pts_ms": times[0][1] if times else None,
        "last_pts_ms": times[-1][1] if times else None,
    }
    # Only from neighbour to neighbour: where a frame was lost, the gap says nothing about the rate.
    gaps = [after[1] - before[1] for before, after in itertools.pairwise(times) if after[0] == before[0] + 1]
    if gaps:
        found["gap_ms"] = {"smallest": round(min(gaps), 3), "largest": round(max(gaps), 3)}
        found["variable_rate"] = max(gaps) - min(gaps) > STEADY_MS
    return found


def _lines(facts: dict[str, Any]) -> list[str]:
    counted = facts.get("counted")
    rows = [
        ("name", facts["name"]),
        ("kind", facts["kind"]),
        ("container", facts["container"]),
        ("codec", _joined(facts["codec"], facts["pixel_format"])),
        ("size", _size(facts["size_hw"])),
        ("rotated", f"{facts['rotation']}° clockwise, to stand upright" if facts["rotation"] else None),
        ("rate", f"{facts['fps']:.3f} frames/s on average, as declared" if facts["fps"] else None),
        ("duration", f"{facts['duration_ms'] / 1000:.3f} s, as declared" if facts["duration_ms"] else None),
        ("times", "made from the index: the file has none" if facts["timing"] == "synthetic" else None),
        ("frames", _frames(facts["frame_count"], counted)),
        ("sound", "yes" if facts["has_audio"] else "no" if facts["kind"] == "video" else None),
        ("bytes", file_size(facts["size_bytes"]) if facts["size_bytes"] is not None else None),
        ("read with", facts["backend"] or None),
    ]
    if counted is not None:
        rows += _counted_rows(counted)
    return [f"{name:<10}{value}" for name, value in rows if value is not None]


def _counted_rows(counted: dict[str, Any]) -> list[tuple[str, str | None]]:
    rows: list[tuple[str, str | None]] = []
    if "gap_ms" in counted:
        kind = "variable" if counted["variable_rate"] else "steady"
        gap = counted["gap_ms"]
        rows += [
            ("pace", f"{kind}: {gap['smallest']:g} to {gap['largest']:g} ms from frame to frame"),
            ("from, to", f"{counted['first_pts_ms']:.3f} ms, {counted['last_pts_ms']:.3f} ms"),
        ]
    if len(counted["sizes_hw"]) > 1:
        rows += [("sizes", ", ".join(f"{_size(e['size_hw'])}: {e['frames']}" for e in counted["sizes_hw"]))]
    rows += [("damaged", f"{counted['damaged']} frames") if counted["damaged"] else ("damaged", None)]
    rows += [("lost", f"{counted['skipped']} frames") if counted["skipped"] else ("lost", None)]
    rows += [("ends", "early: the data stops before the declared end") if counted["ended_early"] else ("ends", None)]
    rows += [("event", _event(event)) for event in counted["events"]]
    rows += [("failed", f"{failure['name']}: {failure['reason']}") for failure in counted["failures"]]
    return rows


def _event(event: dict[str, Any]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in event.items() if key != "event")
    return f"{event['event']}: {facts}" if facts else str(event["event"])


def _frames(declared: int | None, counted: dict[str, Any] | None) -> str:
    word = "not declared" if declared is None else f"{declared} declared"
    return f"{word} (--count tells the true number)" if counted is None else f"{counted['frames']} decoded, {word}"


def _size(size_hw: Any) -> str | None:
    return None if size_hw is None else f"{size_hw[1]} x {size_hw[0]} (width x height)"


def _joined(*words: str | None) -> str | None:
    return ", ".join(word for word in words if word) or None
