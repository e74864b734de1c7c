"""Frames of a video file: in order, upright, with true times, and with an honest account of what was lost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, Self

from visionkit.errors import InputError, UsageError
from visionkit.io.paths import LocalFile
from visionkit.io.picture import Picture, Reader
from visionkit.io.report import MediaInfo, ReadReport
from visionkit.io.timeline import Placed, Timeline
from visionkit.structures import Frame

__all__ = ["Backend", "Selection", "VideoSource", "open_video"]

Backend = Literal["auto", "opencv", "pyav"]
_MAX_EVENTS = 1000
_GRACE_MS = 0.001


@dataclass(frozen=True, slots=True)
class Selection:
    """Which frames are handed out: those shown from `start_s` up to `end_s`, and of them every `stride`-th.

    Raises:
        UsageError: `bad-range`.
    """

    start_s: float | None = None
    end_s: float | None = None
    stride: int = 1

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise UsageError("bad-range", f"The stride must be at least 1. Received: stride={self.stride}.")
        if self.start_s is not None and self.end_s is not None and not self.start_s < self.end_s:
            raise UsageError(
                "bad-range", f"The start must lie before the end. Received: start={self.start_s}, end={self.end_s}."
            )

    @property
    def start_ms(self) -> float:
        """The first time handed out; a microsecond of grace lets a frame's own time, copied from a result, name it."""
        return -math.inf if self.start_s is None else self.start_s * 1000 - _GRACE_MS

    @property
    def end_ms(self) -> float:
        """The first time not handed out."""
        return math.inf if self.end_s is None else self.end_s * 1000 - _GRACE_MS


def open_video(
    file: LocalFile, demuxer: str, selection: Selection, *, backend: Backend = "auto", max_pixels: int = 100_000_000
) -> VideoSource:
    """The video in `file`, opened, its first frame decoded.

    Args:
        demuxer: FFmpeg's name of the format, by `probe.sniff`.
        backend: `auto` takes PyAV where it is installed, else OpenCV.

    Raises:
        InputError: `input-undecodable`, `no-video-stream`, `no-frames`, `no-decoder`, `frame-too-large`.
    """
    reader = _reader(file, demuxer, backend, max_pixels, selection)
    try:
        return VideoSource(reader, file, selection)
    except BaseException:
        reader.close()
        raise


def _reader(file: LocalFile, demuxer: str, backend: Backend, max_pixels: int, selection: Selection) -> Reader:
    if backend not in ("auto", "opencv", "pyav"):
        raise UsageError("bad-backend", f"The backend must be auto, opencv or pyav. Received: {backend!r}.")
    if backend != "opencv":
        try:
            import av  # noqa: F401
        except ImportError:
            if backend == "pyav":
                raise UsageError("bad-backend", "The backend pyav needs the package av: pip install av.") from None
        else:
            from visionkit.io.pyav_reader import PyavReader

            return PyavReader(file, demuxer, max_pixels=max_pixels, start_ms=selection.start_ms)
    from visionkit.io.opencv_reader import OpencvReader

    return OpencvReader(file, demuxer, max_pixels=max_pixels)


class VideoSource:
    """See `report.Source`."""

    def __init__(self, reader: Reader, file: LocalFile, selection: Selection) -> None:
        self._reader, self._file, self._selection = reader, file, selection
        self._iterating = False
        self.report = ReadReport(declared=reader.stream.declared)
        self._pictures = reader.pictures()
        first = next(self._pictures, None)
        if first is None:
            raise InputError(
                "no-frames",
                f"{file.name} ({file.size} bytes, {reader.stream.codec}) holds no frame that can be decoded.",
            )
        self._first: Picture = first
        self.info = self._info(first)

    def _info(self, first: Picture) -> MediaInfo:
        stream = self._reader.stream
        return MediaInfo(
            kind="video",
            name=self._file.name,
            path=self._file.path,
            size_hw=first.size_hw,
            fps=float(stream.fps) if stream.fps else None,
            duration_ms=stream.duration_ms,
            frame_count=stream.declared,
            codec=stream.codec,
            container=stream.container,
            rotation=first.rotation,
            has_audio=stream.has_audio,
            backend=self._reader.backend,
            timing="synthetic" if first.pts_ms is None else "container",
            pixel_format=stream.pixel_format,
            size_bytes=self._file.size,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; safe to call twice."""
        self._pictures.close() if hasattr(self._pictures, "close") else None
        self._reader.close()

    def __iter__(self) -> Iterator[Frame]:
        if self._iterating:
            raise RuntimeError("A video source can be iterated once; open it again.")
        self._iterating = True
        stream = self._reader.stream
        lossy = stream.container == "mpegts"
        timeline = Timeline(stream.fps, self._reader.first_index, holes_are_losses=lossy)
        try:
            yield from self._select(timeline.place(chain([self._first], self._pictures)))
        finally:
            self.close()

    def _select(self, places: Iterator[Placed]) -> Iterator[Frame]:
        start, end = self._selection.start_ms, self._selection.end_ms
        origin: int | None = None
        size_hw = self._first.size_hw
        for placed in places:
            if placed.pts_ms >= end:
                self.report.finished = True
                return
            if placed.pts_ms < start:
                size_hw = placed.picture.size_hw
                continue
            origin = placed.index if origin is None else origin
            size_hw = self._note(placed, size_hw)
            if (placed.index - origin) % self._selection.stride == 0:
                yield self._frame(placed)
        self._end()

    def _note(self, placed: Placed, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Write down what happened before and at this frame; returns its size."""
        self.report.skipped += placed.lost_before
        self._add(placed.events)
        if placed.picture.size_hw != size_hw:
            self._add(
                [
                    {
                        "event": "resolution-change",
                        "index": placed.index,
                        "pts_ms": float(placed.pts_ms),
                        "from_hw": list(size_hw),
                        "to_hw": list(placed.picture.size_hw),
                    }
                ]
            )
        return placed.picture.size_hw

    def _frame(self, placed: Placed) -> Frame:
        picture = placed.picture
        if picture.damaged:
            self.report.damaged += 1
        else:
            self.report.decoded += 1
        return Frame(
            image=picture.render(),
            index=placed.index,
            pts_ms=float(placed.pts_ms),
            duration_ms=None if placed.duration_ms is None else float(placed.duration_ms),
            source=self._file.name,
            damaged=picture.damaged,
        )

    def _end(self) -> None:
        self.report.skipped += self._reader.lost_at_end
        self.report.ended_early = self._reader.ended_early
        self._add(self._reader.events())
        self.report.finished = True

    def _add(self, events: list[dict[str, Any]]) -> None:
        room = _MAX_EVENTS - len(self.report.events)
        self.report.events += events[: max(0, room)]
