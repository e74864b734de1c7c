"""Decoding past damage: one packet after the other, each error tied to its packet, losses counted, doubt marked."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from visionkit.io.demux import packets_of
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
_AHEAD = 3
_AVI_HEAD = 8  # an AVI index points at a chunk's head, a packet at its data
_NEAR = 8  # packets around a complaint within which a hole in time is held to be lost pictures
_REACH = 32  # packets around a complaint within which a packet without a picture counts as lost

Key = tuple[int, int]  # (how often the container's clock was set back before, pts)


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
        self._epoch, self._dts = 0, -(2**63)
        self._complaints: list[int] = []
        self._excused: set[int] = set()  # packets that only the container calls corrupt, for a reason known
        self._groups: list[tuple[int, Key | None]] = []  # (ordinal, key) of key packets
        self._pending: dict[Key, int] = {}  # ordinals of packets whose picture has not come out
        self._lost: set[Key] = set()  # pictures that will not come, not yet reported
        self._passed: set[Key] = set()  # lost pictures that were reported
        self._messages = 0
        self._places = {entry.pos + _AVI_HEAD: entry.timestamp for entry in video.index_entries} if extent.avi else {}

    def frames(self, container: InputContainer, skip: int = 0) -> Iterator[tuple[VideoFrame, Trouble]]:
        """Each picture in order of presentation, with its trouble; the first `skip` packets are left out."""
        for number, packet, data_lost, joined in _with_joins(self._packets(container)):
            if packet.size and number <= skip:
                continue
            if packet.size:
                self._enter(packet, data_lost, joined)
            for frame in self._decode(packet):
                key = self._key_of(frame)
                # Out of a damaged stretch a picture may come after its time; it has been reported lost by then.
                if key is None or key not in self._passed:
                    yield frame, self._judge(frame, key)
        self.lost_at_end = len(self._lost)

    def _packets(self, container: InputContainer) -> Iterator[tuple[int, Packet, bool]]:
        """Number of each packet of the stream from 1 on, the packet, and whether data was lost before it."""
        import av

        failures = number = 0
        data_lost = False
        packets = packets_of(container, self._extent.streams)
        while True:
            with captured_errors() as errors:
                try:
                    packet = next(packets, None)
                except av.FFmpegError as error:
                    failures += 1
                    packets = packets_of(container, self._extent.streams)
                    self._note(str(error))
                    if failures > _MAX_READ_ERRORS:
                        self._extent.broke_off()
                        return
                    continue
            for _, origin, message in errors:
                if not self._extent.is_end_message(message):
                    data_lost = True
                self._note(f"{origin}: {message}")
            if packet is None:
                return
            if packet.stream_index == self._video.index:
                data_lost |= self._replaced(packet)
                self._extent.saw_video(packet)
                number += 1
                yield number, packet, data_lost
                data_lost = False
            else:
                self._extent.saw_other(packet)

    def _replaced(self, packet: Packet) -> bool:
        """Whether the packet was moved to the time its place in an AVI index gives; counted, it comes too early."""
        place = None if packet.pos is None else self._places.get(packet.pos)
        if place is None or packet.dts == place:
            return False
        packet.dts = packet.pts = place
        return True

    def _enter(self, packet: Packet, data_lost: bool, joined: bool) -> None:
        """Take note of a packet about to be decoded."""
        self._ordinal += 1
        if packet.dts is not None:
            self._epoch += packet.dts < self._dts
            self._dts = packet.dts
        key = None if packet.pts is None else (self._epoch, packet.pts)
        if packet.is_keyframe:
            self._groups = [*self._groups[-3:], (self._ordinal, key)]
        if key is not None:
            self._pending[key] = self._ordinal
        if packet.is_corrupt and joined:
            self._excused.add(self._ordinal)
        elif packet.is_corrupt or data_lost:
            self._complaints.append(self._ordinal)

    def _decode(self, packet: Packet) -> list[VideoFrame]:
        import av

        frames: list[VideoFrame] = []
        with captured_errors() as errors:
            try:
                frames = packet.decode()
            except av.FFmpegError:
                if packet.size and packet.pts is not None and not packet.is_discard:
                    self._lost |= {(self._epoch, packet.pts)} - self._passed
                self._complaints.append(self._ordinal)
        if errors:
            self._complaints.append(self._ordinal)
        for _, origin, message in errors:
            self._check_size(message)
            self._note(f"{origin}: {message}")
        return frames

    def _key_of(self, frame: VideoFrame) -> Key | None:
        if frame.pts is None:
            return None
        known = [key for key in self._pending if key[1] == frame.pts]
        return min(known, default=(self._epoch, frame.pts))

    def _judge(self, frame: VideoFrame, key: Key | None) -> Trouble:
        ordinal = self._ordinal if key is None else self._pending.pop(key, self._ordinal)
        if frame.is_corrupt and ordinal not in self._excused:
            self._complaints.append(ordinal)
        self._complaints = self._complaints[-_MEMORY:]
        start = self._group_start(ordinal, key)
        damaged = any(start <= complaint <= ordinal for complaint in self._complaints)
        lost = 0 if key is None else self._lost_before(key, ordinal)
        near = any(-_NEAR < ordinal - complaint < _NEAR for complaint in self._complaints)
        return Trouble(damaged, lost, near)

    def _group_start(self, ordinal: int, key: Key | None) -> int:
        """The packet with the key frame that a picture may go back to."""
        start = 0
        for number, group in self._groups:
            leading = key is not None and group is not None and key < group
            if number <= ordinal and not leading:
                start = number
        return start

    def _lost_before(self, key: Key, ordinal: int) -> int:
        """How many pictures before this one will not come; a packet without a picture counts near a complaint only."""
        self._lost.discard(key)
        near = {
            k for k, n in self._pending.items() if k < key and any(abs(n - c) < _REACH for c in self._complaints)
        }  # fmt: skip
        lost = {k for k in self._lost if k < key} | near
        self._lost -= lost
        self._passed |= lost
        self._pending = {k: n for k, n in self._pending.items() if n > ordinal - _MEMORY and k not in lost}
        return len(lost)

    def _check_size(self, message: str) -> None:
        match = re.search(r"Picture size (\d+)x(\d+) exceeds", message)
        if match:
            raise too_large(self._file.name, int(match[2]), int(match[1]), self._max_pixels)

    def _note(self, message: str) -> None:
        self._messages += 1
        if self._messages <= _MAX_MESSAGES:
            self.events.append({"event": "decoder-error", "packet": self._ordinal, "message": message.strip()})


def _with_joins(packets: Iterator[tuple[int, Packet, bool]]) -> Iterator[tuple[int, Packet, bool, bool]]:
    """Each packet, whether data was lost before or after it, and whether two recordings were joined just after it.

    Where they were, the clock is set back and a transport stream's counter jumps: the container calls the last packets
    corrupt, which they are not.
    """
    window: deque[tuple[int, Packet, bool]] = deque()
    for item in packets:
        window.append(item)
        if len(window) > _AHEAD:
            yield _joined(window)
            window.popleft()
    while window:
        yield _joined(window)
        window.popleft()


def _joined(window: deque[tuple[int, Packet, bool]]) -> tuple[int, Packet, bool, bool]:
    number, packet, _ = window[0]
    times = [packet.dts for _, packet, _ in window if packet.dts is not None]
    falls_back = any(later < earlier for earlier, later in pairwise(times))
    # The packet before a loss was often cut by it.
    return number, packet, any(lost for _, _, lost in list(window)[:2]), falls_back
