"""The folder of a run: staged, locked, published whole, and careful with what was there before."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.io.readback import snapshot
from visionkit.errors import OutputError, UsageError
from visionkit.io import RunFolder, run_folder

CHILD = """
import sys, time, os
from visionkit.io import RunFolder
folder = RunFolder(sys.argv[1])
folder.path("results.jsonl").write_text(str(os.getpid()))
print("ready", flush=True)
sys.stdin.read()
folder.path("run.json").write_text("{}")
folder.publish()
"""


def fill(folder: RunFolder, text: str = "new") -> RunFolder:
    folder.path("results.jsonl").write_text(text)
    folder.path("masks/000001.png").write_text(text)
    folder.path("run.json").write_text(f'"{text}"')
    return folder


def slug_of(*arguments: object, **options: object) -> str:
    with pytest.raises(OutputError) as caught:
        RunFolder(*arguments, **options)
    return caught.value.slug


def start(out: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def test_outputs_appear_only_when_published(tmp_path):
    out = tmp_path / "deep/er/run"
    folder = fill(RunFolder(out))
    assert folder.staging == tmp_path / "deep/er/run.part"
    assert folder.staging.stat().st_mode & 0o777 == 0o700
    assert not out.exists()
    assert folder.publish() == out
    assert set(snapshot(tmp_path / "deep/er")) == {
        "run",
        "run/results.jsonl",
        "run/masks",
        "run/masks/000001.png",
        "run/run.json",
    }


def test_run_json_is_moved_last(tmp_path, monkeypatch):
    moved = []
    rename = Path.rename

    def spy(self, target):
        moved.append(self.name)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", spy)
    folder = RunFolder(tmp_path / "run")
    for name in ("zebra.txt", "run.json", "annotated.mp4", "results.jsonl"):
        folder.path(name).touch()
    folder.publish()
    assert moved == ["annotated.mp4", "results.jsonl", "zebra.txt", "run.json"]


def test_leaving_without_publishing_leaves_nothing(tmp_path):
    with RunFolder(tmp_path / "a/b/run") as folder:
        fill(folder)
    assert snapshot(tmp_path) == {}
    with RunFolder(tmp_path / "a/b/run") as folder:
        fill(folder).publish()
    assert (tmp_path / "a/b/run/run.json").exists()
    with pytest.raises(ValueError, match="no longer open"):
        folder.publish()


def test_default_names_count_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outs = [fill(RunFolder(None, task="track", source_name="clip")).publish() for _ in range(3)]
    assert [str(out) for out in outs] == ["runs/track/clip", "runs/track/clip-2", "runs/track/clip-3"]
    busy = RunFolder(None, task="track", source_name="clip")
    assert str(RunFolder(None, task="track", source_name="clip").out) == "runs/track/clip-5"
    assert str(busy.out) == "runs/track/clip-4"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc", "etc"),
        ("..", "source"),
        ("", "source"),
        ("a/b", "a-b"),
        ("-dash", "dash"),
        ("猫 cat", "猫-cat"),
        (os.fsdecode(b"\xff"), "xff"),
        ("\x1b[31m", "x1b-31m"),
        ("x" * 300, "x" * 80),
        ("猫" * 300, "猫" * 26),
    ],
)
def test_default_names_are_tame(tmp_path, monkeypatch, name, expected):
    monkeypatch.chdir(tmp_path)
    with RunFolder(None, task="track", source_name=name) as folder:
        assert folder.out == Path("runs/track") / expected


def test_an_existing_run_is_kept_without_overwrite(tmp_path):
    fill(RunFolder(tmp_path / "run"), "old").publish()
    before = snapshot(tmp_path)
    assert slug_of(tmp_path / "run") == "exists"
    assert snapshot(tmp_path) == before


def test_overwrite_replaces_on_success_only(tmp_path):
    out = tmp_path / "run"
    folder = RunFolder(out)
    fill(folder, "old").path("annotated.mp4").write_text("old")
    folder.publish()
    (out / "notes.txt").write_text("mine")
    before = snapshot(tmp_path)
    fill(RunFolder(out, overwrite=True)).discard()
    assert snapshot(tmp_path) == before
    partial = fill(RunFolder(out, overwrite=True))
    assert partial.publish(partial=True) == tmp_path / "run.part"
    assert snapshot(out) == {k.removeprefix("run/"): v for k, v in before.items() if k.startswith("run/")}
    fill(RunFolder(out, overwrite=True)).publish()
    assert (out / "results.jsonl").read_text() == "new"
    assert not (out / "annotated.mp4").exists()  # of the old run: would contradict the new rows
    assert (out / "notes.txt").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["run"]


def test_a_folder_that_no_run_wrote_is_never_replaced(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.txt").write_text("years")
    before = snapshot(tmp_path)
    assert slug_of(tmp_path / "home") == "exists"
    assert slug_of(tmp_path / "home", overwrite=True) == "exists"
    assert snapshot(tmp_path) == before


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "run").mkdir()
    assert fill(RunFolder(tmp_path / "run")).publish() == tmp_path / "run"


def test_a_partial_result_is_published_where_nothing_was(tmp_path):
    assert fill(RunFolder(tmp_path / "run")).publish(partial=True) == tmp_path / "run"
    assert (tmp_path / "run/run.json").exists()


def test_files_and_folders_that_cannot_be_runs(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "busy.part").write_text("not a folder")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "trap.part").symlink_to("real")
    before = snapshot(tmp_path)
    assert slug_of(tmp_path / "file") == "output-unwritable"
    assert slug_of(tmp_path / "file/run") == "output-unwritable"
    assert slug_of(tmp_path / "busy") == "output-unwritable"
    assert slug_of(tmp_path / "trap") == "output-unwritable"
    assert slug_of(tmp_path / "link") == "output-is-symlink"
    assert slug_of(tmp_path / "link", overwrite=True) == "output-is-symlink"
    assert slug_of(tmp_path / ("x" * 300)) == "output-unwritable"
    assert slug_of("/") == "output-unwritable"
    assert slug_of(tmp_path / "..") == "output-unwritable"
    assert snapshot(tmp_path) == before


def test_the_input_is_never_the_output(tmp_path):
    fill(RunFolder(tmp_path / "run"), "old").publish()
    os.link(tmp_path / "run/results.jsonl", tmp_path / "hard")
    (tmp_path / "soft").symlink_to("run/results.jsonl")
    before = snapshot(tmp_path)
    for source in ("run/results.jsonl", "hard", "soft"):
        with pytest.raises(UsageError) as caught:
            RunFolder(tmp_path / "run", overwrite=True, inputs=[tmp_path / source])
        assert caught.value.slug == "output-is-input"
    with pytest.raises(UsageError):
        RunFolder(tmp_path / "hard", inputs=[tmp_path / "run/results.jsonl"])
    with pytest.raises(UsageError):
        RunFolder(tmp_path / "run", overwrite=True, inputs=[tmp_path / "run"])
    assert snapshot(tmp_path) == before


def test_a_second_live_run_is_told_the_first_ones_pid(tmp_path):
    child = start(tmp_path / "run")
    try:
        with pytest.raises(OutputError, match=f"process {child.pid};") as caught:
            RunFolder(tmp_path / "run")
        assert caught.value.slug == "output-busy"
    finally:
        child.communicate("")
    assert child.returncode == 0
    assert (tmp_path / "run/results.jsonl").read_text() == str(child.pid)
    assert slug_of(tmp_path / "run") == "exists"


def test_the_same_process_cannot_take_a_folder_twice(tmp_path):
    with RunFolder(tmp_path / "run"):
        assert slug_of(tmp_path / "run") == "output-busy"
    RunFolder(tmp_path / "run").discard()


def test_the_lock_of_a_killed_run_is_taken_over(tmp_path):
    child = start(tmp_path / "run")
    child.kill()
    child.communicate()
    assert (tmp_path / "run.part/results.jsonl").exists()
    folder = RunFolder(tmp_path / "run")
    assert (folder.staging / run_folder.LOCK).read_text() == f"{os.getpid()}\n"
    assert not (folder.staging / "results.jsonl").exists()
    fill(folder).publish()
    assert sorted(os.listdir(tmp_path)) == ["run"]


def test_e8_of_eight_runs_at_once_one_wins(tmp_path):
    code = CHILD.replace("sys.stdin.read()", "time.sleep(0.5)").replace(
        "folder = RunFolder(sys.argv[1])",
        "from visionkit.errors import OutputError\n"
        "try:\n    folder = RunFolder(sys.argv[1])\n"
        "except OutputError as error:\n    print(error.slug); sys.exit(6)",
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    said = [child.communicate(timeout=60)[0] for child in children]
    codes = sorted(child.returncode for child in children)
    assert codes == [0] + [6] * 7
    # One that starts after the winner has finished finds the result instead of the lock.
    assert set(said) - {"ready\n"} <= {"output-busy\n", "exists\n"}
    winner = next(child for child in children if child.returncode == 0)
    assert (tmp_path / "run/results.jsonl").read_text() == str(winner.pid)
    assert sorted(os.listdir(tmp_path)) == ["run"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_c3_a_kill_at_any_step_of_publishing_loses_nothing(tmp_path, overwrite):
    """Publishing is stopped before its n-th change of the disk, for every n; the next run finds old or new, whole."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom visionkit.io import RunFolder\n"
        "folder = RunFolder(sys.argv[1], overwrite=True)\n"
        "for name in ('results.jsonl', 'annotated.mp4', 'run.json'): folder.path(name).write_text('new')\n"
        "left = int(sys.argv[2])\n"
        "def counted(old):\n"
        "    def step(*a, **k):\n"
        "        global left\n"
        "        if left == 0: os._exit(9)\n"
        "        left -= 1\n"
        "        return old(*a, **k)\n"
        "    return step\n"
        "for owner, name in ((os, 'rename'), (os, 'mkdir'), (os, 'rmdir'), (os, 'unlink'), (Path, 'touch')):\n"
        "    setattr(owner, name, counted(getattr(owner, name)))\n"
        "folder.publish()\n"
    )
    killed = 0
    for steps in range(40):
        out = tmp_path / str(steps) / "run"
        if overwrite:
            with RunFolder(out) as folder:
                for name in ("results.jsonl", "annotated.mp4", "run.json"):
                    folder.path(name).write_text("old")
                folder.publish()
        done = subprocess.run([sys.executable, "-c", code, str(out), str(steps)], check=False)
        assert done.returncode in {0, 9}
        finished = (out / "run.json").exists()
        if finished:  # the commit point: what lies beside it belongs to it
            assert len({(out / n).read_text() for n in ("results.jsonl", "annotated.mp4", "run.json")}) == 1
        if done.returncode == 0:
            break
        killed += 1
        if overwrite or os.listdir(out.parent) == ["run"]:
            assert slug_of(out) == "exists"
            assert sorted(os.listdir(out)) == ["annotated.mp4", "results.jsonl", "run.json"]
            assert len({path.read_text() for path in out.iterdir()}) == 1
        else:
            with contextlib.suppress(OutputError):  # `exists`: the killed run's publishing was completed
                RunFolder(out).discard()
        assert os.listdir(out.parent) in ([], ["run"]) if out.parent.exists() else True
    assert killed >= 5
    assert (out / "run.json").read_text() == "new"


def test_e13_a_rename_that_fails_puts_everything_back(tmp_path, monkeypatch):
    rename = Path.rename
    for failing in range(6):
        out = tmp_path / str(failing)
        fill(RunFolder(out), "old").publish()
        before = snapshot(out)
        folder = fill(RunFolder(out, overwrite=True))
        calls = iter(range(100))

        def flaky(self, target, calls=calls, failing=failing):
            if next(calls) == failing:
                raise OSError(5, "Input/output error")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", flaky)
        if failing < 4:  # the old folder aside, then three entries
            with pytest.raises(OutputError, match="Input/output error"):
                folder.publish()
            folder.discard()
            assert snapshot(out) == before
        else:
            folder.publish()
            assert (out / "results.jsonl").read_text() == "new"
        monkeypatch.setattr(Path, "rename", rename)
        assert not (tmp_path / f"{failing}.part").exists()
