"""Hidden folders, and what killed processes left of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from visionkit.errors import OutputError
from visionkit.export.destination import destination
from visionkit.export.folder import new_folder
from visionkit.io.hidden import DAY_S, clear_abandoned, hidden_folder

WORKING = """
import sys, time
from pathlib import Path
from visionkit.io.hidden import hidden_folder
with hidden_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("made")
    print(folder.name, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def dead() -> int:
    """The number of a process that was."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left(folder: Path, name: str, *, age_s: float = 0.0, file: bool = False) -> Path:
    path = folder / name
    if file:
        path.write_text("half")
    else:
        path.mkdir()
        (path / "half").write_text("made")
    when = time.time() - age_s
    os.utime(path, (when, when))
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_a_killed_process_left_goes_and_a_running_ones_stays(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKING, str(tmp_path / "net")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        theirs = tmp_path / process.stdout.readline().strip()
        os.utime(theirs, (0, 0))  # however long it takes
        with new_folder(tmp_path / "other") as folder:
            (folder / "a").write_text("a")
        assert names(tmp_path) == {"other", theirs.name}
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (theirs / "half").is_file()
        with destination(tmp_path / "net.keras", ".keras") as made:
            assert not theirs.exists()
            made.write_text("whole")
        assert names(tmp_path) == {"other", "net.keras"}
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_lock_stands_above_a_number_that_is_no_more(
    tmp_path: Path, dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container, where the other one's processes have other numbers."""
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", lambda: dead)
        with hidden_folder(tmp_path / "net") as folder:
            clear_abandoned(tmp_path)
            assert folder.is_dir()


@pytest.mark.parametrize(
    ("name", "age", "file", "goes"),
    [
        ("{dead}-0123abcd", 0.0, False, True),
        ("{dead}-0123abcd-old", 0.0, False, True),
        ("{own}-0123abcd", 0.0, False, False),
        ("{own}-0123abcd", 2 * DAY_S, False, True),  # the number was given away again
        ("{dead}-0123abcd.mp4", 0.0, True, False),
        ("{dead}-0123abcd.mp4", 2 * DAY_S, True, True),
        ("{own}-0123abcd.mp4", 2 * DAY_S, True, False),
        ("{dead}-mine", 2 * DAY_S, False, False),
        ("{dead}-0123abcde", 2 * DAY_S, False, False),
    ],
)
def test_what_is_abandoned(tmp_path: Path, dead: int, name: str, age: float, file: bool, goes: bool) -> None:
    path = left(tmp_path, ".visionkit-" + name.format(dead=dead, own=os.getpid()), age_s=age, file=file)
    clear_abandoned(tmp_path)
    assert path.exists() is not goes


def test_what_is_not_ours_stays(tmp_path: Path, dead: int) -> None:
    """A link, a pair of which one is the only copy, the same name in another case, a folder that is not there."""
    theirs = left(tmp_path, "theirs")
    (tmp_path / f".visionkit-{dead}-0123abcd").symlink_to(theirs)
    left(tmp_path, f".visionkit-{dead}-11111111")
    left(tmp_path, f".visionkit-{dead}-11111111-old")
    left(tmp_path, f"visionkit-{dead}-11111111")
    before = names(tmp_path)
    clear_abandoned(tmp_path)
    clear_abandoned(tmp_path / "nowhere")
    assert names(tmp_path) == before
    assert (theirs / "half").is_file()


@pytest.mark.parametrize("overwrite", [False, True])
def test_who_comes_second_replaces_only_what_may_be(tmp_path: Path, overwrite: bool) -> None:
    target = tmp_path / "net"
    told = contextlib.nullcontext() if overwrite else pytest.raises(OutputError, match="by somebody else meanwhile")
    with told, new_folder(target, overwrite=overwrite) as folder:
        (folder / "mine").write_text("mine")
        with new_folder(target) as other:
            (other / "theirs").write_text("theirs")
    assert names(target) == {"mine" if overwrite else "theirs"}
    assert names(tmp_path) == {"net"}
