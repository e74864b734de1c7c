"""Decoding past damage: one packet after the other, each error tied to its packet, losses counted, doubt marked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from visionkit.io.libav_log import captured_errors
from visionkit.io.paths import LocalFile
from visionkit.io.picture import too_large
from visionkit.io.truncation import Extent

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["CarefulDecoder", "Trouble"]

_MAX_READ_ERRORS = 20
_MAX_MESSAGES = 20
_MEMORY = 256  # packets; more than any decoder holds back


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
        self._lost: set[int] = set()  # pts of pictures that will not come, not yet reported
        self._passed: set[int] = set()  # pts of lost pictures that were reported
        self._data_lost = False
        self._messages = 0

    def frames(self, container: InputContainer, skip: int = 0) -> Iterator[tuple[VideoFrame, Trouble]]:
        """Each picture in order of presentation, with its trouble; the first `skip` packets are left out."""
        for packet in self._packets(container):
            if not self._extent.past(skip):
                self._data_lost = False
                continue
            if packet.size:
                self._enter(packet)
            for frame in self._decode(packet):
                # Out of a damaged stretch a picture may come after its time; it has been reported lost by then.
                if frame.pts is None or frame.pts not in self._passed:
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
        ordinal = self._ordinal if frame.pts is None else self._pending.pop(frame.pts, self._ordinal)
        if frame.is_corrupt:
            self._complaints.append(ordinal)
        self._complaints = self._complaints[-_MEMORY:]
        start = self._group_start(ordinal, frame.pts)
        damaged = any(start <= complaint <= ordinal for complaint in self._complaints)
        lost = self._lost_before(frame.pts, ordinal)
        data_lost, self._data_lost = self._data_lost, False
        return Trouble(damaged, lost, data_lost)

    def _group_start(self, ordinal: int, pts: int | None) -> int:
        """The packet with the key frame that a picture may go back to."""
        start = 0
        for number, key_pts in self._groups:
            leading = pts is not None and key_pts is not None and pts < key_pts
            if number <= ordinal and not leading:
                start = number
        return start

    def _lost_before(self, pts: int | None, ordinal: int) -> int:
        """How many pictures before this one will not come; a packet without a picture counts near a complaint only."""
        if pts is None:
            return 0
        self._lost.discard(pts)
        near = {p for p, n in self._pending.items() if p < pts and any(abs(n - c) < 32 for c in self._complaints)}
        lost = {p for p in self._lost if p < pts} | near
        self._lost -= lost
        self._passed |= lost
        self._pending = {p: n for p, n in self._pending.items() if n > ordinal - _MEMORY and p not in lost}
        return len(lost)

    def _check_size(self, message: str) -> None:
        match = re.search(r"Picture size (\d+)x(\d+) exceeds", message)
        if match:
            raise too_large(self._file.name, int(match[2]), int(match[1]), self._max_pixels)

    def _note(self, message: str) -> None:
        self._messages += 1
        if self._messages <= _MAX_MESSAGES:
            self.events.append({"event": "decoder-error", "packet": self._ordinal, "message": message.strip()})
