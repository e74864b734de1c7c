"""Pictures of a video file through PyAV: threaded while all is well, one packet at a time once something is wrong.

A threaded decoder reports an error late and swallows pictures near it. So the first sign of trouble (an exception, a
logged error, a corrupt packet or picture) ends the fast pass before the picture in question is handed out, and a
careful pass decodes from the start again in one thread, drops what was handed out already, and knows for every error
which packet it belongs to.
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import InputError
from visionkit.io.careful import CarefulDecoder
from visionkit.io.demux import packets_of
from visionkit.io.libav_log import LogWatch, error_count
from visionkit.io.paths import LocalFile
from visionkit.io.picture import Picture, Stream, too_large, turned
from visionkit.io.start_point import BEGINNING, find_start
from visionkit.io.truncation import Extent, declared_frames, missing_index, sample_codes

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["PyavReader"]

_MAX_THREADS = 4


class _TroubleError(Exception):
    """The fast pass met a sign of damage."""


class PyavReader:
    """See `picture.Reader`. One video stream of one local file.

    Args:
        file: the file.
        demuxer: FFmpeg's name of the format, from `probe.sniff`; no other is tried.
        max_pixels: largest picture, in pixels, that is decoded.
        start_ms: pictures before this time need not be handed out.

    Raises:
        InputError: `input-undecodable`, `no-video-stream`, `no-decoder`, `frame-too-large`.
    """

    backend = "pyav"

    def __init__(self, file: LocalFile, demuxer: str, *, max_pixels: int, start_ms: float = 0.0) -> None:
        self._file, self._demuxer, self._max_pixels = file, demuxer, max_pixels
        self.lost_at_end = 0
        self.ended_early = False
        self._events: list[dict[str, Any]] = []
        self._watch = LogWatch()
        self._container: InputContainer | None = None
        self._errors_before = error_count()
        try:
            self._container = self._open()
            self._video = self._stream_of(self._container)
            self._extent = Extent(file, demuxer, self._container, self._video)
            self.stream = self._describe(self._container, self._video)
            self._from = BEGINNING
            if start_ms > 0:
                self._skip_to(start_ms)
        except BaseException:
            self.close()
            raise

    @property
    def first_index(self) -> int:
        """Index in the file of the first picture."""
        return self._from.first_index

    def pictures(self) -> Iterator[Picture]:
        """Pictures in order of presentation."""
        handed_out = 0
        try:
            for picture in self._fast():
                yield picture
                handed_out += 1
        except _TroubleError:
            self._close_container()
            yield from self._careful(handed_out)
        self._finish()

    def events(self) -> list[dict[str, Any]]:
        """Events that belong to no picture."""
        return self._events

    def close(self) -> None:
        """Let go of the file; safe to call twice."""
        self._close_container()
        self._watch.close()

    def _open(self) -> InputContainer:
        import av

        options = {"protocol_whitelist": "file"}
        try:
            return av.open(_url(self._file), format=self._demuxer, container_options=options, metadata_errors="replace")
        except (av.FFmpegError, OSError, UnicodeError) as error:
            raise self._undecodable(error) from None

    def _skip_to(self, start_ms: float) -> None:
        import av

        if self._container is None:
            return
        with contextlib.suppress(av.FFmpegError):
            self._from = find_start(self._container, self._video, self._demuxer, start_ms)
        self._close_container()
        self._container = self._open()
        self._video = self._stream_of(self._container)
        self._extent.restart(self._container, self._video)

    def _undecodable(self, error: Exception) -> InputError:
        reason = _reason(error)
        if self._demuxer == "mov" and missing_index(self._file):
            reason = "its index (the moov box) is missing, so the file was cut short or its recording never finished"
        return InputError(
            "input-undecodable",
            f"{self._file.name} ({self._file.size} bytes) cannot be read as {self._demuxer}: {reason}.",
        )

    def _stream_of(self, container: InputContainer) -> VideoStream:
        from av.stream import Disposition

        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            slug = "no-video-stream" if container.streams else "no-frames"
            raise InputError(slug, f"{self._file.name} has no video stream ({_contents(container)}).")
        if streams[0].codec_context is None:
            codes = ", ".join(sample_codes(self._file)) if self._demuxer == "mov" else "unknown"
            raise InputError(
                "no-decoder",
                f"{self._file.name}: PyAV has no decoder for its video codec (tracks: {codes}); convert it.",
            )
        return streams[0]

    def _describe(self, container: InputContainer, video: VideoStream) -> Stream:
        rate = video.average_rate or video.guessed_rate
        duration = None
        if video.duration is not None and video.time_base is not None:
            duration = float(video.duration * video.time_base * 1000)
        elif container.duration is not None:
            duration = container.duration / 1000
        return Stream(
            codec=video.codec_context.name,
            container=self._demuxer,
            fps=Fraction(rate) if rate else None,
            duration_ms=duration,
            declared=declared_frames(video, self._demuxer, self._file.size),
            has_audio=bool(container.streams.audio),
            pixel_format=video.codec_context.pix_fmt,
        )

    def _prepare(self, video: VideoStream, threads: int) -> None:
        context = video.codec_context
        context.thread_type = "NONE" if threads == 1 else "AUTO"
        context.thread_count = threads
        # The decoder's limit is on coded size, which is padded; the exact one is applied to the decoded size.
        context.options = {"max_pixels": str(int(self._max_pixels * 1.05) + 4096)}

    def _fast(self) -> Iterator[Picture]:
        import av

        if self._container is None:
            raise RuntimeError("The reader is closed.")
        self._prepare(self._video, min(_MAX_THREADS, os.cpu_count() or 1))
        render = _Renderer()
        try:
            for packet in self._demux(self._container, self._video):
                frames = packet.decode() if self._extent.past(self._from.packets) else []
                if error_count() != self._errors_before or packet.is_corrupt:
                    raise _TroubleError
                for frame in frames:
                    if frame.is_corrupt:
                        raise _TroubleError
                    if self._leads(frame):
                        continue
                    yield self._picture(frame, render)
        except av.FFmpegError:
            raise _TroubleError from None

    def _careful(self, handed_out: int) -> Iterator[Picture]:
        self._container = self._open()
        self._video = self._stream_of(self._container)
        self._extent.restart(self._container, self._video)
        self._prepare(self._video, 1)
        render = _Renderer()
        decoder = CarefulDecoder(self._video, self._extent, self._file, self._max_pixels)
        number = 0
        for frame, trouble in decoder.frames(self._container, self._from.packets):
            if self._leads(frame):
                continue
            number += 1
            if number <= handed_out:
                continue
            picture = self._picture(frame, render)
            picture.damaged, picture.lost_before, picture.trouble_before = trouble
            yield picture
        self.lost_at_end = decoder.lost_at_end
        self._events += decoder.events

    def _demux(self, container: InputContainer, video: VideoStream) -> Iterator[Packet]:
        for packet in packets_of(container, self._extent.streams):
            if packet.stream_index == video.index:
                self._extent.saw_video(packet)
                yield packet
            else:
                self._extent.saw_other(packet)

    def _leads(self, frame: VideoFrame) -> bool:
        """Whether the frame is shown before the key frame that decoding began at, and so cannot be right."""
        return self._from.pts is not None and frame.pts is not None and frame.pts < self._from.pts

    def _picture(self, frame: VideoFrame, render: _Renderer) -> Picture:
        height, width = frame.height, frame.width
        if height * width > self._max_pixels:
            raise too_large(self._file.name, height, width, self._max_pixels)
        rotation, mirrored = _upright(frame)
        base = self._video.time_base or Fraction(1, 1000)
        return Picture(
            render=lambda: render(frame, rotation, mirrored),
            size_hw=(width, height) if rotation % 180 else (height, width),
            pts_ms=None if frame.pts is None else frame.pts * base * 1000,
            duration_ms=frame.duration * base * 1000 if frame.duration else None,
            rotation=rotation,
            key=frame.key_frame,
        )

    def _finish(self) -> None:
        shortfall = self._extent.shortfall()
        if shortfall is not None:
            self.ended_early = True
            self._events.append({"event": "ended-early", "reason": shortfall})
        elif self._extent.unknown:
            self._events.append({"event": "declared-length-unavailable"})

    def _close_container(self) -> None:
        if self._container is None:
            return
        # Freeing a decoder waits for its threads with the interpreter locked, and a thread that wants to log waits
        # for the interpreter: flushing first waits unlocked.
        for stream in self._container.streams.video:
            if stream.codec_context is not None:
                stream.codec_context.flush_buffers()
        self._container.close()
        self._container = None


class _Renderer:
    """Converts decoded pictures to upright BGR; keeps the converter's state between them."""

    def __init__(self) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._reformatter = VideoReformatter()
        self._scaling = Interpolation.BICUBIC  # as OpenCV does, so that both backends give the same pixels

    def __call__(self, frame: VideoFrame, rotation: int, mirrored: bool) -> npt.NDArray[np.uint8]:
        shown = self._reformatter.reformat(frame, format="bgr24", interpolation=self._scaling, threads=1)
        image = np.asarray(shown.to_ndarray(), np.uint8)
        return turned(image, rotation, mirrored) if rotation or mirrored else np.ascontiguousarray(image)


