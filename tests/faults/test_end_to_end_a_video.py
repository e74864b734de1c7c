"""Rows A1 to A5, A7 to A9, A11, A12 and A14 through `visionkit track`, each under the common oracle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from tests.faults.oracle import BOX, Outcome, check, command, frame_times_ms, surroundings, track
from tests.io.clips import cut, flip_bits, lie_about_count, numbered, write_clip
from visionkit.io import original_name

COUNT = 100
SIZE_HW = (240, 320)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    images = [numbered(number, SIZE_HW) for number in range(COUNT)]
    return {
        "end": write_clip(folder / "end.mp4", images),
        "faststart": write_clip(folder / "faststart.mp4", images, faststart=True),
        "fragmented": write_clip(folder / "fragmented.mp4", images, fragmented=True),
        "mkv": write_clip(folder / "clip.mkv", images),
        "avi": write_clip(folder / "clip.avi", images, codec="mpeg4"),
        "short": write_clip(folder / "short.mp4", images[:5]),
    }


def times(outcome: Outcome) -> list[float]:
    return [row["pts_ms"] for row in outcome.rows]


@pytest.mark.parametrize("content", [b"", b"not a video\n" * 30, np.random.default_rng(1).bytes(5000)])
def test_a1_nothing_text_and_noise_exit_3(tmp_path, content):
    (tmp_path / "bad.mp4").write_bytes(content)
    outcome = check(track("bad.mp4", folder=tmp_path), 3, "input-undecodable")
    assert "bad.mp4" in outcome.stderr
    assert f"{len(content)} bytes" in outcome.stderr
    assert outcome.seconds < 5


def test_a2_half_an_mp4_with_its_index_at_the_end_exits_3(clips, tmp_path):
    cut(clips["end"], tmp_path / "half.mp4")
    outcome = check(track("half.mp4", folder=tmp_path), 3, "input-undecodable")
    assert "index" in outcome.stderr


def test_a3_half_an_mp4_with_its_index_in_front_exits_4_with_what_is_there(clips, tmp_path):
    cut(clips["faststart"], tmp_path / "half.mp4")
    outcome = check(track("half.mp4", folder=tmp_path), 4)
    assert len(outcome.rows) >= 43
    assert [row["index"] for row in outcome.rows] == list(range(len(outcome.rows)))
    assert outcome.manifest["source"]["ended_early"] is True
    assert outcome.manifest["source"]["declared"] == COUNT
    assert f"decoded {len(outcome.rows)} of {COUNT} declared" in outcome.stderr
    assert "input ends early" in outcome.stderr


@pytest.mark.parametrize("name", ["mkv", "fragmented"])
def test_a4_half_of_other_containers_exits_4(clips, tmp_path, name):
    half = cut(clips[name], tmp_path / f"half{clips[name].suffix}")
    outcome = check(track(half.name, folder=tmp_path), 4)
    assert len(outcome.rows) >= 48
    assert outcome.manifest["source"]["ended_early"] is True


@pytest.mark.parametrize("name", ["faststart", "avi"])
def test_a5_flipped_bits_exit_4_and_cost_one_group_at_most(clips, tmp_path, name):
    bad = flip_bits(clips[name], tmp_path / f"bad{clips[name].suffix}")
    outcome = check(track(bad.name, folder=tmp_path), 4)
    assert len(outcome.rows) >= COUNT - 1
    indices = [row["index"] for row in outcome.rows]
    missing = sorted(set(range(COUNT)) - set(indices))
    gaps = [event for event in outcome.manifest["events"] if event["event"] == "gap"]
    assert [gap["index"] + k for gap in gaps for k in range(gap["frames"])] == missing
    suspect = sorted([*missing, *(row["index"] for row in outcome.rows if row.get("damaged"))])
    assert suspect
    assert suspect[-1] - suspect[0] < 12
    assert times(outcome) == [40.0 * index for index in indices]
    counts = outcome.manifest["counts"]
    assert (counts["seen"], counts["damaged"], counts["skipped"]) == (
        COUNT,
        len(suspect) - len(missing),
        len(missing),
    )


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a7_variable_rate_keeps_every_time(tmp_path, suffix):
    truth = [0, *np.cumsum(np.random.default_rng(7).integers(5, 400, COUNT - 1)).tolist()]
    images = [numbered(number, (96, 128)) for number in range(COUNT)]
    write_clip(tmp_path / f"vfr.{suffix}", images, times_ms=truth)
    outcome = check(track(f"vfr.{suffix}", folder=tmp_path), 0)
    assert times(outcome) == pytest.approx(truth, abs=1)
    assert frame_times_ms(outcome.out / "annotated.mp4") == pytest.approx(truth, abs=1)
    with av.open(str(outcome.out / "annotated.mp4")) as container:
        length_ms = container.duration / 1000
    assert truth[-1] < length_ms <= truth[-1] + 400


@pytest.mark.parametrize("rotation", [90, 180])
def test_a8_rotated_clips_are_alike_on_both_backends_and_upright(tmp_path, rotation):
    write_clip(tmp_path / "turned.mp4", [numbered(n, SIZE_HW) for n in range(5)], rotation=rotation)
    ours = check(track("turned.mp4", "--backend", "pyav", folder=tmp_path, out="a"), 0)
    theirs = check(track("turned.mp4", "--backend", "opencv", folder=tmp_path, out="b"), 0)
    assert ours.rows == theirs.rows
    upright = [320, 240] if rotation == 90 else [240, 320]
    assert ours.rows[0]["size_hw"] == upright
    assert ours.manifest["source"]["rotation"] == (-rotation) % 360  # FFmpeg counts against the clock, we with it
    with av.open(str(ours.out / "annotated.mp4")) as container:
        stream = container.streams.video[0]
        assert [stream.height, stream.width] == upright
        assert next(container.decode(stream)).rotation == 0


@pytest.mark.parametrize("size_hw", [(241, 321), (2, 2)])
def test_a8_odd_sizes_exit_0(tmp_path, size_hw):
    images = [np.full((*size_hw, 3), 40 * number, np.uint8) for number in range(4)]
    write_clip(tmp_path / "odd.mkv", images, codec="ffv1", pix_fmt="bgr0")
    outcome = check(track("odd.mkv", folder=tmp_path, box="0,0,2,2"), 0)
    assert [row["size_hw"] for row in outcome.rows] == [list(size_hw)] * 4
    assert outcome.rows[0]["track"]["xyxy"] == [0.0, 0.0, 2.0, 2.0]


def test_a9_one_frame_exits_0(tmp_path):
    write_clip(tmp_path / "one.mp4", [numbered(9)])
    assert len(check(track("one.mp4", folder=tmp_path), 0).rows) == 1


def test_a9_no_frames_exits_3(tmp_path):
    with av.open(str(tmp_path / "none.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 64, 48
        container.start_encoding()
    check(track("none.mp4", folder=tmp_path), 3, "no-frames")


def test_a9_no_frames_in_the_range_exits_3(clips, tmp_path):
    check(track(clips["short"], "--start", "50", folder=tmp_path), 3, "no-frames")


def test_a9_sound_only_exits_3(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    check(track("sound.mp4", folder=tmp_path), 3, "no-video-stream")


def test_a9_an_unknown_codec_exits_3(clips, tmp_path):
    data = bytearray(clips["short"].read_bytes())
    at = data.index(b"avc1", data.index(b"stsd"))
    data[at : at + 4] = b"zzzz"
    (tmp_path / "unknown.mp4").write_bytes(data)
    assert "zzzz" in check(track("unknown.mp4", folder=tmp_path), 3, "no-decoder").stderr


def peak_mib(source: Path, folder: Path) -> float:
    """Peak memory of one run, asked of a process whose only child it is."""
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], stderr=subprocess.DEVNULL)\n"
        "print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    run = command("track", source, "--box", BOX, "--out", "peak", "--overwrite")
    told = subprocess.run(
        [sys.executable, "-c", code, *run], cwd=folder, env=surroundings(), capture_output=True, text=True, check=True
    )
    returned, peak = told.stdout.split()
    assert returned == "0"
    return int(peak) / 1024


@pytest.mark.parametrize("count", [100_000_000, 270])
def test_a11_a_lying_count_changes_nothing(clips, tmp_path, count):
    lie = lie_about_count(clips["end"], tmp_path / "lie.mp4", count)
    outcome = check(track("lie.mp4", folder=tmp_path), 0)
    assert [row["index"] for row in outcome.rows] == list(range(COUNT))
    assert peak_mib(lie, tmp_path) < peak_mib(clips["end"], tmp_path) + 30


def test_a11_a_negative_count_exits_0(tmp_path):
    write_clip(tmp_path / "bare.h264", [numbered(n, SIZE_HW) for n in range(10)])
    outcome = check(track("bare.h264", folder=tmp_path), 0)
    assert len(outcome.rows) == 10
    assert outcome.manifest["source"]["declared"] is None
    assert outcome.manifest["source"]["timing"] == "synthetic"


def test_a12_a_change_of_size_keeps_true_sizes_in_the_rows_and_every_frame_in_the_video(tmp_path):
    small = write_clip(tmp_path / "small.ts", [numbered(n, (120, 160)) for n in range(20)])
    large = write_clip(tmp_path / "large.ts", [numbered(n, (240, 320)) for n in range(20)])
    (tmp_path / "both.ts").write_bytes(small.read_bytes() + large.read_bytes())
    outcome = check(track("both.ts", folder=tmp_path), 0)
    assert [row["size_hw"] for row in outcome.rows] == [[120, 160]] * 20 + [[240, 320]] * 20
    assert "resolution-change" in {event["event"] for event in outcome.manifest["events"]}
    assert (np.diff(frame_times_ms(outcome.out / "annotated.mp4")) > 0).all()


NAMES = [
    *("-dash.mp4", "sp ace.mp4", "😀.mp4", "new\nline.mp4", "%03d.mp4", "back\\slash.mp4", "http:x.mp4", "concat:a|b"),
    *("subfile,,start,0,end,0,,:a", "[x].mp4", b"\xff\xfe.mp4", "x" * 251 + ".mp4"),
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:24])
def test_a14_names_are_only_names_and_come_back_from_the_rows(clips, tmp_path, name):
    Path(tmp_path, os.fsdecode(name)).write_bytes(clips["short"].read_bytes())
    outcome = check(track(name, folder=tmp_path), 0)
    assert len(outcome.rows) == 5
    assert os.fsencode(original_name(outcome.rows[0]["source"])) == os.fsencode(name)
    assert os.fsencode(original_name(outcome.manifest["source"]["name"])) == os.fsencode(name)
    assert all(line.isprintable() for line in outcome.stderr.splitlines())
    json.dumps(outcome.manifest).encode("ascii")


def test_a14_a_leading_dash_without_the_two_dashes_is_explained(clips, tmp_path):
    (tmp_path / "-dash.mp4").write_bytes(clips["short"].read_bytes())
    told = subprocess.run(
        command("track", "-dash.mp4", "--box", BOX), cwd=tmp_path, env=surroundings(), capture_output=True, text=True
    )
    assert told.returncode == 2
    assert "put `--` before it" in told.stderr
