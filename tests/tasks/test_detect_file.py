"""Model files as detectors: outputs that are understood by their names, and clear refusals of others."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tasks.made_detect import scene
from visionkit.errors import ModelError, UsageError
from visionkit.runtime.base import Runner, Signature, TensorSpec
from visionkit.tasks import detect_file
from visionkit.tasks.detect_file import detector_from_file

F32 = np.dtype(np.float32)
FOUND = {
    "boxes": [[[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 0.5], [0.0, 0.0, 0.0, 0.0]]],
    "classes": [[2, 1, 0]],
    "scores": [[0.5, 0.9, 0.0]],
    "count": [2],
}
VISIONKIT = {"boxes": "boxes", "classes": "classes", "scores": "scores", "count": "num_detections"}
TENSORFLOW = {role: f"detection_{role}" for role in ("boxes", "classes", "scores")}
LITERT = {role: f"TFLite_Detection_PostProcess{end}" for role, end in zip(FOUND, ("", ":1", ":2", ":3"), strict=True)}


class Made(Runner):
    def __init__(self, names, found=None, dtype=F32, shape=(1, 60, 80, 3)):
        self.values = [np.array((found or FOUND)[role], np.float32) for role in names]
        outputs = [TensorSpec(n, v.shape, F32) for n, v in zip(names.values(), self.values, strict=True)]
        super().__init__("made", Signature((TensorSpec("image", shape, dtype),), tuple(outputs)), threads=1)
        self.seen = []

    def _run(self, feed):
        self.seen.append(feed[0])
        return self.values


def load(monkeypatch, tmp_path, runner, **options):
    path = tmp_path / "mine.tflite"
    path.write_bytes(b"\0\0\0\0TFL3")
    monkeypatch.setattr("visionkit.runtime.compile_model", lambda *args, **kwargs: runner)
    return detector_from_file(path, **options)


@pytest.mark.parametrize(("names", "first"), [(VISIONKIT, 1), (TENSORFLOW, 1), (LITERT, 0)])
def test_outputs_are_known_by_their_names(monkeypatch, tmp_path, names, first):
    runner = Made(names, dtype=np.dtype(np.uint8))
    detector = load(monkeypatch, tmp_path, runner, labels=("a", "b", "c"))
    found = detector(scene((120, 200), [("red", 0, 0, 200, 120)]))
    np.testing.assert_allclose(found.xyxy, [[0, 0, 100, 120], [40, 12, 120, 60]], atol=1e-4)
    assert found.confidence.tolist() == pytest.approx([0.9, 0.5])
    assert found.class_id.tolist() == [1 - first, 2 - first]
    assert runner.seen[0].dtype == np.uint8
    assert runner.seen[0][0, 5, 5].tolist() == [255, 0, 0]
    assert detector.describe()["name"] == "mine.tflite"
    assert load(monkeypatch, tmp_path, Made(names), first_class=1, conf=0.6)(scene((9, 9), [])).class_id.tolist() == [0]


@pytest.mark.parametrize(
    "runner",
    [
        Made({"boxes": "boxes", "scores": "scores"}),
        Made({"boxes": "logits"}),
        Made(VISIONKIT, {**FOUND, "boxes": [[1, 2, 3]]}),
        Made(VISIONKIT, shape=(1, 3, 60, 80)),
        Made(VISIONKIT, shape=(1, None, None, 3)),
    ],
)
def test_other_files_are_refused_with_what_is_expected(monkeypatch, tmp_path, runner):
    with pytest.raises(ModelError, match="expected one image") as caught:
        load(monkeypatch, tmp_path, runner)
    assert caught.value.slug == "model-unfit"
    assert "mine.tflite" in caught.value.message


def test_what_a_file_answers_is_checked(monkeypatch, tmp_path):
    bad = {**FOUND, "scores": [[np.nan, 0.9, 0.0]]}
    with pytest.raises(ModelError, match="not finite"):
        load(monkeypatch, tmp_path, Made(VISIONKIT, bad))(scene((9, 9), []))
    wild = {**FOUND, "count": [1e9], "classes": [[-5, 1, 0]]}
    assert len(load(monkeypatch, tmp_path, Made(VISIONKIT, wild), conf=0.0)(scene((9, 9), []))) == 1


def test_options_without_meaning_are_refused(monkeypatch, tmp_path):
    with pytest.raises(UsageError, match="--iou"):
        load(monkeypatch, tmp_path, Made(VISIONKIT), iou=0.5)
    with pytest.raises(UsageError, match="preset"):
        load(monkeypatch, tmp_path, Made(VISIONKIT), preset="odd")
    assert detect_file.EXPECTED
