"""Annotated video out: every frame at its own time, the sound kept, a file that appears whole or not at all.

What was measured for the default (libx264 by PyAV 18.1, CRF 23, two cores, real traffic and cartoon clips; frames a
second alone on the machine, CPU milliseconds a frame, megabits a second):

| preset, B-frames | 768x432 | 854x480 | 1280x720 |
|---|---|---|---|
| ultrafast | 1392, 1.3, 0.7 | 886, 2.1, 4.0 | 343, 4.2, 5.8 |
| superfast, none (taken) | 785, 2.3, 1.0 | 685, 2.8, 1.5 | 265, 5.5, 2.0 |
| superfast, 3 | 658, 2.7, 0.8 | 523, 3.2, 1.2 | 217, 7.1, 2.1 |
| veryfast, none | 558, 2.9, 0.4 | 401, 4.2, 1.1 | 187, 8.2, 1.6 |
| veryfast, 3 | 458, 3.8, 0.3 | 363, 4.5, 0.7 | 152, 10.3, 1.4 |

PSNR differs by under 1 dB, and superfast without B-frames is never the lowest. The conversion to yuv420p takes 0.09 ms
by `cv2.cvtColor` and 0.5 ms by PyAV's `reformat` at 854x480, and is nearer: pure colours come back within 2 against 5.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.errors import OutputError
from visionkit.io.encoder_trials import no_encoder
from visionkit.io.encoders import FORMATS, Encoder, candidates
from visionkit.io.files import OutputFile, writing_to
from visionkit.io.text import safe_text
from visionkit.io.video_sinks import EncoderRefusedError, OpenCVSink, PyAVSink, check_boxes, count_frames, open_sink

__all__ = ["VideoWriter"]

DEFAULT_FPS = 25.0
JITTER_MS = 1000.0  # a step back of less is a frame out of order; of more, a clock that started again


class VideoWriter:
    """Writes BGR frames as a video whose container is told by the suffix (`.mp4 .mov .mkv .webm .avi`).

    Time: the first frame written is the start of the file; every other one keeps its distance from it, to 1/90000 s
    (`.mkv`, `.webm`: 1 ms), at any frame rate, and is shown until the next. `origin_ms` is the source's time of that
    start. Sound keeps its place relative to the pictures and is cut where the pictures begin and end.

    Size: 4:2:0 pictures have even sides, so an odd one gets one more row or column, a copy of its last.
    `encoded_size_hw` is the size of the file; coordinates do not change.

    The file is built beside the target and renamed onto it by `close()`, after it was read again and its frames were
    counted. Leaving the `with` block by an exception, or `abort()`, removes it.

    Args:
        path: the target.
        size_hw: height and width of every frame.
        codec: `auto` or one of `h264 h265 vp9 av1 mpeg4 mjpeg`. `auto` takes the first that works; `notes` says when
            that was not H.264.
        fps: nominal rate: for frames without a time of their own, and for OpenCV's encoders, which know no other.
        audio_from: file whose first audio stream is kept: packets as they are where the container takes them, else
            as AAC (`.webm`: Opus). A file without sound, or with damaged sound, is no error; `notes` tells.
        audio_start_ms: drop sound before this time of the source, if the pictures begin earlier.
        audio_end_ms: drop sound after this time of the source.
        overwrite: replace an existing file, once the new one is complete.
        inputs: files that must not be the target; `audio_from` is one without saying.
        preset: libx264's preset in place of `superfast`.

    Attributes:
        codec, encoder, backend: what really writes: `h264`, `libx264`, `pyav`.
        frames: how many were written.
        audio: `copied`, `transcoded` or None.
        notes: what a user may want to know: a fallback, sound that could not be kept, times that had to be moved.

    Raises:
        ValueError: a size, a rate or a frame that cannot be meant.
        UsageError: `unknown-codec`, `unknown-container`, `codec-container`, `output-is-input`.
        OutputError: `no-encoder`, `exists`, `output-is-symlink`, `output-unwritable`, `disk-full`, `encode-failed`,
            `verify-failed`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        size_hw: tuple[int, int],
        codec: str | Encoder = "auto",
        fps: float | None = None,
        audio_from: str | os.PathLike[str] | None = None,
        audio_start_ms: float | None = None,
        audio_end_ms: float | None = None,
        overwrite: bool = False,
        inputs: Iterable[str | os.PathLike[str]] = (),
        preset: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.size_hw = _checked_size(size_hw)
        self.encoded_size_hw = (self.size_hw[0] + self.size_hw[0] % 2, self.size_hw[1] + self.size_hw[1] % 2)
        self.fps = _checked_fps(fps)
        self.frames = 0
        self.origin_ms: float | None = None
        self.audio: str | None = None
        self.notes: list[str] = []
        self._audio_from = None if audio_from is None else Path(audio_from)
        self._audio_range_ms = (audio_start_ms, audio_end_ms)
        self._shift_ms = 0.0
        self._last_ticks = -1
        self._end_ticks = 0
        self._previous_ms = 0.0
        encoders = [codec] if isinstance(codec, Encoder) else candidates(codec, self.path.suffix)
        sources = [*inputs, *([] if self._audio_from is None else [self._audio_from])]
        self._file = OutputFile(self.path, overwrite=overwrite, inputs=sources)
        self._sink: PyAVSink | OpenCVSink | None = None
        try:
            self._open(encoders, codec, preset)
        except BaseException:
            self.abort()
            raise

    def _open(self, encoders: list[Encoder], wanted: str | Encoder, preset: str | None) -> None:
        refusals: list[str] = []
        for encoder in encoders:
            if preset is not None and encoder.name == "libx264":
                encoder = _with_preset(encoder, preset)
            try:
                with writing_to(self.path):
                    self._sink = open_sink(
                        encoder, self._file.temporary, self.path.suffix.lower(), self.encoded_size_hw, self.fps
                    )
            except EncoderRefusedError as error:
                self._file.check_room()
                refusals.append(safe_text(error))
                continue
            self.codec, self.encoder, self.backend = encoder.codec, encoder.name, encoder.backend
            if refusals:
                self.notes.append(f"video is written as {encoder.codec} by {encoder.name} ({'; '.join(refusals)})")
            if encoder.backend == "opencv":
                self.notes.append(f"OpenCV writes a constant {self.fps:g} frames a second, and no sound")
            self._open_audio()
            return
        if isinstance(wanted, Encoder):
            raise OutputError("no-encoder", "; ".join(refusals))
        raise no_encoder(wanted, self.path.suffix, refusals)

    def _open_audio(self) -> None:
        if self._audio_from is None or not isinstance(self._sink, PyAVSink):
            return
        from visionkit.io.audio import AudioTrack

        self._sink.audio = AudioTrack.open(self._audio_from, self._sink.container, self._audio_range_ms, self.notes)
        self.audio = None if self._sink.audio is None else self._sink.audio.how

    def write(
        self, image: npt.NDArray[np.uint8], pts_ms: float | None = None, duration_ms: float | None = None
    ) -> None:
        """Appends one frame.

        Args:
            image: uint8 (H, W, 3) BGR of `size_hw`; any strides. It is not kept.
            pts_ms: its time in the source; None follows the previous frame. Time that steps back is moved on: a frame
                out of order to one tick after its predecessor, a clock that started again to where the last stopped.
            duration_ms: how long it is shown if it is the last; None takes one nominal frame.
        """
        sink = self._sink
        if sink is None:
            raise ValueError("the writer is closed")
        picture = self._picture(image)
        length_ms = duration_ms if duration_ms is not None and duration_ms > 0 else 1000.0 / self.fps
        ticks = self._place(pts_ms, length_ms, sink.ticks_per_ms)
        duration = max(1, round(length_ms * sink.ticks_per_ms))
        with self._failures():
            sink.write(picture, ticks, duration)
        self._last_ticks, self._end_ticks = ticks, ticks + duration
        self.frames += 1

    def _picture(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != (*self.size_hw, 3):
            got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise ValueError(f"`image` must be uint8 {(*self.size_hw, 3)} BGR. Received: {got}.")
        bottom, right = (full - side for full, side in zip(self.encoded_size_hw, self.size_hw, strict=True))
        if bottom or right:
            return np.asarray(cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE), np.uint8)
        return np.ascontiguousarray(image)

    def _place(self, pts_ms: float | None, length_ms: float, ticks_per_ms: float) -> int:
        """The tick at which the next frame is shown, always after the last one's."""
        if pts_ms is not None and not np.isfinite(pts_ms):
            raise ValueError(f"`pts_ms` must be a finite number of milliseconds. Received: pts_ms={pts_ms}.")
        if self.origin_ms is None:
            self.origin_ms = self._previous_ms = 0.0 if pts_ms is None else float(pts_ms)
            if isinstance(self._sink, PyAVSink) and self._sink.audio is not None:
                self._sink.audio.begin(self.origin_ms)
            return 0
        if pts_ms is None:
            return max(self._end_ticks, self._last_ticks + 1)
        if pts_ms < self._previous_ms - JITTER_MS:
            self._shift_ms = self.origin_ms + self._end_ticks / ticks_per_ms - pts_ms
            self._note("the source's clock started again; its time was carried on in the video")
        self._previous_ms = float(pts_ms)
        ticks = round((pts_ms + self._shift_ms - self.origin_ms) * ticks_per_ms)
        if ticks <= self._last_ticks:
            self._note("frames out of order in time were moved behind their predecessors")
        return max(ticks, self._last_ticks + 1)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def close(self) -> Path | None:
        """Completes, verifies and publishes the file; None if no frame was written, for then there is none."""
        sink, self._sink = self._sink, None
        if sink is None:
            return self.path if self.path.exists() else None
        try:
            if not self.frames:
                sink.kill()
                self._file.discard()
                return None
            with self._failures():
                sink.finish(self._end_ticks)
            self._file.sync()
            self._verify(sink.pictures)
            return self._file.publish()
        except BaseException:
            sink.kill()
            self._file.discard()
            raise

    def _verify(self, expected: int) -> None:
        try:
            if FORMATS[self.path.suffix.lower()] in {"mp4", "mov"}:
                check_boxes(self._file.temporary)
            found = count_frames(self._file.temporary)
        except (OSError, ValueError, LookupError) as error:
            raise self._unverified(f"it cannot be read again: {safe_text(error)}") from error
        if found != expected:
            raise self._unverified(f"{found} of {expected} frames are in it")

    def _unverified(self, why: str) -> OutputError:
        self._file.check_room()
        return OutputError(
            "verify-failed", f"'{safe_text(self.path)}' was not written: {why}; is the disk full or failing?"
        )

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Within, what FFmpeg, OpenCV and the system raise becomes an `OutputError`."""
        try:
            with writing_to(self.path):
                yield
        except Exception as error:
            if not isinstance(error, EncoderRefusedError) and not type(error).__module__.startswith("av."):
                raise
            self._file.check_room()
            name = safe_text(self.path)
            raise OutputError("encode-failed", f"cannot encode '{name}': {safe_text(error)}") from error

    def abort(self) -> None:
        """Removes the unfinished file; never raises. After `close()` it does nothing."""
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.kill()
        if sink is not None or not self.frames:
            self._file.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def _checked_size(size_hw: tuple[int, int]) -> tuple[int, int]:
    sides = tuple(size_hw)
    if len(sides) != 2 or not all(isinstance(s, int | np.integer) and 0 < s <= 16384 for s in sides):
        raise ValueError(f"`size_hw` must be two integers from 1 to 16384. Received: size_hw={size_hw!r}.")
    return int(sides[0]), int(sides[1])


def _checked_fps(fps: float | None) -> float:
    if fps is None:
        return DEFAULT_FPS
    if not np.isfinite(fps) or not 0 < fps <= 1000:
        raise ValueError(f"`fps` must be above 0 and at most 1000, or None for {DEFAULT_FPS:g}. Received: fps={fps}.")
    return float(fps)


def _with_preset(encoder: Encoder, preset: str) -> Encoder:
    return Encoder(
        encoder.codec, encoder.name, encoder.backend, encoder.suffixes, {**encoder.options, "preset": preset}
    )
