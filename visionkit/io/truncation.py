"""Whether a file holds all that its container says: by its structure, its index and its declared length."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from visionkit.io.paths import LocalFile
from visionkit.io.text import safe_text

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

__all__ = ["Extent", "declared_frames", "missing_bytes", "missing_index", "sample_codes"]

_END_MESSAGES = ("partial file", "File ended prematurely")
# Containers whose duration field is written by the muxer, not guessed from the last packet or the bit rate.
_DURATION_IS_DECLARED = {"mov", "matroska", "avi", "flv", "asf"}


def declared_frames(video: VideoStream, demuxer: str, size: int) -> int | None:
    """Number of frames the container declares, or None when it does not or it cannot be true."""
    count = video.frames
    if demuxer == "mov" and len(video.index_entries) > 0 and video.frames > 0:
        count = sum(not entry.is_discard for entry in video.index_entries)  # an edit list leaves some out
    if demuxer not in ("mov", "avi", "gif") or not 0 < count <= size:
        return None
    return count


class Extent:
    """How far the file should reach, and how far reading has come.

    Args:
        file: the file.
        demuxer: FFmpeg's name of its format.
        container: opened.
        video: the stream that is decoded.
    """

    def __init__(self, file: LocalFile, demuxer: str, container: InputContainer, video: VideoStream) -> None:
        self._file, self._demuxer = file, demuxer
        self.avi = demuxer == "avi"
        self._expected_ms: float | None = None
        if demuxer in _DURATION_IS_DECLARED and container.duration is not None:
            self._expected_ms = (container.duration + max(container.start_time or 0, 0) * (demuxer != "mov")) / 1000
        self._declared_ms = _tagged_ms(video) if demuxer == "matroska" else None
        # Only these have a whole index before reading starts; entries without bytes are no packets.
        counted = demuxer in ("mov", "avi") and video.frames > 0
        self._indexed = sum(entry.size > 0 for entry in video.index_entries) if counted else 0
        self.restart(container, video)

    def restart(self, container: InputContainer, video: VideoStream) -> None:
        """Begin again with a freshly opened container."""
        self.streams: list[Stream] = [video, *container.streams.audio]
        self._reached_ms = self._video_ms = self._video_longest_ms = 0.0
        self._tick_ms = {stream.index: float((stream.time_base or 0) * 1000) for stream in self.streams}
        self._packets = 0
        self._longest_ms = 0.0
        self._broke_off = False

    def saw_video(self, packet: Packet) -> None:
        """Count a packet of the video stream."""
        if packet.size:
            self._packets += 1
            reach, duration = self._reach(packet)
            self._video_ms = max(self._video_ms, reach)
            self._video_longest_ms = max(self._video_longest_ms, duration)
            self._reached_ms = max(self._reached_ms, reach)
            self._longest_ms = max(self._longest_ms, duration)

    def saw_other(self, packet: Packet) -> None:
        """Note how far a packet of any stream reaches."""
        reach, duration = self._reach(packet)
        self._reached_ms = max(self._reached_ms, reach)
        self._longest_ms = max(self._longest_ms, duration)

    def _reach(self, packet: Packet) -> tuple[float, float]:
        """Where a packet ends and how long it lasts, in milliseconds."""
        pts = packet.pts if packet.pts is not None else packet.dts
        tick = self._tick_ms[packet.stream_index]
        duration = (packet.duration or 0) * tick
        return (0.0 if pts is None else pts * tick + duration), duration

    def past(self, packets: int) -> bool:
        """Whether more than that many packets of the video stream have been seen."""
        return self._packets > packets

    def broke_off(self) -> None:
        """Reading failed and was given up."""
        self._broke_off = True

    @staticmethod
    def is_end_message(message: str) -> bool:
        """Whether a demuxer's message says only that the file ends too soon."""
        return any(part in message for part in _END_MESSAGES)

    @property
    def unknown(self) -> bool:
        """Whether nothing in the file tells where it should end, so that a cut cannot be noticed."""
        return self._expected_ms is None and self._demuxer not in ("mov", "avi", "gif")

    def shortfall(self) -> str | None:
        """Why the file is thought to end early, or None."""
        if self._broke_off:
            return "reading failed again and again"
        if self._packets < self._indexed:
            return f"{self._packets} of {self._indexed} indexed frames were found"
        missing = missing_bytes(self._file, self._demuxer)
        if missing:
            return f"the file is {missing} bytes shorter than its structure says"
        if self._declared_ms is not None and self._video_ms < self._declared_ms - 1.5 * self._video_longest_ms:
            return f"the video ends at {self._video_ms:.0f} ms of {self._declared_ms:.0f} ms declared"
        slack = max(500.0, 3 * self._longest_ms)
        if self._expected_ms is not None and self._reached_ms < self._expected_ms - slack:
            return f"the data ends at {self._reached_ms:.0f} ms of {self._expected_ms:.0f} ms declared"
        return None


