"""`visionkit.load`, `stream`, `run` as the README uses them."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

import visionkit as vk
from visionkit.errors import ModelError, UsageError
from visionkit.pipeline import FunctionStage
from visionkit.structures import Track


@pytest.fixture
def clip(tmp_path):
    """8 frames of 96 x 64 at 10 frames a second; frame i is grey 20 * i."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (96, 64))
    for index in range(8):
        writer.write(np.full((64, 96, 3), 20 * index, np.uint8))
    writer.release()
    return path


class Drift:
    """A tracker that moves its box one pixel to the right with each image."""

    def init(self, image, xyxy):
        self.xyxy = np.asarray(xyxy, np.float32)
        return Track(self.xyxy, 1.0, "tracking")

    def update(self, image):
        self.xyxy = self.xyxy + np.array([1, 0, 1, 0], np.float32)
        return Track(self.xyxy, 0.5, "uncertain")


def test_stream_follows_with_a_tracker(clip):
    seen = list(vk.stream(clip, Drift(), xyxy=(10, 20, 30, 50)))
    assert [frame.index for frame, _ in seen] == list(range(8))
    assert [frame.pts_ms for frame, _ in seen] == pytest.approx([100 * i for i in range(8)])
    assert [track.xyxy.tolist() for _, track in seen] == [[10 + i, 20, 30 + i, 50] for i in range(8)]
    assert [track.state for _, track in seen] == ["tracking"] + ["uncertain"] * 7


def test_stream_takes_any_callable_and_a_range(clip):
    seen = list(vk.stream(clip, lambda images: [float(image.mean()) for image in images], start_s=0.2, stride=2))
    assert [frame.index for frame, _ in seen] == [2, 4, 6]
    assert [mean for _, mean in seen] == pytest.approx([40, 80, 120], abs=2)


def test_stream_of_a_tracker_without_a_box_is_refused(clip):
    with pytest.raises(UsageError, match="pass `xyxy="):
        vk.stream(clip, Drift())
    with pytest.raises(UsageError) as caught:
        list(vk.stream(clip, Drift(), xyxy=(200, 200, 220, 220)))
    assert caught.value.slug == "box-outside"


def test_run_writes_a_folder(clip, tmp_path):
    from visionkit.pipeline import Writing

    out = tmp_path / "out"
    result = vk.run(clip, [FunctionStage("nothing", lambda item: None)], writing=Writing(out=out))
    assert result.status == "complete"
    assert len((out / "results.jsonl").read_text().splitlines()) == 8
    assert json.loads((out / "run.json").read_text())["status"] == "complete"


def test_a_run_of_a_classifier_by_the_api(clip, tmp_path):
    from tests.tasks.cards import COLORS, write_card
    from visionkit.pipeline import ClassifyStage, Writing

    task = vk.load(write_card(tmp_path / "colors"), runtime="keras", threads=1)
    seen = list(vk.stream(clip, task))
    assert [result.class_id.tolist() for _, result in seen] == [
        task(frame.image).class_id.tolist() for frame, _ in seen
    ]
    vk.run(clip, [ClassifyStage(task)], writing=Writing(out=tmp_path / "out"))
    row = json.loads((tmp_path / "out" / "results.jsonl").read_text().splitlines()[0])
    assert {entry["class_name"] for entry in row["classes"]} == set(COLORS)
    with pytest.raises(ModelError, match="asked for `track`"):
        vk.load(tmp_path / "colors", task="track")


def test_a_model_file_needs_a_task(tmp_path):
    with pytest.raises(UsageError, match="task='classify'"):
        vk.load(tmp_path / "mine.tflite")
    with pytest.raises(ModelError) as caught:
        vk.load(tmp_path / "mine.tflite", task="classify")
    assert caught.value.slug == "model-missing"


def test_load_of_an_unknown_model_is_told():
    with pytest.raises(ModelError) as caught:
        vk.load("no_such_model")
    assert caught.value.slug == "unknown-model"
