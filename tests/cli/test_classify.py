"""`visionkit classify`: rows equal to the API, options by value, images and videos, what is told."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import visionkit as vk
from tests.tasks.cards import COLORS, write_card
from visionkit.cli.shell import run
from visionkit.io.results import frame_row
from visionkit.structures import Frame

COUNT, SIZE_HW, FPS = 21, (66, 90), 12.5
HOW = {"runtime": "litert", "threads": 1}
ARGS = ["--runtime", "litert", "--threads", "1"]


@pytest.fixture(scope="module")
def card(tmp_path_factory) -> Path:
    return write_card(tmp_path_factory.mktemp("cards") / "colors")


def pictures() -> list[np.ndarray]:
    """A colour that wanders, over coarse noise."""
    coarse = np.random.default_rng(8).integers(0, 120, (5, 7, 3), np.uint8)
    ground = cv2.resize(coarse, SIZE_HW[::-1], interpolation=cv2.INTER_CUBIC)
    tint = [[5 * i, 100, 130 - 5 * i] for i in range(COUNT)]
    return [np.clip(ground.astype(int) + t, 0, 255).astype(np.uint8) for t in tint]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A clip written by OpenCV alone."""
    path = tmp_path_factory.mktemp("clips") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, SIZE_HW[::-1])
    for image in pictures():
        writer.write(image)
    writer.release()
    return path


def images_of(path: Path) -> list[np.ndarray]:
    """Every frame as OpenCV reads it, without VisionKit."""
    capture, images = cv2.VideoCapture(str(path)), []
    while True:
        ok, image = capture.read()
        if not ok:
            capture.release()
            return images
        images.append(image)


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("batch", [1, 8])
def test_vid1_rows_equal_the_api_frame_by_frame(clip, card, tmp_path, batch, capsys):
    out = tmp_path / "out"
    more = ["--smooth", "0", "--batch", str(batch), "--backend", "opencv", "--out", str(out)]
    assert run(["classify", str(clip), "--model", str(card), *ARGS, *more]) == 0
    rows, task = rows_of(out), vk.load(card, **HOW)
    images = images_of(clip)
    assert len(rows) == len(images) == COUNT
    for row, image in zip(rows, images, strict=True):
        frame = Frame(image, row["index"], row["pts_ms"], row["duration_ms"], "clip.avi")
        assert row == frame_row(frame, task(image), class_names=task.labels)
    assert [row["pts_ms"] for row in rows] == pytest.approx([1000 / FPS * i for i in range(COUNT)], abs=0.01)
    swapped = [task(np.ascontiguousarray(image[..., ::-1])) for image in images]
    assert [r["classes"][0]["confidence"] for r in rows] != [round(float(s.confidence[0]), 4) for s in swapped]
    assert len(images_of(out / "annotated.mp4")) == COUNT
    said = capsys.readouterr().err
    assert f"{COUNT} frames in" in said
    assert str(out) in said


def test_smoothing_is_on_by_default_and_equals_the_stream(clip, card, tmp_path):
    out = tmp_path / "out"
    args = [*ARGS, "--no-video", "--backend", "opencv", "--out", str(out)]
    assert run(["classify", str(clip), "--model", str(card), *args]) == 0
    rows, task = rows_of(out), vk.load(card, **HOW)
    smooth = [
        frame_row(f, r, class_names=task.labels) for f, r in vk.stream(clip, task, smooth_s=0.5, backend="opencv")
    ]
    sharp = [frame_row(f, r, class_names=task.labels) for f, r in vk.stream(clip, task, backend="opencv")]
    assert rows == smooth
    assert rows != sharp
    assert json.loads((out / "run.json").read_text())["settings"]["classify"]["smooth_s"] == 0.5


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for place, image in enumerate(pictures()[:5]):
        cv2.imwrite(str(folder / f"{place}.png"), image[: 60 - 9 * place, : 40 + 9 * place])
    return folder


@pytest.mark.parametrize("source", ["photos", "photos/*.png", "photos/3.png"])
def test_images_folders_and_globs(folder, card, tmp_path, source, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["classify", source, "--model", str(card), *ARGS, "--topk", "2", "--out", "out"]) == 0
    rows, task = rows_of(Path("out")), vk.load(card, topk=2, **HOW)
    assert [row["source"] for row in rows] == (
        ["3.png"] if source.endswith("3.png") else [f"{i}.png" for i in range(5)]
    )
    for row in rows:
        image = cv2.imread(str(folder / row["source"]))
        expected = frame_row(Frame(image, row["index"], None, None, row["source"]), task(image), class_names=COLORS)
        assert row == expected
        drawn = cv2.imread(f"out/annotated/{Path(row['source']).stem}.jpg")
        assert drawn.shape == image.shape
        assert np.abs(drawn.astype(int) - image).max() > 60


