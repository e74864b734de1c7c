"""Rows E1 to E8 and E10 through `visionkit track`, each under the common oracle."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.oracle import BOX, check, command, snapshot, surroundings, track
from tests.io.clips import numbered, write_clip

COUNT = 40
SIZE_HW = (120, 160)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    images = [numbered(number, SIZE_HW) for number in range(COUNT)]
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", images)


def small_disk(size: int):
    """Before the program starts: no file may grow beyond `size` bytes."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def test_e1_and_e2_a_disk_that_is_too_small_anywhere_exits_6_until_it_fits(clip, tmp_path):
    whole = check(track(clip, folder=tmp_path, out="whole"), 0)
    needed = max(path.stat().st_size for path in whole.out.iterdir())
    sizes = [*range(4096, needed, max(4096, needed // 8 // 4096 * 4096)), needed - 1]  # the last: only the end lacks
    for size in sizes:
        outcome = track(clip, folder=tmp_path, out=f"small-{size}", preexec=small_disk(size))
        check(outcome, 6, "disk-full")
    # Moving the index to the front takes a second pass over the file, which needs no more than the file itself.
    check(track(clip, folder=tmp_path, out="fits", preexec=small_disk(needed + 4096)), 0)


def test_e2_a_full_disk_leaves_a_finished_run_alone(clip, tmp_path):
    before = check(track(clip, folder=tmp_path), 0)
    outcome = track(clip, "--overwrite", folder=tmp_path, preexec=small_disk(8192))
    assert outcome.code == 6
    assert outcome.slugs == ["disk-full"]
    assert snapshot(before.out) == {name[4:]: d for name, d in before.after.items() if name.startswith("out/")}


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("/proc/visionkit/out", "No such file or directory|Operation not permitted|Permission denied"),
        ("/sys/visionkit", "Operation not permitted|Permission denied|Read-only"),
        ("taken.txt/out", "Not a directory"),
        ("taken.txt", "Not a directory"),
        ("x" * 300, "File name too long"),
    ],
)
def test_e3_a_place_that_cannot_be_written_exits_6_at_once(clip, tmp_path, out, reason):
    (tmp_path / "taken.txt").write_text("mine")
    before = snapshot(tmp_path)
    process = subprocess.run(
        command("track", clip, "--box", BOX, "--out", out),
        cwd=tmp_path,
        env=surroundings(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert process.returncode == 6, process.stderr
    assert process.stderr.startswith("visionkit: error[output-unwritable]: ")
    assert any(words in process.stderr for words in reason.split("|")), process.stderr
    assert process.stderr.count("\n") == 1  # so TensorFlow was not imported either
    assert snapshot(tmp_path) == before


def without_privilege() -> None:
    """Before the program starts: root gives up writing where permissions forbid it (and is like anyone else)."""
    pr_capbset_drop, cap_dac_override = 24, 1
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(pr_capbset_drop, cap_dac_override, 0, 0, 0)


def test_e3_a_read_only_folder_exits_6(clip, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    outcome = check(track(clip, folder=tmp_path, out="locked/out", preexec=without_privilege), 6, "output-unwritable")
    assert "Permission denied" in outcome.stderr
    assert outcome.seconds < 10


def test_e4_an_encoder_that_is_absent_exits_6_and_lists_the_others(clip, tmp_path):
    outcome = track(clip, "--codec", "h264", folder=tmp_path, VISIONKIT_TEST_WITHOUT="libx264")
    check(outcome, 6, "no-encoder")
    assert "vp9" in outcome.stderr


def test_e4_auto_falls_back_and_says_so(clip, tmp_path):
    outcome = check(track(clip, folder=tmp_path, VISIONKIT_TEST_WITHOUT="libx264"), 0)
    assert outcome.manifest["annotated"]["codec"] == "vp9"
    assert "visionkit: warning: video is written as vp9" in outcome.stderr


def test_e5_an_existing_target_exits_6_and_overwrite_replaces_it(clip, tmp_path):
    first = check(track(clip, folder=tmp_path), 0)
    check(track(clip, folder=tmp_path), 6, "exists")
    assert len(first.rows) == COUNT
    second = check(track(clip, "--overwrite", "--end", "0.4", folder=tmp_path), 0)
    assert len(second.rows) == 10


def test_e5_overwrite_never_replaces_a_folder_that_is_no_run(clip, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    check(track(clip, "--overwrite", folder=tmp_path), 6, "exists")


def test_e6_a_target_that_is_a_link_exits_6_and_is_not_followed(clip, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    check(track(clip, "--overwrite", folder=tmp_path), 6, "output-is-symlink")


@pytest.mark.parametrize("kind", ["same", "hard link", "symlink", "inside"])
def test_e7_an_output_that_is_the_input_exits_2(clip, tmp_path, kind):
    source = tmp_path / "clip.mp4"
    source.write_bytes(clip.read_bytes())
    if kind == "hard link":
        os.link(source, tmp_path / "out")
    elif kind == "symlink":
        (tmp_path / "out").symlink_to(source)
    elif kind == "inside":
        (tmp_path / "out").mkdir()
        os.link(source, tmp_path / "out" / "annotated.mp4")
    out = "clip.mp4" if kind == "same" else "out"
    check(track("clip.mp4", "--overwrite", folder=tmp_path, out=out), 2, "output-is-input")


def test_e7_a_folder_of_images_is_not_its_own_output(tmp_path):
    import cv2

    (tmp_path / "frames").mkdir()
    cv2.imwrite(str(tmp_path / "frames" / "1.png"), numbered(1))
    check(track("frames", "--overwrite", folder=tmp_path, out="frames"), 2, "output-is-input")


def test_e8_of_runs_into_one_folder_one_wins_and_the_others_exit_6(clip, tmp_path):
    def one(_: int) -> subprocess.CompletedProcess[str]:
        run = command("track", clip, "--box", BOX, "--out", "out")
        env = surroundings(VISIONKIT_TEST_SLOW_MS="60")
        return subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)

    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(one, range(4)))
    codes = sorted(process.returncode for process in ended)
    assert codes == [0, 6, 6, 6]
    assert all("error[output-busy]" in p.stderr or "error[exists]" in p.stderr for p in ended if p.returncode)
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == COUNT
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_e10_a_killed_run_leaves_only_a_private_staging_folder_that_the_next_run_takes_over(clip, tmp_path):
    run = command("track", clip, "--box", BOX, "--out", "out")
    process = subprocess.Popen(
        run, cwd=tmp_path, env=surroundings(VISIONKIT_TEST_SLOW_MS="100"), stderr=subprocess.DEVNULL
    )
    staged = tmp_path / "out.part"
    while not list(staged.glob(".visionkit-*.mp4")) and process.poll() is None:
        os.sched_yield()
    process.kill()
    process.wait(timeout=30)
    assert [p.name for p in tmp_path.iterdir()] == ["out.part"]
    assert staged.stat().st_mode & 0o777 == 0o700
    check_taken_over(clip, tmp_path)


def check_taken_over(clip: Path, folder: Path) -> None:
    outcome = track(clip, folder=folder)
    outcome.before = {name: d for name, d in outcome.before.items() if not name.startswith("out.part")}
    assert len(check(outcome, 0).rows) == COUNT
