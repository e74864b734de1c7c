"""Decoding past damage: one packet after the other, each error tied to its packet, losses counted, doubt marked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from visionkit.errors import InputError
from visionkit.io.libav_log import captured_errors
from visionkit.io.paths import LocalFile
from visionkit.io.truncation import Extent

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["CarefulDecoder", "Trouble"]

_MAX_READ_ERRORS = 20
_MAX_MESSAGES = 20


class Trouble(NamedTuple):
    """What is wrong with one picture; fields as in `Picture`."""

    damaged: bool
    lost_before: int
    trouble_before: bool


class CarefulDecoder:
    """Frames of a stream whose decoder runs in one thread, with what is wrong with each.

    A picture is damaged when the decoder complained at any packet between the key frame its group starts with and its
    own packet, in order of decoding; pictures shown before that key frame may also lean on the group before.
    """

    def __init__(self, video: VideoStream, extent: Extent, file: LocalFile, max_pixels: int) -> None:
        self._video, self._extent, self._file, self._max_pixels = video, extent, file, max_pixels
        self.lost_at_end = 0
        self.events: list[dict[str, Any]] = []
        self._ordinal = -1
        self._complaints: list[int] = []
        self._groups: list[tuple[int, int | None]] = []  # (ordinal, pts) of key packets
        self._pending: dict[int, int] = {}  # pts -> ordinal of packets whose picture has not come out
        self._lost: set[int] = set()
        self._data_lost = False
        self._messages = 0

    def frames(self, container: InputContainer) -> Iterator[tuple[VideoFrame, Trouble]]:
        """Each picture in order of presentation, with its trouble."""
        for packet in self._packets(container):
            if packet.size:
                self._enter(packet)
            for frame in self._decode(packet):
                yield frame, self._judge(frame)
        self.lost_at_end = len(self._lost)

    def _packets(self, container: InputContainer) -> Iterator[Packet]:
        import av

        failures = 0
        packets = container.demux(*self._extent.streams)
        while True:
            with captured_errors() as errors:
                try:
                    packet = next(packets, None)
                except av.FFmpegError as error:
                    failures += 1
                    packets = container.demux(*self._extent.streams)
                    self._note(str(error))
                    if failures > _MAX_READ_ERRORS:
                        self._extent.broke_off()
                        return
                    continue
            for _, origin, message in errors:
                if not self._extent.is_end_message(message):
                    self._data_lost = True
                self._note(f"{origin}: {message}")
            if packet is None:
                return
            if packet.stream_index == self._video.index:
                self._extent.saw_video(packet)
                yield packet
            else:
                self._extent.saw_other(packet)

    def _enter(self, packet: Packet) -> None:
        self._ordinal += 1
        if packet.is_keyframe:
            self._groups = [*self._groups[-3:], (self._ordinal, packet.pts)]
        if packet.pts is not None:
            self._pending[packet.pts] = self._ordinal
        if packet.is_corrupt or self._data_lost:
            self._complaints.append(self._ordinal)

    def _decode(self, packet: Packet) -> list[VideoFrame]:
        import av

        frames: list[VideoFrame] = []
        with captured_errors() as errors:
            try:
                frames = packet.decode()
            except av.FFmpegError:
                if packet.size and packet.pts is not None and not packet.is_discard:
                    self._lost.add(packet.pts)
                self._complaints.append(self._ordinal)
        if errors:
            self._complaints.append(self._ordinal)
        for _, origin, message in errors:
            self._check_size(message)
            self._note(f"{origin}: {message}")
        return frames

    def _judge(self, frame: VideoFrame) -> Trouble:
        self._lost.discard(-1 if frame.pts is None else frame.pts)
        lost = {pts for pts in self._lost if frame.pts is not None and pts < frame.pts}
        self._lost -= lost
        ordinal = self._pending.pop(frame.pts, None) if frame.pts is not None else None
        if ordinal is None:
            ordinal = self._ordinal
        start = 0
        for number, pts in self._groups:
            leading = pts is not None and frame.pts is not None and frame.pts < pts
            if number <= ordinal and not leading:
                start = number
        if frame.is_corrupt:
            self._complaints.append(ordinal)
        self._complaints = self._complaints[-256:]
        damaged = any(start <= complaint <= ordinal for complaint in self._complaints)
        data_lost, self._data_lost = self._data_lost, False
        self._pending = {pts: number for pts, number in self._pending.items() if number > ordinal - 64}
        return Trouble(damaged, len(lost), data_lost)

    def _check_size(self, message: str) -> None:
        match = re.search(r"Picture size (\d+)x(\d+) exceeds", message)
        if match:
            from visionkit.io.pyav_reader import too_large

            raise too_large(self._file.name, int(match[2]), int(match[1]), self._max_pixels)

    def _note(self, message: str) -> None:
        self._messages += 1
        if self._messages <= _MAX_MESSAGES:
            self.events.append({"event": "decoder-error", "packet": self._ordinal, "message": message.strip()})

    def check_any(self, frames: int) -> None:
        """Raise when nothing came out."""
        if frames == 0:
            raise InputError("no-frames", f"{self._file.name} holds no frame that can be decoded.")
