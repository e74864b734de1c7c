"""The two ways to put encoded pictures into a file: PyAV (any time stamps, sound) and OpenCV (constant rate only)."""

from __future__ import annotations

import contextlib
import os
import struct
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.io.encoders import FORMATS, Encoder
from visionkit.io.opencv_log import quiet_opencv

if TYPE_CHECKING:
    from visionkit.io.audio import AudioTrack

__all__ = ["EncoderRefusedError", "OpenCVSink", "PyAVSink", "Sink", "check_boxes", "count_frames", "open_sink"]

# H.273 code points. OpenCV's conversion is BT.601, limited range; said so in the stream, OpenCV, PyAV and Chromium give
# pure colours back within 2 of 255 at any size (untagged, Chromium takes 720 lines and more for BT.709: off by 40).
BT601_MATRIX = 6
BT709_PRIMARIES = 1
BT709_TRANSFER = 1
LIMITED_RANGE = 1


class EncoderRefusedError(Exception):
    """This encoder is absent or does not take the size, the container or the frame; the message says why."""


class Sink(Protocol):
    """An open file that takes pictures in order. Ticks are `1 / ticks_per_ms` milliseconds."""

    ticks_per_ms: float
    pictures: int  # how many the file must hold in the end

    def write(self, image: npt.NDArray[np.uint8], ticks: int, duration: int) -> None: ...
    def finish(self, end_ticks: int) -> None: ...
    def kill(self) -> None: ...


def open_sink(encoder: Encoder, path: Path, suffix: str, size_hw: tuple[int, int], fps: float) -> PyAVSink | OpenCVSink:
    """An open sink writing `path` as a `suffix` file.

    Raises:
        EncoderRefusedError: this machine has no such encoder, or it does not take these frames.
        OSError: the file cannot be written.
    """
    kind = PyAVSink if encoder.backend == "pyav" else OpenCVSink
    return kind(encoder, path, suffix, size_hw, fps)


class PyAVSink:
    """Encodes with one of FFmpeg's encoders. Encoding and conversion release the GIL."""

    def __init__(self, encoder: Encoder, path: Path, suffix: str, size_hw: tuple[int, int], fps: float) -> None:
        try:
            import av
        except ImportError as error:
            raise EncoderRefusedError(f"{encoder.name}: PyAV is not installed (pip install av)") from error
        self._av = av
        self.pictures = 0
        self.audio: AudioTrack | None = None
        # Matroska and WebM count in milliseconds, whatever one asks for.
        clock = 1000 if suffix in {".mkv", ".webm"} else encoder.clock
        self.ticks_per_ms = clock / 1000
        self._time_base = Fraction(1, clock)
        self._durations: dict[int, int] = {}
        if encoder.name == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")  # else it prints thirty lines on stderr
        with _refusals(encoder):
            codec = av.codec.Codec(encoder.name, "w")
        options = {"movflags": "+faststart"} if FORMATS[suffix] in {"mp4", "mov"} else {}
        self.container = av.open(os.fspath(path), "w", format=FORMATS[suffix], options=options)
        try:
            with _refusals(encoder):
                self._stream = self._add_stream(codec.name, encoder, size_hw, fps)
                self._stream.codec_context.open(strict=False)
        except BaseException:
            self.kill()
            raise

    def _add_stream(self, name: str, encoder: Encoder, size_hw: tuple[int, int], fps: float) -> Any:
        rate = Fraction(fps).limit_denominator(1001)
        stream: Any = self.container.add_stream(name, rate=rate, options=dict(encoder.options))
        stream.height, stream.width = size_hw
        context = stream.codec_context
        context.pix_fmt = "yuv420p"
        context.time_base = self._time_base
        context.gop_size = max(12, round(4 * fps))  # a key frame every four seconds, to seek by
        # Half of the cores: an encoder works beside a decoder and a network. On two cores a run then takes 1.07 to 1.15
        # times its bound, with all cores 1.17 to 1.20 (benchmarks/pipeline_overlap.py).
        context.thread_count = max(1, (os.cpu_count() or 1) // 2)
        context.colorspace, context.color_range = BT601_MATRIX, LIMITED_RANGE
        context.color_primaries, context.color_trc = BT709_PRIMARIES, BT709_TRANSFER
        if encoder.tag:
            context.codec_tag = encoder.tag
        return stream

    def write(self, image: npt.NDArray[np.uint8], ticks: int, duration: int) -> None:
        """Encodes one picture, uint8 BGR of even sides, shown from `ticks` for `duration`."""
        yuv = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), np.uint8)  # (H * 3 / 2, W)
        frame = self._av.VideoFrame.from_ndarray(yuv, format="yuv420p")
        frame.pts, frame.time_base, frame.duration = ticks, self._time_base, duration
        frame.colorspace, frame.color_range = BT601_MATRIX, LIMITED_RANGE
        self._durations[ticks] = duration
        self.pictures += 1
        self._mux(self._stream.encode(frame))
        if self.audio is not None:
            self.audio.advance(ticks / self.ticks_per_ms)

    def finish(self, end_ticks: int) -> None:
        """Writes what the encoder still holds, the sound up to `end_ticks`, and the index."""
        self._mux(self._stream.encode(None))
        if self.audio is not None:
            self.audio.finish(end_ticks / self.ticks_per_ms)
        self.container.close()

    def kill(self) -> None:
        """Closes everything without caring for the file; never raises."""
        if self.audio is not None:
            self.audio.close()
        with contextlib.suppress(Exception):
            self.container.close()

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            # Without a duration of its own the last packet would be shown for no time at all.
            packet.duration = self._durations.pop(packet.pts, packet.duration)
            self.container.mux_one(packet)


