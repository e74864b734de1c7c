"""Detect, rectify, classify as one line of stages; failed frames; the crops' video."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.tasks.cards import write_card
from tests.tasks.made_transform import write_transformer_card
from visionkit.errors import ModelError
from visionkit.io.results import frame_row
from visionkit.pipeline import ClassifyCropsStage, Item, RectifiedSink, RectifyStage, TaskStage, Writing, run, stream
from visionkit.structures import Detections, Frame
from visionkit.tasks import BoxRectifier, CornerRectifier, load_classifier, load_rectifier

COUNT, SIZE_HW, FPS = 9, (66, 90), 12.5
CORNERS = [(10.0, 5.0), (80.0, 12.0), (70.0, 60.0), (4.0, 55.0)]
BOXES = np.array([[10, 6, 50, 40], [200, 10, 220, 30], [40, 20, 95, 70]], np.float32)  # the second is outside


def pictures() -> list[np.ndarray]:
    coarse = np.random.default_rng(8).integers(0, 120, (5, 7, 3), np.uint8)
    ground = cv2.resize(coarse, SIZE_HW[::-1], interpolation=cv2.INTER_CUBIC)
    tint = [[5 * i, 100, 130 - 5 * i] for i in range(COUNT)]
    return [np.clip(ground.astype(int) + t, 0, 255).astype(np.uint8) for t in tint]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, SIZE_HW[::-1])
    for image in pictures():
        writer.write(image)
    writer.release()
    return path


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    card = write_card(tmp_path_factory.mktemp("cards") / "colors")
    task = load_classifier(card, runtime="litert", threads=1, topk=2)
    yield task
    task.close()


def detector(images):
    count = len(BOXES)
    return [Detections(BOXES, np.full(count, 0.9, np.float32), np.arange(count)) for _ in images]


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["boxes", "transformer"])
def test_detect_rectify_classify(clip, classifier, tmp_path, kind):
    if kind == "boxes":
        rectifier = BoxRectifier(classifier.rule.size_hw)
    else:
        card = write_transformer_card(tmp_path / "card", [0.5, -0.1, 0.1, 0.1, 0.5, 0])
        rectifier = load_rectifier(card, runtime="litert", threads=1)
    stages = [
        TaskStage(detector, name="detect"),
        RectifyStage(rectifier, boxes="detect"),
        ClassifyCropsStage(classifier, smooth_s=1.0),
    ]
    result = run(clip, stages, writing=Writing(out=tmp_path / "out", video=False), progress=False)
    rows = rows_of(result.out)
    assert [row["pts_ms"] for row in rows] == pytest.approx([1000 / FPS * i for i in range(COUNT)], abs=0.01)
    for (frame, _), row in zip(stream(clip, stages[0]), rows, strict=True):
        assert len(row["detections"]) == len(row["rectified"]) == 3
        assert row["rectified"][1] is None
        for box, entry in ((BOXES[0], row["rectified"][0]), (BOXES[2], row["rectified"][2])):
            crop = rectifier.inside(frame.image, box)
            answer = frame_row(frame, classifier(crop.image), class_names=classifier.labels)
            assert entry["classes"] == answer["classes"]
            assert entry["size_hw"] == list(crop.size_hw)
            np.testing.assert_allclose(entry["homography"], crop.homography, rtol=1e-8, atol=1e-8)
        assert "classes" not in row
    rectifier.close()


def test_one_crop_a_frame_is_classified_as_a_frame_would_be(clip, classifier, tmp_path):
    rectifier = CornerRectifier(CORNERS, (40, 56))
    stages = [RectifyStage(rectifier), ClassifyCropsStage(classifier)]
    rows = rows_of(run(clip, stages, writing=Writing(out=tmp_path / "out", video=False), progress=False).out)
    for (frame, crop), row in zip(stream(clip, RectifyStage(rectifier)), rows, strict=True):
        expected = frame_row(frame, classifier(crop.image), class_names=classifier.labels)
        assert row["classes"] == expected["classes"]
        assert row["rectified"]["direction"] == "crop-to-image"


def test_a_failed_frame_is_black_and_told(clip, tmp_path):
    class Failing(CornerRectifier):
        def whole(self, image):
            if np.array_equal(image, bad):
                raise ModelError("region-unfit", "made to fail")
            return super().whole(image)

    bad = [frame.image for frame, _ in stream(clip, RectifyStage(CornerRectifier(CORNERS)))][4]
    stage = RectifyStage(Failing(CORNERS, (48, 64)))
    out = tmp_path / "out"
    result = run(
        clip, [stage], writing=Writing(out=out, codec="mjpeg", video=False), sinks=[RectifiedSink(stage, codec="mjpeg")]
    )
    assert (result.status, result.exit_code) == ("damaged", 4)
    rows = rows_of(out)
    assert [row.get("error") for row in rows] == [None] * 4 + ["rectify: made to fail"] + [None] * 4
    assert "rectified" not in rows[4]
    told = json.loads((out / "run.json").read_text())
    assert told["files"]["rectified"]["frames"] == COUNT
    capture = cv2.VideoCapture(str(out / told["files"]["rectified"]["file"]))
    frames = [capture.read()[1] for _ in range(COUNT)]
    assert [int(frame.mean()) < 5 for frame in frames] == [False] * 4 + [True] + [False] * 4


def test_an_item_counts_the_bytes_of_its_crops():
    image = pictures()[0]
    item = Item(Frame(image, 0, None, None, "x.png"))
    item.results["rectify"] = CornerRectifier(CORNERS, (10, 20))(image)
    assert item.nbytes == image.nbytes + 10 * 20 * 3
    item.results["more"] = [item.results["rectify"], None]
    assert item.nbytes == image.nbytes + 2 * 10 * 20 * 3
