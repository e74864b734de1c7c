"""What a stranger gets: the wheel in an empty environment, and the small set of an edge device."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.installs import ROOT, built_wheel, edge_environment, full_environment, need_index

pytestmark = pytest.mark.timeout(900)


def test_the_wheel_holds_code_cards_recipes_and_types():
    need_index()
    with zipfile.ZipFile(built_wheel()) as archive:
        names = set(archive.namelist())
        (meta,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = archive.read(meta).decode()
    code = {path.relative_to(ROOT).as_posix() for path in (ROOT / "visionkit").rglob("*.py")}
    data = {f"visionkit/_models/{path.relative_to(ROOT / 'models').as_posix()}" for path in ROOT.glob("models/*/*.*")}
    recipes = {f"visionkit/_pipelines/{path.name}" for path in ROOT.glob("pipelines/*.toml")}
    assert code | data | recipes | {"visionkit/py.typed", "visionkit/_models/README.md"} <= names
    assert [name for name in names if name.startswith(("tests/", "tools/", "benchmarks/"))] == []
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: <3.14,>=3.11" in metadata
    assert "Requires-Dist: opencv-python<5.1,>=5.0" in metadata


def check_demo(done: subprocess.CompletedProcess[str], out: Path) -> None:
    """The demo ended well, told the overlap with the truth, and left a whole folder."""
    assert done.returncode == 0, done.stderr
    overlap = re.search(r"overlap\D*(\d\.\d+)", done.stdout, re.IGNORECASE)
    assert overlap, done.stdout
    assert float(overlap[1]) >= 0.5
    assert str(out / "annotated.mp4") in done.stdout
    assert json.loads((out / "run.json").read_text())["status"] == "complete"
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert len(rows) == len(frame_means(out / "annotated.mp4")) > 0


def test_the_wheel_runs_the_demo_from_another_folder(tmp_path):
    need_index()
    env = full_environment()
    check_demo(env.run("visionkit", "demo", "--out", tmp_path / "demo", cwd=tmp_path), tmp_path / "demo")
    where = env.run("python", "-c", "import visionkit.resources as r; print(r.models_dir())", cwd=tmp_path)
    assert where.stdout.strip().endswith("site-packages/visionkit/_models"), where.stderr


MAKE_TFLITE = """
import sys, keras, tensorflow as tf
inputs = keras.Input((48, 64, 3), batch_size=1, name="image")
mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
model = keras.Model(inputs, keras.layers.Activation("linear", name="mean")(mean))
open(sys.argv[1], "wb").write(tf.lite.TFLiteConverter.from_keras_model(model).convert())
"""

RUN_TFLITE = """
import json, sys
import cv2, numpy as np
from visionkit.io import open_source
from visionkit.runtime import load_tflite

means = []
with load_tflite(sys.argv[1]) as net, open_source(sys.argv[2]) as source:
    (name,) = net.inputs
    for frame in source:
        rgb = cv2.resize(frame.image, (64, 48))[None, ..., ::-1]
        (output,) = net(**{name: np.ascontiguousarray(rgb, np.float32)}).values()
        means.append([frame.index, frame.pts_ms, *map(float, output[0])])
heavy = {"tensorflow", "keras", "tf_keras", "av", "onnxruntime", "supervision"} & set(sys.modules)
print(json.dumps({"rows": means, "heavy": sorted(heavy), "backend": source.info.backend}))
"""


def grey_clip(path: Path, levels: list[int]) -> None:
    """An MPEG-4 clip of 64 x 48 whose frame i is grey `levels[i]`, at 10 frames a second."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48))
    for level in levels:
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()


def frame_means(path: Path) -> list[np.ndarray]:
    """Mean colour (3,) BGR of each frame, as OpenCV reads them here."""
    capture = cv2.VideoCapture(str(path))
    means = []
    while (read := capture.read())[0]:
        means.append(read[1].mean(axis=(0, 1)))
    capture.release()
    return means


def test_edge_set_runs_a_tflite_without_tensorflow(tmp_path):
    need_index()
    subprocess.run([sys.executable, "-c", MAKE_TFLITE, str(tmp_path / "mean.tflite")], check=True, capture_output=True)
    levels = list(range(20, 220, 10))
    grey_clip(tmp_path / "clip.mp4", levels)
    env = edge_environment()
    listed = env.run("python", "-m", "pip", "list", "--format=freeze", cwd=tmp_path).stdout.lower()
    assert "ai-edge-litert==" in listed
    assert not re.search(r"^(tensorflow|keras|tf.keras|av|onnxruntime)==", listed, re.MULTILINE)
    (tmp_path / "run.py").write_text(RUN_TFLITE)
    done = env.run("python", "run.py", "mean.tflite", "clip.mp4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["heavy"], told["backend"]) == ([], "opencv")
    assert [row[:2] for row in told["rows"]] == [[i, pytest.approx(i * 100.0, abs=1)] for i in range(len(levels))]
    for row, bgr in zip(told["rows"], frame_means(tmp_path / "clip.mp4"), strict=True):
        # 3,072 additions in float32: up to 3072 * 2**-24 = 2e-4 relative.
        assert row[2:] == pytest.approx(list(bgr[::-1] / 255), rel=2e-4)


def test_edge_set_has_the_commands_that_need_no_network(tmp_path):
    need_index()
    grey_clip(tmp_path / "clip.mp4", [50, 60, 70])
    env = edge_environment()
    done = env.run("visionkit", "inspect", "--count", "--json", "clip.mp4", cwd=tmp_path)
    assert json.loads(done.stdout)["counted"]["frames"] == 3, done.stderr
    assert env.run("visionkit", "models", "list", cwd=tmp_path).returncode == 0
    doctor = json.loads(env.run("visionkit", "doctor", "--json", cwd=tmp_path).stdout)
    assert doctor["problems"] == []
    assert doctor["packages"]["tensorflow"] is None
    assert {one["name"] for one in doctor["encoders"] if one["ok"]} >= {"mp4v"}
