"""Sound in the annotated video: there, in step with the pictures, cut where they are."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.io.readback import read_back, sound
from visionkit.io import VideoWriter, open_source

RATE = 48000
SIZE_HW = (96, 128)


def flash_and_beep(path: Path, codec: str, *, offset_ms: int = 0, seconds: float = 4.0) -> Path:
    """A 25 fps clip that flashes white for one frame, and beeps for 40 ms, at each whole second after its start."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"bf": "0"})
        video.height, video.width, video.pix_fmt = *SIZE_HW, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        audio = container.add_stream(codec, rate=RATE, layout="mono")
        audio.codec_context.open(strict=False)
        for i in range(int(25 * seconds)):
            flash = i % 25 == 0 and i > 0
            frame = av.VideoFrame.from_ndarray(np.full((*SIZE_HW, 3), 255 if flash else 0, np.uint8), format="bgr24")
            frame.pts, frame.time_base = 40 * i + offset_ms, Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        time_s = np.arange(int(RATE * seconds)) / RATE
        beep = (time_s % 1 < 0.04) & (time_s >= 0.5)
        wave = (np.sin(2 * np.pi * 1000 * time_s) * beep * 20000).astype(np.int16)
        resampler = av.AudioResampler(
            audio.codec_context.format.name, "mono", RATE, audio.codec_context.frame_size or 1024
        )
        for start in range(0, len(wave), 1024):
            chunk = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="s16", layout="mono")
            chunk.sample_rate, chunk.time_base = RATE, Fraction(1, RATE)
            chunk.pts = start + offset_ms * RATE // 1000
            for resampled in resampler.resample(chunk):
                container.mux(audio.encode(resampled))
        for resampled in resampler.resample(None):
            container.mux(audio.encode(resampled))
        container.mux(audio.encode())
    return path


def annotate(
    source: Path, target: Path, start_ms: float = 0.0, end_ms: float = np.inf, **options: object
) -> VideoWriter:
    with (
        av.open(str(source)) as container,
        VideoWriter(target, size_hw=SIZE_HW, audio_from=source, fps=25, **options) as writer,
    ):
        for frame in container.decode(video=0):
            time = float(frame.pts * frame.time_base * 1000)
            if start_ms <= time < end_ms:
                writer.write(frame.to_ndarray(format="bgr24"), time, 40.0)
    return writer


def flashes_and_beeps(path: Path) -> tuple[list[float], list[float]]:
    got = read_back(path)
    flashes = [t for t, image in zip(got.pts_ms, got.images, strict=True) if image.mean() > 128]
    times, level = sound(path)
    loud = times[level > 0.3]
    return flashes, [float(t) for t in loud[np.diff(loud, prepend=-1000) > 500]]


@pytest.mark.parametrize(
    ("codec", "source", "target", "how", "kept"),
    [
        ("aac", "s.mp4", "t.mp4", "copied", "aac"),
        ("aac", "s.mkv", "t.mov", "copied", "aac"),
        ("aac", "s.mp4", "t.mkv", "copied", "aac"),
        ("libopus", "s.mkv", "t.webm", "copied", "opus"),
        ("libopus", "s.mkv", "t.mp4", "copied", "opus"),
        ("pcm_s16le", "s.mkv", "t.mp4", "transcoded", "aac"),
        ("aac", "s.mp4", "t.webm", "transcoded", "opus"),
    ],
)
@pytest.mark.parametrize(("offset_ms", "range_ms"), [(0, (0, 4000)), (500, (0, 9000)), (0, (1480, 3480))])
def test_sound_stays_in_step(tmp_path, codec, source, target, how, kept, offset_ms, range_ms):
    clip = flash_and_beep(tmp_path / source, codec, offset_ms=offset_ms)
    path = tmp_path / target
    writer = annotate(clip, path, *range_ms)
    assert (writer.audio, writer.notes) == (how, [])
    assert read_back(path).audio_codec == kept
    flashes, beeps = flashes_and_beeps(path)
    expected = [1000.0, 2000.0, 3000.0] if range_ms[0] == 0 else [520.0, 1520.0]
    np.testing.assert_allclose(flashes, expected, rtol=0, atol=0.51)
    # A beep is found where it is a third as loud as it gets: lossy codecs smear that by a few ms. Half a frame of
    # pictures is 20 ms, and losing or doubling one packet of sound shifts it by 20 (Opus) or 21.3 (AAC).
    np.testing.assert_allclose(beeps, expected, rtol=0, atol=8)


