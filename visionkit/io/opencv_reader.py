"""Pictures of a video file through OpenCV: for machines without PyAV, and to compare with it.

What OpenCV does not tell, this reader cannot: damage inside a picture, a change of size in mid-stream (it rescales to
the first size), sound. The offset of the first frame is known to half a frame only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import InputError
from visionkit.io.opencv_log import quiet_opencv
from visionkit.io.paths import LocalFile
from visionkit.io.picture import Picture, Stream, too_large, turned
from visionkit.io.truncation import missing_bytes, missing_index

__all__ = ["OpencvReader"]

# After damage `grab` fails once for each lost frame and then goes on; at the end it fails for ever.
_MAX_FAILURES = 64
_WITHOUT_TIMES = ("h264", "hevc", "mpegvideo", "obu")
_COUNTS_FRAMES = ("mov", "avi", "gif")


class OpencvReader:
    """See `picture.Reader`.

    Args:
        file: the file.
        demuxer: FFmpeg's name of the format, from `probe.sniff`.
        max_pixels: largest picture, in pixels, that is decoded.

    Raises:
        InputError: `input-undecodable`, `frame-too-large`.
    """

    backend = "opencv"
    first_index = 0

    def __init__(self, file: LocalFile, demuxer: str, *, max_pixels: int) -> None:
        import cv2

        self._file, self._demuxer = file, demuxer
        self.lost_at_end = 0
        self.ended_early = False
        self._events: list[dict[str, Any]] = []
        with quiet_opencv(), _unnamed(file) as name:
            # As bytes: a name that is not UTF-8 crashes OpenCV as a string. One backend: no image sequences.
            self._capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)  # type: ignore[call-overload]
        if not self._capture.isOpened():
            raise self._undecodable()
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        self._rotation = int(self._capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 360 // 90 * 90
        height, width = (int(self._capture.get(p)) for p in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        if height * width > max_pixels:
            self.close()
            raise too_large(file.name, height, width, max_pixels)
        self.stream = self._describe()

    def pictures(self) -> Iterator[Picture]:
        """Pictures in order of presentation."""
        failures, first = 0, True
        start = Fraction(0)
        while failures < _MAX_FAILURES:
            ok, image = self._capture.read()
            if not ok:
                failures += 1
                continue
            if first:
                start = self._start()
            yield self._picture(np.asarray(image, np.uint8), start, 0 if first else failures)
            failures, first = 0, False
        if first:
            raise self._no_frames()
        missing = missing_bytes(self._file, self._demuxer)
        if missing:
            self.ended_early = True
            reason = f"the file is {missing} bytes shorter than its structure says"
            self._events.append({"event": "ended-early", "reason": reason})

    def events(self) -> list[dict[str, Any]]:
        """Events that belong to no picture."""
        return self._events

    def close(self) -> None:
        """Let go of the file; safe to call twice."""
        self._capture.release()

    def _describe(self) -> Stream:
        import cv2

        fps = self._capture.get(cv2.CAP_PROP_FPS)
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        plausible = self._demuxer in _COUNTS_FRAMES and 0 < count <= self._file.size
        rate = Fraction(fps).limit_denominator(100_000) if 0 < fps < 100_000 else None
        code = int(self._capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
        return Stream(
            codec=code.to_bytes(4, "little").decode("ascii", "replace").strip("\0 ").lower(),
            container=self._demuxer,
            fps=rate,
            duration_ms=float(int(count) * 1000 / rate) if plausible and rate else None,
            declared=int(count) if plausible else None,
            has_audio=False,
        )

    def _start(self) -> Fraction:
        """Time of the first frame in milliseconds; OpenCV tells it in whole frames."""
        import cv2

        if self.stream.fps is None:
            return Fraction(0)
        return Fraction(round(self._capture.get(cv2.CAP_PROP_PTS))) * 1000 / self.stream.fps

    def _picture(self, image: npt.NDArray[np.uint8], start: Fraction, lost: int) -> Picture:
        import cv2

        height, width = image.shape[:2]
        time = Fraction(self._capture.get(cv2.CAP_PROP_POS_MSEC)).limit_denominator(1_000_000)
        return Picture(
            render=partial(turned, image, self._rotation),
            size_hw=(width, height) if self._rotation % 180 else (height, width),
            pts_ms=None if self._demuxer in _WITHOUT_TIMES else start + time,
            duration_ms=None,
            rotation=self._rotation,
            lost_before=lost,
        )

    def _undecodable(self) -> InputError:
        reason = "OpenCV does not open it (no video stream, or damaged)"
        if self._demuxer == "mov" and missing_index(self._file):
            reason = "its index (the moov box) is missing, so the file was cut short or its recording never finished"
        return InputError(
            "input-undecodable",
            f"{self._file.name} ({self._file.size} bytes) cannot be read as {self._demuxer}: {reason}.",
        )

    def _no_frames(self) -> InputError:
        return InputError(
            "no-decoder",
            f"{self._file.name}: OpenCV opens it but decodes no frame of its codec ({self.stream.codec}); "
            "use the pyav backend (pip install av).",
        )


@contextlib.contextmanager
def _unnamed(file: LocalFile) -> Iterator[bytes]:
    """A name to open the file by; one that does not look like a numbered pattern, which FFmpeg would fill in."""
    if b"%" not in file.raw:
        yield file.raw
        return
    with file.path.open("rb") as handle:
        yield b"/dev/fd/%d" % handle.fileno()