def _upright(frame: VideoFrame) -> tuple[int, bool]:
    """(degrees clockwise, mirrored afterwards) that the frame's display matrix asks for; odd angles are ignored."""
    from av.sidedata.sidedata import Type

    matrix = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]  # PyAV's stub
    if matrix is None:
        return 0, False
    values = struct.unpack("=9i", bytes(matrix)[:36])
    a, b, c, d = values[0], values[1], values[3], values[4]
    degrees = math.degrees(math.atan2(b, d))
    quarter = round(degrees / 90)
    if abs(degrees - 90 * quarter) > 1:
        return 0, False
    return quarter % 4 * 90, a * d - b * c < 0


def _url(file: LocalFile) -> str:
    """An address that no part of FFmpeg takes for anything but this file."""
    return "file:" + os.fspath(file.path)


def _reason(error: Exception) -> str:
    import av

    log = getattr(error, "log", None)
    if isinstance(error, av.FFmpegError) and log and log[2].strip():
        return str(log[2]).strip().rstrip(".")
    return str(getattr(error, "strerror", None) or error).rstrip(".")


def _contents(container: av.container.InputContainer) -> str:
    kinds = sorted({stream.type or "unknown" for stream in container.streams})
    return "it holds " + ", ".join(kinds) if kinds else "it is empty"
