"""D16: an export that is killed, or runs out of disk, leaves nothing under the final name; the next one succeeds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.export.unsaturated import small_card
from visionkit.errors import OutputError
from visionkit.export import destination, export_model, formats
from visionkit.weights.artifact import read_artifact

ROOT = Path(__file__).resolve().parents[2]
SUFFIXES = {"savedmodel": "", "litert": ".tflite", "keras": ".keras", "onnx": ".onnx", "openvino": ".xml"}

SLOW = pytest.mark.slow  # two processes and two exports each, 10 s

CHILD = """
import os, resource, signal, sys
folder, place, kind, moment = sys.argv[1:5]
from visionkit.errors import VisionkitError
from visionkit.export import asking, check, destination, export_model, exporting, formats

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

if moment == "written":  # before it is run
    check.ask_alone = die
elif moment == "checked":  # before it is described
    exporting.attach = die
elif moment == "described":  # before it gets its name
    destination.OutputFile.publish = die
    from visionkit.export import folder as published
    published._put.__name__  # a name that is gone would kill nothing
    published._put = die
elif moment == "overwriting":  # the old one has been moved away, or is about to be replaced
    os.replace = die
    import pathlib
    rename = pathlib.Path.rename
    def moved(self, target):
        if self.name.startswith(".visionkit"):
            die()
        return rename(self, target)
    pathlib.Path.rename = moved
    replace = pathlib.Path.replace
    def replaced(self, target):
        return die() if str(target) == place else replace(self, target)
    pathlib.Path.replace = replaced
elif moment.isdigit():  # no file can be larger than so many bytes, as on a disk that is full
    import tensorflow
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(moment), int(moment)))
try:
    export_model(folder, place, format=kind, overwrite=moment == "overwriting")
except VisionkitError as error:
    print(error.slug)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return small_card(tmp_path_factory.mktemp("cards") / "tiny")[0].folder


def child(folder: Path, place: Path, kind: str, moment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(folder), str(place), kind, moment]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def shown(folder: Path) -> list[str]:
    """What a user sees there."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize(
    ("kind", "moment"),
    [
        ("litert", "described"),
        pytest.param("litert", "written", marks=SLOW),
        pytest.param("savedmodel", "checked", marks=SLOW),
        pytest.param("savedmodel", "described", marks=SLOW),
    ],
)
def test_a_killed_export_leaves_nothing_and_the_next_one_succeeds(kind, moment, folder, tmp_path):
    place = tmp_path / f"tiny{SUFFIXES[kind]}"
    assert child(folder, place, kind, moment).returncode == -signal.SIGKILL
    assert shown(tmp_path) == []
    export_model(folder, place, format=kind)
    assert shown(tmp_path) == [place.name]
    assert read_artifact(place) is not None


def test_a_killed_replacement_leaves_the_old_file(folder, tmp_path):
    place = tmp_path / "tiny.tflite"
    place.write_bytes(b"old")
    assert child(folder, place, "litert", "overwriting").returncode == -signal.SIGKILL
    assert place.read_bytes() == b"old"
    export_model(folder, place, format="litert", overwrite=True)
    assert read_artifact(place) is not None


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("litert", 20_000),
        pytest.param("savedmodel", 20_000, marks=SLOW),
        pytest.param("keras", 20_000, marks=SLOW),
        pytest.param("onnx", 9_000, marks=SLOW),
    ],
)
def test_a_full_disk_is_told_and_leaves_nothing(kind, size, folder, tmp_path):
    """The largest possible file of a process stands in for the disk: the system refuses the write in the same place."""
    if formats.FORMATS[kind].missing:
        pytest.skip(f"{kind} cannot be written here")
    place = tmp_path / f"tiny{SUFFIXES[kind]}"
    done = child(folder, place, kind, str(size))
    assert done.stdout.strip() == "disk-full", done.stderr[-2000:]
    assert list(tmp_path.iterdir()) == []
    export_model(folder, place, format=kind)
    assert read_artifact(place) is not None


@pytest.mark.parametrize("kind", ["litert", pytest.param("savedmodel", marks=SLOW)])
def test_a_small_disk(kind, folder, tmp_path):
    """The same on a file system of 64 KiB, where a mount is allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k tmpfs '{disk}' 2>/dev/null") != 0:  # noqa: S605
        pytest.skip("needs the right to mount a small tmpfs; the file size limit stands in for it")
    try:
        with pytest.raises(OutputError) as caught:
            export_model(folder, disk / f"tiny{SUFFIXES[kind]}", format=kind)
        assert caught.value.slug == "disk-full"
        assert list(disk.iterdir()) == []
    finally:
        os.system(f"umount '{disk}'")  # noqa: S605


def test_what_libraries_say_of_a_full_disk_is_understood(tmp_path):
    with pytest.raises(OutputError, match="no room left"), destination.full_disk_told(tmp_path / "a"):
        raise RuntimeError("UNKNOWN: /a/b; No space left on device")
    with pytest.raises(ValueError, match="else"), destination.full_disk_told(tmp_path / "a"):
        raise ValueError("something else")
