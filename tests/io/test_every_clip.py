"""Every real clip gives what a plain decode gives, packet by packet, or a clear error with the right exit code."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from tests.conftest import SHARED
from visionkit.errors import InputError
from visionkit.io import open_source

VIDEO = SHARED / "data" / "video"
NOT_CLIPS = {".json", ".npz", ".tsv", ".txt", ".png"}
CLIPS = sorted(p.relative_to(VIDEO).as_posix() for p in VIDEO.rglob("*") if p.is_file() and p.suffix not in NOT_CLIPS)
BROKEN = {
    "block_ends_beyond_cluster.mkv",
    "blockgroup_block_ends_beyond_blockgroup.mkv",
    "corrupted.mp4",
}


def plain_decode(path: Path) -> list[tuple[float, np.ndarray]]:
    """Time in milliseconds and RGB pixels of every picture that PyAV gives, one packet after the other."""
    found = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            found += [
                (float(f.pts * stream.time_base * 1000), f.to_ndarray(format="bgr24"), f.rotation) for f in frames
            ]
    return [(time, np.rot90(image, rotation // 90)) for time, image, rotation in found]


def test_the_folder_is_not_empty(shared: Path) -> None:
    assert len(CLIPS) >= 28


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_equals_a_plain_decode(name: str, shared: Path) -> None:
    path = VIDEO / name
    expected = plain_decode(path)
    if not expected:
        with pytest.raises(InputError) as caught:
            open_source(path)
        assert caught.value.exit_code == 3
        assert path.name in caught.value.message
        return
    with open_source(path) as source:
        frames = list(source)
    assert [frame.pts_ms for frame in frames] == pytest.approx([time for time, _ in expected], abs=1e-6)
    ten_bit = "10" in (source.info.pixel_format or "")
    for frame, (_, image) in zip(frames, expected, strict=True):
        assert frame.image.shape == image.shape
        if not ten_bit:  # PyAV's default scaling differs there from OpenCV's, which we follow
            assert np.array_equal(frame.image, image), frame.index
    assert source.report.complete == (path.name not in BROKEN), source.report.summary()
    assert source.report.frames == len(expected)


@pytest.mark.parametrize(
    ("name", "slug"),
    [("av1_video.mkv", "no-decoder"), ("invalid_vp9_bitstream-bug_1416.webm", "frame-too-large")],
)
def test_what_opencv_cannot_read_is_refused(name: str, slug: str, shared: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_source(VIDEO / name, backend="opencv")
    assert caught.value.slug == slug


@pytest.mark.parametrize("name", sorted({*CLIPS} - {"av1_video.mkv", "invalid_vp9_bitstream-bug_1416.webm"}))
def test_both_backends_agree(name: str, shared: Path) -> None:
    with open_source(VIDEO / name, backend="opencv") as source:
        theirs = list(source)
    with open_source(VIDEO / name, backend="pyav") as source:
        ours = list(source)
    assert len(ours) == len(theirs)
    half_a_frame = 500 / (source.info.fps or 25)  # OpenCV tells the time of the first frame in whole frames
    offsets = [a.pts_ms - b.pts_ms for a, b in zip(ours, theirs, strict=True)]
    assert max(map(abs, offsets)) <= half_a_frame
    assert max(offsets) - min(offsets) < 1e-3
    for a, b in zip(ours, theirs, strict=True):
        if not a.damaged:
            assert np.array_equal(a.image, b.image), a.index


def test_the_damaged_clip_is_read_past_its_damage(shared: Path) -> None:
    with open_source(VIDEO / "corrupted.mp4") as source:
        frames = list(source)
    assert not source.report.complete
    assert source.report.skipped == 1
    assert [frame.index for frame in frames] == [*range(30), *range(31, 50)]
    assert not any(frame.damaged for frame in frames[:29])
    assert {"event": "gap", "index": 30, "frames": 1, "from_ms": 2900.0, "to_ms": 3100.0} in source.report.events


def test_pixels_are_the_published_references(shared: Path) -> None:
    references = np.load(VIDEO / "reference_frames_rgb.npz")
    clips = {"av1_video_mkv": "av1_video.mkv", "h265_video_mp4": "h265_video.mp4", "nasa_13013_mp4": "nasa_13013.mp4"}
    seen = 0
    for key, name in clips.items():
        wanted = {int(entry.split("frame")[-1]): entry for entry in references.files if entry.startswith(key)}
        with open_source(VIDEO / name) as source:
            for frame in source:
                if frame.index in wanted:
                    assert np.array_equal(frame.image[:, :, ::-1], references[wanted[frame.index]])
                    seen += 1
    assert seen == len(references.files)


def test_times_are_the_published_ones(shared: Path) -> None:
    listed = json.loads((VIDEO / "nasa_13013.mp4.stream0.all_frames_info.json").read_text())
    with open_source(VIDEO / "nasa_13013.mp4") as source:
        found = [(frame.pts_ms, frame.duration_ms) for frame in source]
    expected = [(float(entry["pts_time"]) * 1000, float(entry["duration_time"]) * 1000) for entry in listed]
    assert np.allclose(found, expected, rtol=0, atol=1e-6)
