"""`visionkit train classify` and `visionkit eval classify` as a user types them."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.train.rendered import SHAPES, write_shapes
from visionkit.cli.shell import run
from visionkit.weights import load_card

SMALL = ["--arg", "depths=[1,1,1]", "--arg", "width=8", "--arg", "stem=small", "--imgsz", "24,28", "--batch", "16"]


def train(data: Path, out: Path, *more: str) -> int:
    return run(["train", "classify", "--data", str(data), "--out", str(out), *SMALL, *more])


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"), 40)


@pytest.fixture(scope="module")
def model(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "mine"
    options = ["--epochs", "40", "--learning-rate", "6e-3", "--augment", "0.4", "--val", "0.2", "--test", "0.2"]
    assert train(shapes, out, *options) == 0
    return out


def test_the_folder_is_a_model_with_a_report(model: Path) -> None:
    card = load_card(model)
    assert card.task == "classify"
    assert card.labels == SHAPES
    assert card.input["size_hw"] == [24, 28]
    assert card.weights_path().name == "mine.weights.h5"
    assert card.trained is not None
    assert card.metrics[0].value > 0.85
    html = (model / "report.html").read_text(encoding="utf-8")
    assert "<svg" in html
    assert "default-src 'none'" in html


def test_what_was_held_back_is_measured_through_the_task(
    model: Path, shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["eval", "classify", "--model", str(model), "--data", str(shapes), "--runtime", "keras"]
    split = ["--split", str(model / "split.json"), "--part", "test"]
    assert run([*common, *split, "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["images"] == 24
    assert table["top1"] > 0.85
    low, high = table["top1_interval95"]
    assert low <= table["top1"] <= high
    assert [row["class_name"] for row in table["classes"]] == list(SHAPES)
    assert sum(map(sum, table["confusion"])) == 24
    assert table["model"]["runtime"] == "keras"
    assert run([*common, "--batch", "5"]) == 0
    text = capsys.readouterr().out
    assert "mine: 120 images" in text
    assert re.search(r"^circle +40 ", text, re.MULTILINE)


def test_eval_tells_damage_and_leaves_it_out(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_shapes(tmp_path / "data", 2)
    (data / "cross" / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    command = ["eval", "classify", "--model", str(model), "--data", str(data), "--runtime", "keras", "--json"]
    assert run(command) == 4
    shown = capsys.readouterr()
    assert "cross/bad.jpg" in shown.err
    table = json.loads(shown.out)
    assert table["images"] == 6
    assert [damage["name"] for damage in table["damaged"]] == ["cross/bad.jpg"]


def test_a_model_is_trained_on_for_other_classes(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_shapes(tmp_path / "data", 12)
    (data / "square").rename(data / "block")
    for path in (data / "circle").iterdir():
        path.unlink()
    (data / "circle").rmdir()
    command = ["train", "classify", "--data", str(data), "--out", str(tmp_path / "out"), "--from", str(model)]
    assert run([*command, "--freeze", "--epochs", "6", "--batch", "8", "--augment", "0"]) == 0
    card = load_card(tmp_path / "out")
    assert card.labels == ("block", "cross")
    assert card.args["width"] == 8
    assert card.input["size_hw"] == [24, 28]
    # frozen, the trunk is the source's but for the rounding to half precision it already had
    import h5py
    import numpy as np

    name = "layers/conv2d/vars/0"
    with h5py.File(model / "mine.weights.h5") as a, h5py.File(tmp_path / "out" / "out.weights.h5") as b:
        found = [key for key in (name, "layers/conv1/vars/0") if key in a]
        assert found
        assert np.array_equal(a[found[0]], b[found[0]])


def test_ctrl_c_saves_and_the_same_command_goes_on(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def press() -> None:
        until = time.monotonic() + 100
        while not (out / "state.json").exists() and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    code = train(shapes, out, "--epochs", "3000")
    thread.join()
    assert code == 130
    assert "the same command goes on" in capsys.readouterr().err
    state = json.loads((out / "state.json").read_text())
    assert state["step"] > 0
    assert not (out / "card.toml").exists()
    assert train(shapes, out, "--epochs", "2") == 2
    assert "training-differs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["--freeze"], 2, "--from"),
        (["--from", "a", "--network", "b"], 2, "not both"),
        (["--val", "0.6", "--test", "0.5"], 2, "nothing to learn from"),
        (["--imgsz", "0"], 2, "height,width"),
        (["--arg", "width"], 2, "KEY=VALUE"),
        (["--network", "nonsense"], 2, "nonsense"),
        (["--from", "siambox_light"], 5, "not to classify"),
        (["--split", "missing.json"], 3, "missing.json"),
    ],
)
def test_mistakes_are_told_in_one_line(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, told: str
) -> None:
    command = ["train", "classify", "--data", str(shapes), "--out", str(tmp_path / "out"), *options]
    assert run(command) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert told in lines[-1]
    assert lines[-1].startswith("visionkit: error[")


def test_eval_needs_a_classifier_and_its_classes(
    model: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["eval", "classify", "--data", str(shapes)]) == 2
    assert run(["eval", "classify", "--data", str(shapes), "--model", "siambox_light"]) == 5
    data = write_shapes(tmp_path / "data", 1)
    (data / "cross").rename(data / "tree")
    assert run(["eval", "classify", "--data", str(data), "--model", str(model)]) == 3
    assert "tree" in capsys.readouterr().err
