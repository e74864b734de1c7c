"""The set of an edge device runs exported models on video: no TensorFlow is there, and the rows are the same."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.installs import call, edge_environment, need_index
from tests.tasks.cards import write_card
from tests.tasks.made_artifacts import int8_artifact, made_artifact
from tests.tasks.made_detect import write_detect_card
from tests.tasks.made_segment import write_segment_card
from visionkit.resources import models_dir

pytestmark = pytest.mark.timeout(900)

MISSING = ("tensorflow", "keras", "tf_keras", "onnxruntime", "openvino", "av", "supervision", "scipy", "numba", "h5py")
SPY = f"""
import atexit, importlib.util, sys
there = [name for name in {MISSING!r} if importlib.util.find_spec(name)]
sys.stderr.write("installed: " + " ".join(there) + "\\n")
from visionkit.cli import main
main(sys.argv[1:])
"""


def frames(count):
    """Coloured clouds with a disc that moves to the right."""
    small = np.random.default_rng(5).integers(0, 256, (5, 7, 3), np.uint8)
    for place in range(count):
        image = cv2.resize(small, (160, 120), interpolation=cv2.INTER_CUBIC)
        cv2.circle(image, (30 + 8 * place, 60), 18, (30, 60, 230), -1)
        yield image


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A clip, and exported models of each task with random weights."""
    need_index()
    folder = tmp_path_factory.mktemp("edge")
    writer = cv2.VideoWriter(str(folder / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (160, 120))
    for image in frames(12):
        writer.write(image)
    writer.release()
    card = write_card(folder / "classify", size_hw=(48, 56), gain=0.2)
    made_artifact(card, "litert")
    int8_artifact(card, folder / "int8.tflite", list(frames(8)))
    made_artifact(write_segment_card(folder / "segment"), "litert")
    made_artifact(write_detect_card(folder / "detect"), "litert")
    made_artifact(shutil.copytree(models_dir() / "siambox_light", folder / "track"), "litert")
    return folder


COMMANDS = {
    "classify": ["classify", "clip.avi", "--model", "classify_litert.tflite"],
    "classify int8": ["classify", "clip.avi", "--model", "int8.tflite", "--smooth", "0"],
    "segment": ["segment", "clip.avi", "--model", "segment_litert.tflite"],
    "track": ["track", "clip.avi", "--box", "12,42,36,36", "--model", "track_litert.tflite"],
    "detect": ["detect", "clip.avi", "--model", "detect_litert.tflite", "--conf", "0.02"],
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_an_exported_model_gives_the_same_rows(words, folder, tmp_path):
    env = edge_environment()
    on_edge = env.run(
        "python", "-c", SPY, *words, "--out", tmp_path / "edge", cwd=folder, VISIONKIT_CACHE=str(tmp_path)
    )
    assert on_edge.returncode == 0, on_edge.stderr
    assert on_edge.stderr.startswith("installed: \n")
    here = call(sys.executable, "-m", "visionkit", *words, "--no-video", "--out", tmp_path / "here", cwd=folder)
    assert here.returncode == 0, here.stderr
    assert len(rows(tmp_path / "edge")) == 12
    assert rows(tmp_path / "edge") == rows(tmp_path / "here")
    told, other = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("edge", "here"))
    assert told["model"] == other["model"]
    assert told["model"]["runtime"] == "litert"
    assert told["model"]["precision"] == ("int8-io" if "int8.tflite" in words else "float32")
    seen = cv2.VideoCapture(str(tmp_path / "edge" / "annotated.mp4"))  # drawn and written by OpenCV alone
    assert seen.get(cv2.CAP_PROP_FRAME_COUNT) == 12
    seen.release()
    if words[0] == "segment":
        masks = sorted((tmp_path / "edge" / "masks").iterdir())
        assert len(masks) == 12
        assert [path.read_bytes() for path in masks] == [
            (tmp_path / "here" / "masks" / path.name).read_bytes() for path in masks
        ]


def rows(folder: Path) -> list[dict]:
    """What was found, without times: readers of OpenCV and of PyAV tell them alike to the millisecond only."""
    kept = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in ("pts_ms", "duration_ms")} for row in kept]


@pytest.mark.parametrize(
    ("words", "package"),
    [
        (["segment", "clip.avi", "--model", "segment_litert.tflite", "--crf"], "numba"),
        (["detect", "clip.avi", "--model", "detect_litert.tflite", "--track"], "scipy"),
        (["detect", "clip.avi", "--model", "detect_litert.tflite", "--zone", "0,0,50,0,50,50"], "supervision"),
        (["classify", "clip.avi", "--model", "sign_digits"], "keras"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_the_set_lacks_is_told_by_name(words, package, folder, tmp_path):
    done = edge_environment().run(
        "visionkit", *words, "--no-video", "--out", tmp_path / "out", cwd=folder, VISIONKIT_CACHE=str(tmp_path)
    )
    assert done.returncode == 2, done.stderr
    assert "error[package-missing]" in done.stderr
    assert f"pip install {package}" in done.stderr
    assert "Traceback" not in done.stderr
