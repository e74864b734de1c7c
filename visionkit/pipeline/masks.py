"""Files of a run that segments: masks, and the frames of which the network was least sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import OutputError
from visionkit.pipeline.segment import ENTROPY, SegmentStage
from visionkit.pipeline.sinks import Sink
from visionkit.pipeline.stage import Item

__all__ = ["MaskSink", "UncertainSink"]

BUCKETS = 8  # for each frame that is wanted, so many are held ready
FIRST_BUCKET_MS = 1.0


class MaskSink(Sink):
    """Each frame's classes into `masks/000012.png`: 8 bits, each pixel its class id, with a palette.

    Args:
        stage: whose results are written; its segmenter's palette is taken.
    """

    def __init__(self, stage: SegmentStage) -> None:
        super().__init__("masks")
        self._stage = stage
        self._written = 0

    def process(self, items: Sequence[Item]) -> None:
        """Write the masks, and name them in their rows."""
        from visionkit.io.files import writing_to
        from visionkit.io.indexed_png import indexed_png

        for item in items:
            found = item.results.get(self._stage.name)
            if found is None:
                continue
            name = f"masks/{item.frame.index:06d}.png"
            data = indexed_png(found.class_map.astype(np.uint8, copy=False), self._stage.palette)
            path = self.place(name)
            with writing_to(path):
                path.write_bytes(data)
            item.fields["mask"] = name
            self._written += 1

    def finish(self) -> dict[str, Any] | None:
        """Name the folder, and say how many masks it holds and what their levels mean."""
        if not self._written:
            return None
        return {"file": "masks", "codec": "png", "frames": self._written, "levels": "class id, with a palette"}


@dataclass(slots=True, eq=False)
class _Held:
    """A frame that may be wanted: its pixels as PNG, and what the list says of it."""

    entropy: float
    time: float
    index: int
    pts_ms: float | None
    source: str
    png: bytes


class UncertainSink(Sink):
    """The frames with the highest mean entropy, as they were decoded, into `uncertain/`, with `uncertain/list.jsonl`.

    Neighbouring frames of a video look alike, so those taken lie apart by at least half of what an even spread over the
    video would be. A few frames for each one wanted are held in memory, as PNG, until the end.

    Args:
        count: how many frames.
    """

    def __init__(self, count: int) -> None:
        super().__init__("uncertain")
        if count < 1:
            raise ValueError(f"`count` must be a positive integer. Received: count={count}.")
        self.count = count
        self._width = FIRST_BUCKET_MS
        self._held: dict[int, _Held] = {}
        self._timed = True

    def process(self, items: Sequence[Item]) -> None:
        """Hold a frame that is the least sure of its stretch of time."""
        for item in items:
            entropy: npt.NDArray[np.float32] | None = item.results.get(ENTROPY)
            if entropy is None or item.error is not None:
                continue
            frame = item.frame
            if not self._held:
                self._timed = frame.pts_ms is not None
            time = float(frame.index) if frame.pts_ms is None else frame.pts_ms
            value, place = float(entropy.mean()), self._bucket(time)
            if not self._wanted(place, value):
                continue
            found = _Held(value, time, frame.index, frame.pts_ms, frame.source, _png(frame.image))
            self._held[place] = found
            self._thin()

    def finish(self) -> dict[str, Any] | None:
        """Write the chosen frames, most uncertain first in the list."""
        from visionkit.io.files import writing_to
        from visionkit.io.results import json_line

        chosen = self._chosen()
        if not chosen:
            return None
        lines = []
        for held in chosen:
            name = f"uncertain/{held.index:06d}.png"
            path = self.place(name)
            with writing_to(path):
                path.write_bytes(held.png)
            lines.append(
                json_line(
                    {
                        "file": name,
                        "index": held.index,
                        "pts_ms": held.pts_ms,
                        "source": held.source,
                        "entropy": round(held.entropy, 4),
                    }
                )
            )
        path = self.place("uncertain/list.jsonl")
        with writing_to(path):
            path.write_bytes(b"".join(lines))
        return {"file": "uncertain", "frames": len(chosen), "list": "uncertain/list.jsonl"}

    def _bucket(self, time: float) -> int:
        return int(time // self._width) if self._timed else int(time)

    def _wanted(self, place: int, value: float) -> bool:
        known = self._held.get(place)
        if known is not None:
            return value > known.entropy
        return self._timed or len(self._held) < self.count or value > min(h.entropy for h in self._held.values())

    def _thin(self) -> None:
        """Fewer frames held: images drop the surest, a video doubles its stretches of time."""
        while not self._timed and len(self._held) > self.count:
            self._held.pop(min(self._held, key=lambda place: self._held[place].entropy))
        while self._timed and len(self._held) > BUCKETS * self.count:
            self._width *= 2
            held, self._held = self._held, {}
            for one in held.values():
                place = self._bucket(one.time)
                if place not in self._held or one.entropy > self._held[place].entropy:
                    self._held[place] = one

    def _chosen(self) -> list[_Held]:
        ready = sorted(self._held.values(), key=lambda held: (-held.entropy, held.index))
        if not self._timed or not ready:
            return ready[: self.count]
        times = [held.time for held in ready]
        apart = (max(times) - min(times)) / (2 * self.count)
        chosen: list[_Held] = []
        for held in ready:
            if len(chosen) < self.count and all(abs(held.time - other.time) >= apart for other in chosen):
                chosen.append(held)
        return chosen


def _png(image: npt.NDArray[np.uint8]) -> bytes:
    import cv2

    good, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not good:
        raise OutputError("encode-failed", "an uncertain frame could not be encoded as PNG")
    return data.tobytes()
