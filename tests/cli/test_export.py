"""`visionkit export`: what it writes, says and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from tests.export.unsaturated import pictures, small_card
from visionkit.cli.shell import run
from visionkit.weights.artifact import read_artifact

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return small_card(tmp_path_factory.mktemp("cards") / "tiny")[0].folder


def test_a_tflite_is_written_where_one_stands(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["export", str(folder), "--format", "litert"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'tiny.tflite'}: litert, ")
    assert [line.split()[0] for line in lines[1:5]] == ["SIGNATURE", "embed", "raw", "serving_default"]
    assert "image: uint8 (1, 40, 56, 3)" in lines[4]
    assert any(line.startswith("checked serving_default: probabilities within ") for line in lines)
    assert lines[-1].startswith("by ai-edge-litert ")
    assert lines[-1].endswith(" alone, on 2 images")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.tflite"]
    artifact = read_artifact(tmp_path / "tiny.tflite")
    assert artifact is not None
    assert artifact.made["source"] == "tiny"


def test_it_is_not_written_twice(folder, tmp_path, capsys):
    place = tmp_path / "a.keras"
    place.write_bytes(b"mine")
    assert run(["export", str(folder), "--format", "keras", "--out", str(place)]) == 6
    assert "error[exists]" in capsys.readouterr().err
    assert place.read_bytes() == b"mine"
    assert run(["export", str(folder), "--format", "keras", "--out", str(place), "--overwrite", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["format"] == "keras"
    assert told["bytes"] == place.stat().st_size
    assert told["checked"][""]["0"] <= 1e-4


def test_size_weights_and_probes(folder, tmp_path, capsys):
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), pictures()[0])
    words = ["export", str(folder), "--format", "litert", "--out", str(tmp_path / "a.tflite"), "--imgsz", "48,64"]
    words += ["--weights", str(folder / "small.weights.h5"), "--probe", str(photo)]
    assert run(words) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("on 1 image")
    artifact = read_artifact(tmp_path / "a.tflite")
    assert artifact is not None
    assert artifact.probes()["image_0"].shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["tiny_", "--format", "litert"], 5, "error[unknown-model]"),
        (["{card}", "--format", "litert", "--out", "a.keras"], 2, "error[name-unfit]"),
        (["{card}", "--format", "litert", "--out", "none/a.tflite"], 6, "error[output-unwritable]"),
        (["{card}", "--format", "litert", "--crf"], 2, "error[option-unfit]"),
        (["{card}", "--format", "onnx", "--allow-select-tf-ops"], 2, "error[option-unfit]"),
        (["{card}", "--format", "tfjs"], 2, "tfjs"),
        (["{card}"], 2, "--format"),
    ],
)
def test_mistakes_have_their_codes(words, code, told, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["export", *(word.replace("{card}", str(folder)) for word in words)]) == code
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_is_told_without_tensorflow(folder, tmp_path):
    words = ["export", str(folder), "--format", "litert", "--out", str(tmp_path / "no" / "a.tflite")]
    code = (
        "import sys; from visionkit.cli.shell import run\n"
        f"code = run({words!r})\n"
        "print(code, sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "6 []", done.stderr