def _tagged_ms(video: VideoStream) -> float | None:
    """End of the stream by the tag that Matroska muxers write when they finish, in milliseconds."""
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", video.metadata.get("DURATION", ""))
    return None if match is None else (int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])) * 1000


def missing_index(file: LocalFile) -> bool:
    """Whether an MP4 or MOV file has no `moov` box among its outer boxes."""
    return all(kind != b"moov" for kind, _, _ in _boxes(file))


def sample_codes(file: LocalFile) -> list[str]:
    """Codec codes of the tracks of an MP4 or MOV file, printable; empty for other files."""
    found: list[str] = []
    for kind, start, size in _boxes(file):
        if kind == b"moov" and size < 1 << 26:
            with file.path.open("rb") as handle:
                handle.seek(start)
                data = handle.read(size)
            entries = (match.end() + 12 for match in re.finditer(b"stsd", data))
            found += [safe_text(data[at : at + 4]) for at in entries if len(data) >= at + 4]
    return found


def _boxes(file: LocalFile) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, size) of the outer boxes of an ISO base media file, as far as they can be followed."""
    with file.path.open("rb") as handle:
        start = 0
        for _ in range(100_000):
            handle.seek(start)
            head = handle.read(16)
            if len(head) < 8:
                return
            size = int.from_bytes(head[:4], "big")
            if size == 1 and len(head) == 16:
                size = int.from_bytes(head[8:16], "big")
            elif size == 0:
                size = file.size - start
            if size < 8:
                return
            yield head[4:8], start, size
            start += size


def missing_bytes(file: LocalFile, demuxer: str) -> int:
    """By how many bytes the outer structure reaches past the end of the file."""
    end = 0
    if demuxer == "mov":
        end = max((start + size for kind, start, size in _boxes(file) if kind.isalnum()), default=0)
    elif demuxer == "avi":
        end = _riff_end(file)
    elif demuxer == "matroska":
        end = _segment_end(file)
    return max(0, end - file.size)


def _riff_end(file: LocalFile) -> int:
    """Where the RIFF chunks of an AVI file say they end."""
    end = 0
    with file.path.open("rb") as handle:
        while end < file.size:
            handle.seek(end)
            head = handle.read(8)
            if len(head) < 8 or head[:4] != b"RIFF":
                return end
            size = int.from_bytes(head[4:], "little")
            if size in (0, 0xFFFFFFFF):  # never written: the recording was not finished
                return end
            end += 8 + size + (size & 1)
    return end - (end - file.size == 1)


def _segment_end(file: LocalFile) -> int:
    """Where the first Matroska segment says it ends; 0 when its size is unknown."""
    with file.path.open("rb") as handle:
        head = handle.read(4096)
    header, at = _vint(head, 4)
    start = at + (header or 0)
    if header is None or head[start : start + 4] != b"\x18\x53\x80\x67":
        return 0
    size, at = _vint(head, start + 4)
    return 0 if size is None else at + size


def _vint(data: bytes, at: int) -> tuple[int | None, int]:
    """EBML size at `at` and the offset after it; None for an unknown or unreadable size."""
    if at >= len(data) or data[at] == 0:
        return None, at
    length = 9 - data[at].bit_length()
    raw = int.from_bytes(data[at : at + length], "big")
    bits = 7 * length
    value = raw & ((1 << bits) - 1)
    return (None if value == (1 << bits) - 1 else value), at + length
