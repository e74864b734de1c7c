"""The set-up script: one wheel of OpenCV, the headless one where libGL is missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from visionkit import opencv_check

ROOT = Path(__file__).resolve().parents[1]
SPEC = importlib.util.spec_from_file_location("setup_env", ROOT / "tools" / "setup_env.py")
assert SPEC is not None
assert SPEC.loader is not None
setup_env = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(setup_env)


def test_missing_libraries_are_those_that_do_not_load(monkeypatch):
    monkeypatch.delenv("VISIONKIT_HIDE_LIBGL", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")

    def load(name):
        if name == "libGL.so.1":
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    assert setup_env.missing_libraries(load) == ["libGL.so.1"]
    assert setup_env.missing_libraries(lambda name: None) == []
    monkeypatch.setattr(sys, "platform", "darwin")
    assert setup_env.missing_libraries(load) == []
    monkeypatch.setenv("VISIONKIT_HIDE_LIBGL", "1")
    assert setup_env.missing_libraries(lambda name: None) == ["libGL.so.1"]


def test_script_and_package_know_the_same_libraries():
    assert setup_env.DESKTOP_LIBRARIES == opencv_check.DESKTOP_LIBRARIES


def test_requirements_swap_the_wheel_of_opencv_only():
    text = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    desktop = setup_env.requirements(text, ["test"], headless=False)
    headless = setup_env.requirements(text, ["test"], headless=True)
    assert "opencv-python>=5.0,<5.1" in desktop
    assert "pytest>=9" in desktop
    assert [line for line in headless if line not in desktop] == ["opencv-python-headless>=5.0,<5.1"]
    assert len(desktop) == len(headless)
    assert setup_env.requirements(text, [], headless=True).count("opencv-python-headless>=5.0,<5.1") == 1


@pytest.mark.parametrize(
    ("installed", "headless", "commands"),
    [
        ({}, True, []),
        ({"opencv-python": "5.0.0.93"}, False, []),
        ({"opencv-python-headless": "5.0.0.93"}, True, []),
        (
            {"opencv-python": "5.0.0.93", "opencv-python-headless": "5.0.0.93"},
            True,
            [
                ["uninstall", "-y", "opencv-python", "opencv-python-headless"],
                ["install", "--no-deps", "opencv-python-headless==5.0.0.93"],
            ],
        ),
        (
            {"opencv-python": "5.0.0.93", "opencv-python-headless": "5.0.0.92"},
            False,
            [
                ["uninstall", "-y", "opencv-python", "opencv-python-headless"],
                ["install", "--no-deps", "opencv-python==5.0.0.93"],
            ],
        ),
    ],
)
def test_repair_leaves_one_wheel(installed, headless, commands):
    assert setup_env.repair(installed, headless) == commands


def fake_install(monkeypatch, tmp_path, states, missing):
    """Run `install` with pip and the list of wheels replaced; the pip commands it gave."""
    given = []
    states = iter(states)
    monkeypatch.setattr(setup_env, "installed_opencv", lambda venv: next(states))
    monkeypatch.setattr(setup_env.subprocess, "run", lambda command, **_: given.append([str(c) for c in command[4:]]))
    setup_env.install(tmp_path, [], missing)
    return given


def test_a_server_without_libgl_never_installs_the_desktop_wheel(monkeypatch, tmp_path, capsys):
    given = fake_install(monkeypatch, tmp_path, [{}, {"opencv-python-headless": "5"}], ["libGL.so.1"])
    assert len(given) == 2
    assert "opencv-python-headless>=5.0,<5.1" in given[0]
    assert "opencv-python>=5.0,<5.1" not in given[0]
    assert given[1] == ["install", "-q", "--no-deps", "-e", str(ROOT)]
    assert "no libGL.so.1 here" in capsys.readouterr().out


def test_a_desktop_wheel_whose_library_went_away_is_replaced(monkeypatch, tmp_path):
    states = [{"opencv-python": "5"}, {"opencv-python-headless": "5"}]
    given = fake_install(monkeypatch, tmp_path, states, ["libGL.so.1"])
    assert given[0] == ["uninstall", "-y", "opencv-python", "opencv-python-headless"]


def test_a_headless_wheel_installed_by_hand_stays(monkeypatch, tmp_path):
    given = fake_install(monkeypatch, tmp_path, [{"opencv-python-headless": "5"}] * 2, [])
    assert "opencv-python-headless>=5.0,<5.1" in given[0]


def test_a_machine_with_a_display_takes_the_desktop_wheel(monkeypatch, tmp_path):
    given = fake_install(monkeypatch, tmp_path, [{}, {"opencv-python": "5"}], [])
    assert "opencv-python>=5.0,<5.1" in given[0]


def test_up_to_date_means_the_same_files_libraries_and_python():
    stamps = {
        setup_env.stamp_text("3.11", ["test"], []),
        setup_env.stamp_text("3.12", ["test"], []),
        setup_env.stamp_text("3.11", [], []),
        setup_env.stamp_text("3.11", ["test"], ["libGL.so.1"]),
    }
    assert len(stamps) == 4
    assert setup_env.stamp_text("3.11", ["test"], []) in stamps


# Runs the words after it where the system's library folder has no libGL: an overlay in a mount namespace of its own.
HIDING = """
set -e
mount -t tmpfs tmpfs "$1"; mkdir "$1/upper" "$1/work"
for folder in /usr/lib/x86_64-linux-gnu /usr/lib/aarch64-linux-gnu /usr/lib64; do
    if [ -d $folder ] && [ ! -L $folder ]; then
        mkdir -p "$1/upper$folder" "$1/work$folder"
        mount -t overlay overlay -o "lowerdir=$folder,upperdir=$1/upper$folder,workdir=$1/work$folder" $folder
        rm -f $folder/libGL.so*
    fi
done
shift; "$@"
"""


def test_the_library_really_hidden_is_noticed(tmp_path):
    hide = ["unshare", "-m", "bash", "-c", HIDING, "bash", str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run([*hide, "true"], capture_output=True).returncode:
        pytest.skip("needs unshare and overlay mounts (root) to hide libGL from a process")
    code = (
        "import sys; sys.path.insert(0, 'tools'); import setup_env; found = setup_env.missing_libraries()\n"
        "try:\n    import cv2\nexcept ImportError as error:\n    from visionkit import opencv_check\n"
        "    print(found, opencv_check.explain(error).slug)\nelse:\n    print(found, 'loaded')"
    )
    env = {name: value for name, value in os.environ.items() if name != "VISIONKIT_HIDE_LIBGL"}
    done = subprocess.run([*hide, sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    # The wheel of this environment may be either: the headless one loads, the desktop one is explained.
    assert done.stdout in ("['libGL.so.1'] loaded\n", "['libGL.so.1'] opencv-needs-libgl\n"), done.stderr
