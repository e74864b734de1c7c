"""`visionkit track`: options by value, what goes to stdout and stderr, and how runs end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

import visionkit.cli.track as track_command
from tests.cli.still import Still
from tests.faults.oracle import command, surroundings
from visionkit.cli.options import BoxType
from visionkit.cli.shell import run
from visionkit.errors import UsageError
from visionkit.io import VideoWriter

SIZE_HW = (48, 80)
COUNT = 40
BOX = ["--box", "10,10,20,30"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    with VideoWriter(path, size_hw=SIZE_HW, fps=25) as writer:
        for index in range(COUNT):
            writer.write(np.full((*SIZE_HW, 3), 6 * index, np.uint8), 40.0 * index, 40.0)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder, and a tracker without a model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(track_command, "load_model", Still)
    return tmp_path


def start(*args, cwd, stdout=subprocess.PIPE, **env):
    return subprocess.Popen(
        command("track", *args),
        cwd=cwd,
        env=surroundings(**env),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("text", ["10,20,30,40", "10, 20, 30, 40", "10 20 30 40", " 10,20,30,40 "])
def test_a_box_is_left_top_width_height(text):
    assert BoxType().convert(text, None, None) == (10.0, 20.0, 40.0, 60.0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("10,20,30", "3 numbers instead of four"),
        ("7", "1 number instead of four"),
        ("1,2,3,4,5", "5 numbers instead of four"),
        ("", "0 numbers instead of four"),
        ("10,20,thirty,40", "not four numbers"),
        ("10,20,nan,40", "not finite"),
        ("10,20,0,40", "a width of 0 and a height of 40"),
        ("10,20,30,-4", "a width of 30 and a height of -4"),
    ],
)
def test_a_bad_box_is_told_by_value(text, why):
    with pytest.raises(UsageError, match=why) as caught:
        BoxType().convert(text, None, None)
    assert "X,Y,W,H in pixels" in caught.value.message
    assert repr(text) in caught.value.message


@pytest.mark.parametrize(
    ("args", "slug", "words"),
    [
        (["--box", "10,20,30"], "bad-box", "expected X,Y,W,H in pixels"),
        ([*BOX, "--select"], "box-and-select", "one of them"),
        (["--select"], "no-display", "no display"),
        ([*BOX, "--show"], "no-display", "no display"),
        (["--box", "500,10,20,30"], "box-outside", "80 wide and 48 high"),
        ([*BOX, "--codec", "nonsense"], "unknown-codec", "h264"),
        ([*BOX, "--start", "5", "--end", "2"], "bad-range", ""),
        ([*BOX, "--vid-stride", "0"], "usage", "--vid-stride"),
        ([*BOX, "--format", "xml"], "usage", "jsonl"),
    ],
)
def test_usage_errors_exit_2_and_leave_nothing(clip, here, capsys, monkeypatch, args, slug, words):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert run(["track", str(clip), *args]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"visionkit: error[{slug}]: ")
    assert words in told.err
    assert told.err.count("\n") == 1
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("source", ["rtsp://user:secret@camera/1", "http://example.com/a.mp4", "-", "0"])
def test_live_sources_are_refused_without_repeating_a_password(here, capsys, source):
    assert run(["track", *BOX, "--", source]) == 2
    told = capsys.readouterr().err
    assert "error[source-unsupported]" in told
    assert "secret" not in told


@pytest.mark.parametrize("box", [BOX, []])
def test_a_missing_file_is_told_before_a_model_is_looked_for(here, capsys, box):
    assert run(["track", "missing.mp4", *box]) == 3
    assert "error[input-missing]" in capsys.readouterr().err


def test_a_run_tells_two_calm_lines_and_fills_the_default_folder(clip, here, capsys):
    assert run(["track", str(clip), *BOX]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    first, second = told.err.splitlines()
    assert first.startswith(f"{COUNT} frames in ")
    assert first.endswith("followed in 100.0%")
    assert second == "Results in runs/track/clip.mp4"
    folder = here / "runs" / "track" / "clip.mp4"
    assert sorted(p.name for p in folder.iterdir()) == ["annotated.mp4", "results.jsonl", "run.json"]
    assert run(["track", str(clip), *BOX, "--no-video"]) == 0
    folder = here / "runs" / "track" / "clip.mp4-2"
    assert sorted(p.name for p in folder.iterdir()) == ["results.jsonl", "run.json"]


def test_a_negative_corner_is_a_value_and_not_an_option(clip, here):
    assert run(["track", str(clip), "--box", "-5,10,20,30", "--out", "out", "--no-video"]) == 0
    first = json.loads((here / "out" / "results.jsonl").read_text().splitlines()[0])
    assert first["track"]["xyxy"] == [0.0, 10.0, 15.0, 40.0]


@pytest.fixture
def window(monkeypatch):
    """A display on which OpenCV's windows answer as told."""
    shown = []
    monkeypatch.setattr(track_command, "need_display", lambda option: None)
    for name, answer in {"selectROI": (10, 12, 20, 30), "destroyWindow": None, "imshow": None, "waitKey": -1}.items():
        monkeypatch.setattr(
            cv2, name, lambda *args, a=answer, n=name, **kw: (shown.append((n, args)), a)[1], raising=False
        )
    return shown