class OpenCVSink:
    """Encodes with OpenCV, which knows only a constant rate: a picture is repeated until the next one is due."""

    audio = None

    def __init__(self, encoder: Encoder, path: Path, suffix: str, size_hw: tuple[int, int], fps: float) -> None:
        self.pictures = 0
        self.ticks_per_ms = 90.0
        self._ticks_per_slot = 90000.0 / fps
        self._last: npt.NDArray[np.uint8] | None = None
        four = cv2.VideoWriter.fourcc(*encoder.name)
        # Bytes, for OpenCV dies of a name that is not UTF-8.
        with quiet_opencv():
            self._writer = cv2.VideoWriter(os.fsencode(path), cv2.CAP_FFMPEG, four, fps, size_hw[::-1])  # type: ignore[call-overload]
        if not self._writer.isOpened():
            raise EncoderRefusedError(f"{encoder.name}: OpenCV cannot open it for {size_hw[1]}x{size_hw[0]} '{suffix}'")

    def write(self, image: npt.NDArray[np.uint8], ticks: int, duration: int) -> None:
        """Shows the previous picture until `ticks`, then writes this one at least once."""
        self._fill(ticks)
        self._put(image)
        self._last = image.copy()

    def _fill(self, ticks: int) -> None:
        while self._last is not None and self.pictures < round(ticks / self._ticks_per_slot):
            self._put(self._last)

    def _put(self, image: npt.NDArray[np.uint8]) -> None:
        if self._writer.write(image) is False:
            raise EncoderRefusedError("OpenCV did not write a frame and does not say why")
        self.pictures += 1

    def finish(self, end_ticks: int) -> None:
        """Shows the last picture until `end_ticks` and writes the index."""
        self._fill(end_ticks)
        self._writer.release()

    def kill(self) -> None:
        """Closes the file whatever it holds."""
        self._writer.release()


def count_frames(path: Path) -> int:
    """How many frames the video at `path` holds, by reading its packets to the end and decoding the first frame.

    Raises:
        OSError, ValueError: it cannot be opened, nothing can be decoded or a packet is marked corrupt.
    """
    try:
        import av
    except ImportError:
        return _count_by_opencv(path)
    with av.open(os.fspath(path)) as container:
        stream = container.streams.video[0]
        count = pictures = 0
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise ValueError(f"packet {count} is corrupt")
            count += packet.size > 0
            if not pictures:
                pictures += len(packet.decode())
        if not pictures:
            raise ValueError("no frame of it can be decoded")
        return count


def check_boxes(path: Path) -> None:
    """Raises ValueError if the MP4 at `path` ends before its last box does, as it may when OpenCV filled the disk."""
    size = path.stat().st_size
    with path.open("rb") as file:
        end = 0
        while end < size:
            file.seek(end)
            length, large = struct.unpack(">I4xQ", file.read(16).ljust(16, b"\0"))
            end += large if length == 1 else length or size
        if end != size:
            raise ValueError(f"it has {size} of {end} bytes")


def _count_by_opencv(path: Path) -> int:
    with quiet_opencv():
        capture = cv2.VideoCapture(os.fsencode(path), cv2.CAP_FFMPEG)  # type: ignore[call-overload]
    try:
        count = 0
        while capture.grab():
            count += 1
        return count
    finally:
        capture.release()


@contextlib.contextmanager
def _refusals(encoder: Encoder) -> Any:
    import av

    try:
        yield
    except (av.error.FFmpegError, av.codec.codec.UnknownCodecError, ValueError) as error:
        absent = isinstance(error, av.codec.codec.UnknownCodecError)
        reason = "not in this PyAV" if absent else getattr(error, "strerror", None) or str(error)
        raise EncoderRefusedError(f"{encoder.name}: {reason}") from error
