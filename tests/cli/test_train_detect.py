"""`train detect` and `eval detect` on the command line, from pictures with boxes to numbers."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.train.rendered_boxes import NAMES, write_voc
from visionkit.cli.shell import run as shell
from visionkit.weights import load_card

SMALL = (
    *("--arg", "backbone=small", "--arg", "width_multiplier=0.5", "--arg", "first_stride=8", "--arg", "extras=[]"),
    *("--arg", "pyramid=24", "--arg", "scales=[0.2,0.3,0.45,0.6]", "--imgsz", "72,96", "--learning-rate", "4e-3"),
)


@dataclass
class Result:
    exit_code: int
    stdout: str
    stderr: str


def run(*arguments: object) -> Result:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = shell([str(argument) for argument in arguments])
    return Result(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_voc(root, {"train": 24, "val": 6, "test": 4})
    (root / "Annotations" / "train000.xml").write_text("<annotation><obj")
    return root


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "shapes"
    given = ("train", "detect", "--data", data, "--out", out, "--repeats", 2, "--mosaic", 0, "--average", 0.5, *SMALL)
    result = run(*given, "--epochs", 2)
    assert result.exit_code == 0, result.stderr
    assert "train000.xml is no XML" in result.stderr
    other = run(*given, "--epochs", 4)
    assert other.exit_code == 2
    assert "epochs 2 then, 4 now" in other.stderr
    return out


def test_training_leaves_a_card_weights_and_a_report(model: Path) -> None:
    card = load_card(str(model))
    assert (card.task, card.network, card.labels) == ("detect", "ssdlite", NAMES)
    assert card.args["pyramid"] == 24
    assert card.trained is not None
    assert card.trained.command.startswith("visionkit")
    state = json.loads((model / "state.json").read_text())
    assert [row["epoch"] for row in state["history"]] == [1, 2]
    assert state["history"][1]["loss"] < state["history"][0]["loss"]
    html = (model / "report.html").read_text()
    for part in ("Precision over recall", "The worst images", "Each class", "train000.xml"):
        assert part in html
    assert "<script" not in html
    assert "http:" not in html


def test_evaluation_of_the_model_and_of_stored_rows_agree(model: Path, data: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    given = ("eval", "detect", "--data", data, "--part", "test")
    found = run(*given, "--model", model, "--runtime", "keras", "--json", "--no-coco", "--report", page)
    assert found.exit_code == 4, found.stderr  # one annotation is broken
    table = json.loads(found.stdout)
    assert table["images"] == 4
    assert [row["class_name"] for row in table["classes"]] == list(NAMES)
    assert 0 <= table["map50"] <= 1
    assert "precision over recall" in page.read_text()
    out = tmp_path / "run"
    detected = run(
        *("detect", data / "JPEGImages", "--model", model, "--runtime", "keras", "--conf", 0.01, "--out", out),
    )
    assert detected.exit_code == 0, detected.stderr
    stored = run(*given, "--results", out / "results.jsonl", "--json", "--no-coco")
    assert stored.exit_code == 4
    again = json.loads(stored.stdout)
    assert again["images"] == 4
    np.testing.assert_allclose(again["map50"], table["map50"], atol=0.02)  # rows are rounded to 1/100 pixel


def test_mistakes_in_the_request(model: Path, data: Path, tmp_path: Path) -> None:
    assert run("eval", "detect", "--data", data).exit_code == 2
    missing = run("train", "detect", "--data", tmp_path / "none", "--out", tmp_path / "out")
    assert (missing.exit_code, "error[input-missing]" in missing.stderr) == (3, True)
    (tmp_path / "empty").mkdir()
    empty = run("train", "detect", "--data", tmp_path / "empty", "--out", tmp_path / "out")
    assert "error[no-boxes]" in empty.stderr
    network = run("train", "detect", "--data", data, "--out", tmp_path / "out", "--network", "vgg16")
    assert (network.exit_code, "is no detector" in network.stderr) == (2, True)
    argument = run("train", "detect", "--data", data, "--out", tmp_path / "out", "--arg", "widht=3")
    assert "error[network-arguments]" in argument.stderr
    given = ("eval", "detect", "--data", data, "--model", model, "--runtime", "keras")
    part = run(*given, "--part", "train", "--limit", 1)
    assert part.exit_code == 4
