"""`visionkit inspect` of clips whose facts are known."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from visionkit.cli.shell import run


@pytest.fixture
def clip(tmp_path) -> Path:
    """24 frames of 96 x 64 at 12 frames a second, MJPEG in AVI: from 0 to 1916.7 ms."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.0, (96, 64))
    for index in range(24):
        writer.write(np.full((64, 96, 3), 10 * index, np.uint8))
    writer.release()
    return path


def inspect(capsys, *words: str | Path) -> tuple[int, dict]:
    code = run(["inspect", "--json", *map(str, words)])
    return code, json.loads(capsys.readouterr().out)


def test_a_clip_says_what_it_is(clip, capsys):
    code, facts = inspect(capsys, clip)
    assert code == 0
    assert (facts["name"], facts["kind"], facts["size_hw"], facts["fps"]) == ("clip.avi", "video", [64, 96], 12.0)
    assert (facts["rotation"], facts["has_audio"], facts["frame_count"]) == (0, False, 24)
    assert "counted" not in facts


def test_count_tells_what_is_really_there(clip, capsys):
    code, facts = inspect(capsys, clip, "--count")
    counted = facts["counted"]
    assert (code, counted["frames"], counted["damaged"], counted["skipped"]) == (0, 24, 0, 0)
    assert counted["sizes_hw"] == [{"size_hw": [64, 96], "frames": 24}]
    assert counted["first_pts_ms"] == 0
    assert counted["last_pts_ms"] == pytest.approx(23000 / 12, abs=0.01)
    assert counted["variable_rate"] is False


def test_text_for_people(clip, capsys):
    assert run(["inspect", "--count", str(clip)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "size      96 x 64 (width x height)" in lines
    assert "frames    24 decoded, 24 declared" in lines
    assert "pace      steady: 83.333 to 83.333 ms from frame to frame" in lines


def test_a_clip_cut_short_is_damaged(clip, capsys):
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 6 // 10])
    assert run(["inspect", "--count", str(clip)]) == 4
    out, err = capsys.readouterr()
    assert err.startswith("visionkit: error[input-damaged]: clip.avi: decoded ")
    assert err.count("\n") == 1
    assert "frames" in out


def test_what_is_no_video_is_told(tmp_path, capsys):
    (tmp_path / "notes.mp4").write_text("no video")
    assert run(["inspect", str(tmp_path / "notes.mp4")]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("visionkit: error[input-undecodable]: ")
    assert "notes.mp4 (8 bytes)" in err


def test_an_image_and_a_folder(tmp_path, capsys):
    for name, size in (("a.png", (40, 60)), ("b.png", (30, 20))):
        cv2.imwrite(str(tmp_path / name), np.zeros((*size, 3), np.uint8))
    code, facts = inspect(capsys, tmp_path / "a.png")
    assert (code, facts["kind"], facts["size_hw"]) == (0, "image", [40, 60])
    code, facts = inspect(capsys, tmp_path, "--count")
    assert (code, facts["kind"], facts["counted"]["frames"]) == (0, "images", 2)
    assert facts["counted"]["sizes_hw"] == [{"size_hw": [40, 60], "frames": 1}, {"size_hw": [30, 20], "frames": 1}]
    assert "variable_rate" not in facts["counted"]
    (tmp_path / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    assert run(["inspect", "--count", str(tmp_path)]) == 4
    assert "c.png: " in capsys.readouterr().out


def test_a_frame_larger_than_allowed_is_refused(clip, capsys):
    assert run(["inspect", "--max-pixels", "6143", str(clip)]) == 3
    assert "error[frame-too-large]" in capsys.readouterr().err
    assert run(["inspect", "--max-pixels", "6144", str(clip)]) == 0


@pytest.mark.parametrize(
    ("name", "facts", "counted"),
    [
        ("vfr_pose_world_landmarks.mp4", {"size_hw": [360, 640]}, {"frames": 149, "variable_rate": True}),
        ("bigbuckbunny.mp4", {"has_audio": True, "rotation": 0}, {"frames": 132, "variable_rate": False}),
        ("asl_gestures/eat.mkv", {"size_hw": [480, 640]}, {"frames": 47, "variable_rate": False}),
        ("video_270.mov", {"size_hw": [568, 320], "rotation": 270}, {"frames": 3}),
        ("av1_video.mkv", {"size_hw": [360, 640]}, {"frames": 125}),
    ],
)
def test_real_clips(shared, capsys, name, facts, counted):
    code, found = inspect(capsys, "--count", shared / "data" / "video" / name)
    assert code == 0
    assert {key: found[key] for key in facts} == facts
    assert {key: found["counted"][key] for key in counted} == counted
