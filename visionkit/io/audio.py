"""The sound of a source carried into an annotated video, packet by packet where the container allows it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Self

from visionkit.io.text import safe_text

__all__ = ["AudioTrack"]

# What players find in these containers; FFmpeg would also write some that browsers do not play.
COPIED = {
    "mp4": frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"}),
    "mov": frozenset({"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le"}),
    "webm": frozenset({"opus", "vorbis"}),
    "avi": frozenset({"mp3", "ac3", "pcm_s16le"}),
}
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)


class AudioTrack:
    """One audio stream read from a file and written to an open PyAV container, between two times of the source.

    Times handed in count from the first picture, which `begin()` places on the source's clock.
    """

    def __init__(
        self, source: Any, container: Any, range_ms: tuple[float | None, float | None], notes: list[str]
    ) -> None:
        self._source = source
        self._input = source.streams.audio[0]
        self._container = container
        self._range_ms = range_ms
        self._notes = notes
        self._negative = container.format.name in {"mp4", "mov"}
        self._origin_ms = 0.0
        self._packets: Any = None
        self._held: Any = None
        name = self._input.codec_context.name
        allowed = COPIED.get(container.format.name)
        if allowed is None or name in allowed:
            self.how = "copied"
            self._output = container.add_stream_from_template(self._input)
            self._resampler: Any = None
        else:
            self.how = "transcoded"
            self._output, self._resampler = self._encoder()

    @classmethod
    def open(
        cls, path: Path, container: Any, range_ms: tuple[float | None, float | None], notes: list[str]
    ) -> Self | None:
        """The track of `path`'s first audio stream in `container`; None, with a note if something is wrong, without."""
        import av

        source = None
        try:
            # Only local bytes: a playlist must not reach the network or another file through here.
            source = av.open(os.path.abspath(path), options={"protocol_whitelist": "file"})  # noqa: PTH100
            if not source.streams.audio:
                source.close()
                return None
            return cls(source, container, range_ms, notes)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            if source is not None:
                source.close()
            notes.append(f"the sound was left out: {safe_text(error)}")
            return None

    def _encoder(self) -> tuple[Any, Any]:
        import av

        context = self._input.codec_context
        webm = self._container.format.name == "webm"
        rate = 48000 if webm else min(AAC_RATES, key=lambda r: (abs(r - context.sample_rate), -r))
        layout = "mono" if context.channels == 1 else "stereo"
        output = self._container.add_stream("libopus" if webm else "aac", rate=rate)
        output.codec_context.layout = layout
        output.codec_context.open(strict=False)
        sample_format = output.codec_context.format.name
        frame_size = output.codec_context.frame_size
        return output, av.AudioResampler(sample_format, layout, rate, frame_size=frame_size)

    def begin(self, origin_ms: float) -> None:
        """Places the first picture at `origin_ms` of the source; sound before it is dropped."""
        self._origin_ms = origin_ms
        start, end = self._range_ms
        self._start_ms = max(0.0, (start if start is not None else origin_ms) - origin_ms)
        self._end_ms = None if end is None else end - origin_ms
        self._seek(origin_ms + self._start_ms)
        self._packets = self._read()
        self._held = next(self._packets, None)

    def advance(self, until_ms: float) -> None:
        """Writes the sound that begins before `until_ms`, so that pictures and sound interleave."""
        self._pump(until_ms if self._end_ms is None else min(until_ms, self._end_ms))

    def finish(self, end_ms: float) -> None:
        """Writes the sound up to the end of the pictures and closes the source."""
        self.advance(end_ms)
        if self._resampler is not None and self._packets is not None:
            self._mux(self._output.encode(None))
        self.close()

    def close(self) -> None:
        """Closes the source; never raises."""
        with contextlib.suppress(Exception):
            self._source.close()

    def _seek(self, time_ms: float) -> None:
        if time_ms > 2000.0:
            with contextlib.suppress(Exception):
                self._source.seek(int((time_ms - 1000.0) / 1000.0 / self._input.time_base), stream=self._input)

    def _read(self) -> Any:
        """Yields (start in ms, packet or frame) of everything that overlaps the kept range."""
        import av

        items = self._source.demux(self._input)
        while True:
            try:
                packet = next(items)
            except StopIteration:
                return
            except (av.error.FFmpegError, OSError) as error:
                self._notes.append(f"the sound ends early: {safe_text(error)}")
                return
            if self._resampler is None:
                yield from self._kept([packet])
            else:
                yield from self._decoded(packet)

    def _decoded(self, packet: Any) -> Any:
        import av

        try:
            frames = packet.decode()
        except av.error.FFmpegError as error:
            note = f"some of the sound could not be decoded: {safe_text(error)}"
            if note not in self._notes:
                self._notes.append(note)
            return
        yield from self._kept(frames)

    def _kept(self, items: list[Any]) -> Any:
        for item in items:
            if item.pts is None:
                continue
            start_ms = float(item.pts * item.time_base * 1000) - self._origin_ms
            length_ms = _length_ms(item)
            # An MP4 plays a packet that begins before 0 from 0 on, and AAC needs the one before to be exact.
            earliest = -2 * length_ms if self._negative and self._start_ms == 0 and self.how == "copied" else -1e-6
            if start_ms - self._start_ms >= earliest:
                yield start_ms, item

    def _pump(self, until_ms: float) -> None:
        while self._held is not None and self._held[0] < until_ms:
            item = self._held[1]
            if self._resampler is None:
                self._copy(item)
            else:
                self._transcode(item)
            self._held = next(self._packets, None)

    def _copy(self, packet: Any) -> None:
        shift = round(self._origin_ms / 1000 / packet.time_base)
        packet.pts -= shift
        packet.dts = packet.pts
        packet.stream = self._output
        self._container.mux_one(packet)

    def _transcode(self, frame: Any) -> None:
        frame.pts -= round(self._origin_ms / 1000 / frame.time_base)
        for resampled in self._resampler.resample(frame):
            self._mux(self._output.encode(resampled))

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            self._container.mux_one(packet)


def _length_ms(item: Any) -> float:
    samples = getattr(item, "samples", None)
    if samples:
        return float(1000 * samples / item.sample_rate)
    return float((item.duration or 0) * item.time_base * 1000)