def test_rows_on_stdout_and_nothing_else(folder, card, capfdbinary):
    args = [*ARGS, "--out", "-", "--classes", "4,0", "--conf", "0.01"]
    assert run(["classify", str(folder), "--model", str(card), *args]) == 0
    told = capfdbinary.readouterr()
    rows = [json.loads(line) for line in told.out.splitlines()]
    assert len(rows) == 5
    assert {c["class_id"] for row in rows for c in row["classes"]} <= {0, 4}
    assert all(c["confidence"] >= 0.01 for row in rows for c in row["classes"])
    assert b"Results in" not in told.err


def test_heads_make_rows_of_heads(folder, tmp_path):
    card = write_card(tmp_path / "both", heads={"color": COLORS, "daytime": ("day", "night")})
    assert run(["classify", str(folder), "--model", str(card), *ARGS, "--out", str(tmp_path / "out")]) == 0
    row = rows_of(tmp_path / "out")[0]
    assert set(row["heads"]) == {"color", "daytime"}
    assert {c["class_name"] for c in row["heads"]["daytime"]} == {"day", "night"}


def test_another_size_of_input(folder, card, tmp_path):
    args = ["--imgsz", "48,32", "--runtime", "keras", "--out", str(tmp_path / "out"), "--no-video"]
    assert run(["classify", str(folder), "--model", str(card), *args]) == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["settings"]["classify"]["size_hw"] == [48, 32]


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--imgsz", "1,2,3"], 2, "up to 2 whole numbers"),
        (["--imgsz", "0"], 2, "of at least 1"),
        (["--classes", "cat"], 2, "whole numbers"),
        (["--classes", ""], 2, "whole numbers"),
        (["--topk", "0"], 2, "--topk"),
        (["--conf", "2"], 2, "--conf"),
        (["--batch", "0"], 2, "--batch"),
        (["--smooth", "-1"], 2, "--smooth"),
        (["--preset", "torch"], 2, "--preset does not go with this model"),
        (["--labels", "x.txt"], 2, "--labels does not go with this model"),
        (["--model", "resnet500"], 5, "There is no model"),
        (["--model", "siambox_light"], 5, "not to classify"),
        (["--model", "gone.tflite"], 5, "does not exist"),
        (["--runtime", "abacus"], 2, "no runtime"),
        (["--start", "1"], 2, "a start or an end needs a video"),
    ],
)
def test_what_cannot_be_meant_is_told_in_one_line(folder, card, tmp_path, monkeypatch, capsys, args, code, words):
    monkeypatch.chdir(tmp_path)
    model = [] if "--model" in args else ["--model", str(card)]
    assert run(["classify", str(folder), *model, *args]) == code
    told = capsys.readouterr().err.strip()
    assert words.lower() in told.lower()
    assert told.count("\n") == 0
    assert not list(tmp_path.rglob("results.jsonl"))


def test_the_default_model_says_what_to_fetch_and_what_needs_nothing(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VISIONKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VISIONKIT_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    assert run(["classify", str(folder)]) == 5
    told = capsys.readouterr().err
    assert "mobilenet_v3_large-5c1a4163.pth" in told
    assert "No download is needed for" in told


def test_live_sources_are_refused(capsys):
    assert run(["classify", "rtsp://user:secret@host/1"]) == 2
    assert "secret" not in capsys.readouterr().err


def test_a_model_file_with_its_options(folder, card, tmp_path, monkeypatch):
    """The options of a model file reach the loader; without a card nothing else tells how it sees."""
    seen, task = {}, vk.load(card, **HOW)

    def load(name, **options):
        seen.update(options, name=name)
        return task

    monkeypatch.setattr("visionkit.tasks.load_classify.load_classifier", load)
    args = ["--model", "mine.tflite", "--labels", "n.txt", "--preset", "unit", "--resize", "letterbox", "--trust-model"]
    assert run(["classify", str(folder), *args, "--out", str(tmp_path / "out"), "--no-video"]) == 0
    assert (seen["name"], seen["labels"], seen["preset"], seen["resize"]) == (
        "mine.tflite",
        "n.txt",
        "unit",
        "letterbox",
    )
    assert seen["trust"] is True
    assert "size_hw" not in seen


def test_the_closing_lines_name_what_was_first_most_often():
    from collections import Counter
    from types import SimpleNamespace

    from visionkit.cli.closing import closing_lines
    from visionkit.pipeline.step_classify import ClassifyStep

    result = SimpleNamespace(
        counts={"rows": 9}, seconds={"flow": 3.0}, out=None, warnings=["w"], status="interrupted", exit_code=130
    )
    step = ClassifyStep(lambda: None, {"batch": 1, "smooth_s": None})
    step.seen = Counter({"cat": 6, "dog": 2, "failed": 1})
    lines = closing_lines(result, result.counts["rows"], step.told())
    assert lines[0] == "9 frames in 3.0 s (3 fps): likeliest cat in 6, dog in 2, failed in 1"
    assert lines[1] == "visionkit: warning: w"
    assert "Stopped by Ctrl-C after 9 frames" in lines[2]
