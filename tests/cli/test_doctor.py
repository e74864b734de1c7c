"""`visionkit doctor`: the truth about this machine, found without TensorFlow."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

import visionkit
from visionkit.cli import doctor
from visionkit.cli.shell import run
from visionkit.weights import list_cards

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def facts() -> dict:
    code = (
        "import json, sys; from visionkit.cli.doctor import examine; facts = examine()\n"
        "print(json.dumps(facts | {'loaded': sorted({'tensorflow', 'keras'} & set(sys.modules))}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_versions_are_those_installed(facts):
    assert facts["visionkit"] == visionkit.__version__
    assert facts["packages"]["tensorflow"] == importlib.metadata.version("tensorflow")
    assert facts["opencv"]["version"] == cv2.__version__
    assert len(facts["opencv"]["wheels"]) == 1
    assert facts["loaded"] == []
    assert facts["problems"] == []


def test_encoders_are_tried(facts):
    status = {(one["backend"], one["name"]): one["ok"] for one in facts["encoders"]}
    assert status["pyav", "libx264"] is True
    assert status["opencv", "MJPG"] is True
    assert set(facts["ffmpeg"]) == {"pyav", "opencv"}
    assert facts["ffmpeg"]["opencv"]["libavcodec"][0].isdigit()


def test_cores_and_models(facts):
    assert 1 <= facts["cores"]["usable"] <= os.cpu_count()
    states = {one["name"]: one["weights"] for one in facts["models"]}
    shipped = {card.name for card in list_cards() if card.weights[0].file}
    assert shipped
    assert {states[name] for name in shipped} == {"ok"}
    assert {states[name] for name in states.keys() - shipped} <= {"ok", "not fetched"}


def test_text_marks_problems_and_the_exit_code_tells(monkeypatch, capsys, facts):
    monkeypatch.setattr(doctor, "examine", lambda: facts)
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "  h264   libx264 (pyav)         ok\n" in out
    assert "!" not in out
    monkeypatch.setattr(doctor, "examine", lambda: facts | {"problems": ["Something is \x1b[31mmissing."]})
    assert run(["doctor"]) == 1
    assert capsys.readouterr().out.endswith("! Something is \\x1b[31mmissing.\n")


def test_two_wheels_of_opencv_are_a_problem(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: "5.0.0.93" if "contrib" not in name else None)
    problems: list[str] = []
    assert set(doctor._opencv(problems)["wheels"]) == {"opencv-python", "opencv-python-headless"}
    assert problems == [
        "opencv-python and opencv-python-headless are both installed and own the same files: "
        "uninstall both, then install one."
    ]


def test_an_opencv_that_does_not_load_is_a_problem_with_a_remedy(tmp_path):
    (tmp_path / "cv2").mkdir()
    (tmp_path / "cv2" / "__init__.py").write_text('raise ImportError("libGL.so.1: cannot open shared object file")\n')
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", "visionkit", "doctor", "--json"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 1
    facts = json.loads(done.stdout)
    assert facts["opencv"]["version"] is None
    assert "no libGL.so.1" in facts["problems"][0]
    assert "opencv-python-headless" in facts["problems"][0]