def test_sound_ends_with_the_pictures(tmp_path):
    clip = flash_and_beep(tmp_path / "s.mp4", "aac")
    for name in ("t.mp4", "t.webm"):
        annotate(clip, tmp_path / name, 1520.0, 2520.0)
        times, _ = sound(tmp_path / name)
        # What begins inside is kept whole: one packet of AAC is 21.3 ms, and Opus may fill one more of 20.
        assert times[-1] < 1000.0 + (22 if name == "t.mp4" else 42)
        assert times[-1] > 950.0


def test_audio_range_cuts_further(tmp_path):
    clip = flash_and_beep(tmp_path / "s.mp4", "aac")
    annotate(clip, tmp_path / "t.mp4", audio_start_ms=1500.0, audio_end_ms=2500.0)
    flashes, beeps = flashes_and_beeps(tmp_path / "t.mp4")
    np.testing.assert_allclose(flashes, [1000.0, 2000.0, 3000.0], atol=0.02)
    np.testing.assert_allclose(beeps, [2000.0], atol=8)


def test_no_sound_is_no_error(tmp_path):
    silent = tmp_path / "silent.mp4"
    with VideoWriter(silent, size_hw=SIZE_HW) as writer:
        writer.write(np.zeros((*SIZE_HW, 3), np.uint8), 0.0, 40.0)
    writer = annotate(silent, tmp_path / "t.mp4")
    assert (writer.audio, writer.notes) == (None, [])
    assert read_back(tmp_path / "t.mp4").audio_codec is None


def test_sound_that_cannot_be_read_is_left_out_and_told(tmp_path):
    (tmp_path / "s.mp4").write_bytes(b"not a video at all" * 100)
    with VideoWriter(tmp_path / "t.mp4", size_hw=SIZE_HW, audio_from=tmp_path / "s.mp4") as writer:
        writer.write(np.zeros((*SIZE_HW, 3), np.uint8), 0.0, 40.0)
    assert writer.audio is None
    assert "the sound was left out" in writer.notes[0]
    assert read_back(tmp_path / "t.mp4").audio_codec is None


def test_damaged_sound_does_not_stop_the_pictures(tmp_path):
    clip = flash_and_beep(tmp_path / "s.mkv", "aac")
    data = bytearray(clip.read_bytes())
    data = data[: len(data) * 6 // 10]
    clip.write_bytes(data)
    writer = annotate(clip, tmp_path / "t.mp4")
    got = read_back(tmp_path / "t.mp4")
    assert len(got.images) == writer.frames > 40
    assert got.audio_codec == "aac"


def test_real_clips_keep_their_sound(shared, tmp_path):
    for name, codec in (("nasa_13013.mp4", "aac"), ("realshort.mp4", "aac"), ("format_FLV_H264_AAC.video", "aac")):
        source = shared / "data/video" / name
        with av.open(str(source)) as container:
            stream = container.streams.video[0]
            size_hw = (stream.height, stream.width)
            with VideoWriter(tmp_path / "t.mp4", size_hw=size_hw, audio_from=source, overwrite=True) as writer:
                for frame in container.decode(stream):
                    writer.write(frame.to_ndarray(format="bgr24"), float(frame.pts * frame.time_base * 1000), 33.0)
        assert (writer.audio, writer.notes) == ("copied", [])
        times, _ = sound(tmp_path / "t.mp4")
        got = read_back(tmp_path / "t.mp4")
        assert got.audio_codec == codec
        assert times[-1] == pytest.approx(got.pts_ms[-1], abs=100)


@pytest.mark.parametrize("backend", ["opencv", "pyav"])
@pytest.mark.parametrize(("name", "offset_ms"), [("s.mp4", 0), ("s.mp4", 480), ("s.mkv", 480), ("s.ts", 480)])
@pytest.mark.parametrize(("start_s", "expected"), [(None, [1000, 2000, 3000]), (1.72, None)])
def test_what_the_reader_gives_stays_in_step(tmp_path, backend, name, offset_ms, start_s, expected):
    # Offsets are whole frames, for OpenCV tells the start of a stream in nothing finer.
    clip = flash_and_beep(tmp_path / name, "aac", offset_ms=offset_ms)
    with open_source(clip, backend=backend, start_s=start_s) as source:
        size_hw, path = source.info.size_hw, tmp_path / "t.mp4"
        with VideoWriter(path, size_hw=size_hw, audio_from=clip, fps=source.info.fps) as writer:
            for frame in source:
                writer.write(frame.image, frame.pts_ms, frame.duration_ms)
    flashes, beeps = flashes_and_beeps(path)
    if expected is not None:
        np.testing.assert_allclose(flashes, expected, rtol=0, atol=0.51)
    assert len(flashes) >= 1
    np.testing.assert_allclose(beeps, flashes, rtol=0, atol=8)
