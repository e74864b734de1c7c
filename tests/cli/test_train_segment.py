"""`train segment`, `eval segment` and `train composites` on the command line, from pictures to numbers."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.train.rendered_masks import NAMES, write_camvid
from visionkit.cli.shell import run as shell
from visionkit.weights import load_card

SIZE = (32, 48)


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
    root = write_camvid(tmp_path_factory.mktemp("data"), {"train": 12, "val": 4}, SIZE)
    (root / "names.txt").write_text("\n".join(NAMES))
    cv2.imwrite(str(root / "train" / "alone.png"), np.zeros((*SIZE, 3), np.uint8))
    return root


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "shapes"
    result = run(
        *("train", "segment", "--data", data, "--labels", data / "names.txt", "--out", out, "--epochs", 6),
        *("--arg", "width=8", "--arg", "depth=2", "--arg", "stem_stride=1", "--learning-rate", 0.01),
    )
    assert result.exit_code == 0, result.stderr
    assert "epoch 6/6" in result.stderr
    assert "val mean IU" in result.stderr
    assert "alone.png has no mask in trainannot/" in result.stderr
    return out


def test_training_leaves_a_card_weights_and_a_report(model: Path) -> None:
    card = load_card(str(model))
    assert card.task == "segment"
    assert card.labels == NAMES
    assert tuple(card.input["size_hw"]) == SIZE
    assert card.trained is not None
    assert card.trained.command.startswith("visionkit")
    assert card.weights_path().stat().st_size < 500_000
    html = (model / "report.html").read_text()
    assert html.count("<img ") == 3 * 4  # image, truth, answer of each validation image
    assert "alone.png" in html
    assert json.loads((model / "split.json").read_text())["val"] == [f"val/{k:04d}.png" for k in range(4)]


def test_evaluation_through_the_task_agrees_with_the_training(model: Path, data: Path, tmp_path: Path) -> None:
    page = tmp_path / "eval.html"
    result = run(
        *("eval", "segment", "--model", model, "--data", data, "--labels", data / "names.txt", "--runtime", "litert"),
        *("--crf", "--crf-iterations", 2, "--crf-arg", "theta_alpha=10", "--trimap", "--report", page, "--json"),
    )
    assert result.exit_code == 4, result.stderr  # the image without a mask
    answer = json.loads(result.stdout)
    trained = {metric.name: metric.value for metric in load_card(str(model)).metrics}
    assert answer["images"] == 4
    # half precision in the file, bilinear enlarging in the task: not the same to the last digit
    assert answer["network"]["mean_iu"] == pytest.approx(trained["mean IU"], abs=0.02)
    assert answer["network"]["pixels"] == 4 * SIZE[0] * SIZE[1]
    assert len(answer["mean_iu_by_iteration"]) == 3
    assert answer["mean_iu_by_iteration"][-1] == answer["crf"]["mean_iu"]
    assert [band["width"] for band in answer["network"]["trimap"]] == sorted(
        band["width"] for band in answer["crf"]["trimap"]
    )
    assert page.read_text().count("<svg") == 2


def test_evaluation_prints_tables(model: Path, data: Path) -> None:
    result = run("eval", "segment", "--model", model, "--data", data, "--runtime", "litert", "--limit", 2)
    assert "2 images" in result.stdout
    for word in ("mean IU", "frequency-weighted IU", "pixel accuracy", "triangle"):
        assert word in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "slug"),
    [
        (["train", "segment", "--data", "nowhere", "--out", "x"], 3, "input-missing"),
        (["eval", "segment", "--data", "."], 2, "model-needed"),
        (["eval", "segment", "--model", "sign_digits", "--data", "DATA"], 5, "model-unfit"),
        (["eval", "segment", "--model", "MODEL", "--data", "DATA", "--labels", "camvid"], 5, "model-unfit"),
        (["eval", "segment", "--model", "MODEL", "--data", "DATA", "--crf-arg", "theta_beta=3"], 2, "options-clash"),
        (["eval", "segment", "--model", "MODEL", "--data", "DATA", "--crf", "--crf-arg", "beta=3"], 2, "crf-arguments"),
        (["eval", "segment", "--model", "MODEL", "--data", "DATA", "--part", "test"], 3, "no-masks"),
        (["train", "composites", "--objects", "hand=nowhere", "--out", "x"], 3, "input-missing"),
        (["train", "composites", "--objects", "hand=DATA", "--skin", "face", "--out", "x"], 2, "unknown-class"),
    ],
)
def test_bad_arguments_end_with_a_line_and_a_code(
    arguments: list[str], code: int, slug: str, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    there = {"DATA": str(data), "MODEL": str(model)}
    result = run(*(there.get(argument, argument) for argument in arguments))
    assert result.exit_code == code, result.stderr
    assert f"error[{slug}]" in result.stderr


def test_ctrl_c_saves_and_tells_how_to_go_on(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def press() -> None:
        until = time.monotonic() + 100
        while not (out / "state.json").exists() and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    small = ("--arg", "width=8", "--arg", "depth=2", "--epochs", 3000)
    result = run("train", "segment", "--data", data, "--out", out, *small)
    thread.join()
    assert result.exit_code == 130
    assert "the same command goes on" in result.stderr
    assert json.loads((out / "state.json").read_text())["step"] > 0
    assert not (out / "card.toml").exists()


def photos(root: Path, count: int) -> Path:
    """Discs of one colour on paper that darkens to one side."""
    root.mkdir(parents=True)
    for k in range(count):
        rng = np.random.default_rng(k)
        image = np.full((60, 70, 3), 205.0) - np.linspace(0, 40, 70)[None, :, None] + rng.normal(0, 2, (60, 70, 3))
        centre = (int(rng.integers(25, 45)), int(rng.integers(22, 38)))
        cv2.circle(image, centre, int(rng.integers(10, 16)), (60, 90, 190), -1)
        cv2.imwrite(str(root / f"{k}.png"), np.clip(image, 0, 255).astype(np.uint8))
    return root


def test_composites_can_be_trained_on_and_come_out_the_same_again(tmp_path: Path) -> None:
    objects = photos(tmp_path / "discs", 8)
    background = photos(tmp_path / "behind", 2)

    def make(out: Path) -> dict[str, bytes]:
        arguments = ("--objects", f"disc={objects}", "--background", background, "--count", 6, "--val-count", 2)
        result = run("train", "composites", *arguments, "--imgsz", "48,64", "--out", out)
        assert result.exit_code == 0, result.stderr
        assert "disc: 7 objects to learn from, 1 to choose on" in result.stderr
        return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}

    first = make(tmp_path / "a")
    assert first == make(tmp_path / "b")
    assert first["labels.txt"] == b"background\ndisc\n"
    masks = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted((tmp_path / "a").rglob("masks/*.png"))]
    assert len(masks) == 8
    assert {int(k) for mask in masks for k in np.unique(mask)} == {0, 1}
    again = run("train", "composites", "--objects", f"disc={objects}", "--out", tmp_path / "a")
    assert again.exit_code == 6
    assert "output-exists" in again.stderr