def test_select_takes_the_box_that_is_drawn_on_the_first_kept_frame(clip, here, window):
    assert run(["track", str(clip), "--select", "--start", "0.4", "--out", "out", "--no-video"]) == 0
    first = json.loads((here / "out" / "results.jsonl").read_text().splitlines()[0])
    assert first["index"] == 10
    assert first["track"]["xyxy"] == [10.0, 12.0, 30.0, 42.0]
    name, args = window[0]
    assert name == "selectROI"
    assert abs(float(args[1].mean()) - 60) < 4  # frame 10 is all 60


def test_select_without_a_box_is_told(clip, here, window, monkeypatch, capsys):
    monkeypatch.setattr(cv2, "selectROI", lambda *args, **kwargs: (0, 0, 0, 0))
    assert run(["track", str(clip), "--select"]) == 2
    assert "error[box-needed]: No box was drawn" in capsys.readouterr().err


def test_show_shows_every_frame_and_q_ends_the_run(clip, here, window, monkeypatch):
    assert run(["track", str(clip), *BOX, "--show", "--no-video"]) == 0
    images = [args[1] for name, args in window if name == "imshow"]
    assert len(images) == COUNT
    assert all(image.std() > 1 for image in images), "the box is not drawn"
    monkeypatch.setattr(cv2, "waitKey", lambda delay: ord("q"))
    assert run(["track", str(clip), *BOX, "--show", "--out", "quit", "--no-video"]) in (0, 130)


def test_the_command_line_is_in_the_manifest(clip, here, monkeypatch):
    argv = ["track", str(clip), *BOX, "--out", "out", "--no-video"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/visionkit", *argv])
    assert run(argv) == 0
    manifest = json.loads((here / "out" / "run.json").read_text())
    assert manifest["command"] == ["visionkit", *argv]
    assert manifest["model"]["name"] == "still"


def test_rows_go_to_stdout_and_nothing_else_does(clip, tmp_path):
    process = start(str(clip), *BOX, "--out", "-", cwd=tmp_path)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["index"] for row in rows] == list(range(COUNT))
    assert "Results in" not in err
    assert list(tmp_path.iterdir()) == []


def test_e11_a_reader_that_leaves_ends_the_run_in_silence(clip, tmp_path):
    read, write = os.pipe()
    process = start(str(clip), *BOX, "--out", "-", cwd=tmp_path, stdout=write, VISIONKIT_TEST_SLOW_MS="30")
    os.close(write)
    with os.fdopen(read) as pipe:
        assert json.loads(pipe.readline())["index"] == 0
    _, err = process.communicate(timeout=30)
    assert process.returncode == 141
    assert err == ""
    assert list(tmp_path.iterdir()) == []


def test_e12_a_full_stdout_exits_6(clip, tmp_path):
    with Path("/dev/full").open("wb") as full:
        process = start(str(clip), *BOX, "--out", "-", cwd=tmp_path, stdout=full)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 6
    assert err.count("error[") == 1


@pytest.mark.parametrize(("number", "code", "by"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_a_signal_exits_with_its_code_and_publishes_a_partial_run(clip, tmp_path, number, code, by):
    process = start(str(clip), *BOX, "--out", "out", cwd=tmp_path, VISIONKIT_TEST_SLOW_MS="60")
    staged = tmp_path / "out.part"
    deadline = time.monotonic() + 20
    while not list(staged.glob(".visionkit-*.mp4")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(number)
    sent = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert time.monotonic() - sent < 5
    assert err.count("error[") == 1
    assert f"error[interrupted]: Stopped by {by} after " in err
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert manifest["status"] == "interrupted"
    assert 0 < manifest["counts"]["rows"] < COUNT
    assert not staged.exists()


def test_a_failed_frame_is_told_and_exits_4(clip, tmp_path):
    process = start(str(clip), *BOX, "--out", "out", cwd=tmp_path, VISIONKIT_TEST_FAIL_AT="7")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 4
    assert "visionkit: warning: " in err
    assert "error[" not in err
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows if "error" in row] == [7]


def test_help_shows_examples_and_imports_nothing_heavy(tmp_path):
    process = start("--help", cwd=tmp_path)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "visionkit track clip.mp4 --box" in out
    assert err == ""
