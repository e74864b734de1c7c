"""Trials of the three tasks on rendered data with tasks whose answers are known, and the timing of calls."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.train import rendered_boxes, rendered_masks
from visionkit.compress.measure_variants import compare_measured, time_calls
from visionkit.compress.trials import DataChoice, make_trial
from visionkit.errors import InputError, ModelError, UsageError
from visionkit.structures import Classification, Detections
from visionkit.weights.card import Card


def card(task, labels):
    return Card("made", Path(), task, "none", "Apache-2.0", labels=tuple(labels))


def write_classes(root, parts, count=4):
    for part in parts:
        for number, name in enumerate(("dark", "light")):
            (root / part / name).mkdir(parents=True)
            for k in range(count):
                image = np.full((20, 30, 3), 40 + 160 * number + k, np.uint8)
                cv2.imwrite(str(root / part / name / f"{k}.png"), image)
    return root


def by_brightness(threshold):
    """A classifier that is right at 128."""

    def classify(images):
        return [Classification(np.array([k, 1 - k]), np.array([0.9, 0.1], np.float32)) for k in
                (int(image.mean() > threshold) for image in images)]  # fmt: skip

    return classify


def test_parts_are_measured_and_calibrated_apart(tmp_path):
    root = write_classes(tmp_path / "data", ("train", "val", "test"))
    trial = make_trial(card("classify", ["dark", "light"]), DataChoice(root))
    assert trial.part == "part 'test'"
    assert len(trial.samples) == 8
    assert trial.apart
    assert {path.parent.parent.name for path in trial.calibration} == {"train"}
    other = make_trial(card("classify", ["dark", "light"]), DataChoice(root, part="val", limit=4))
    assert [sample.name for sample in other.samples] == [
        f"val/{name}" for name in ("dark/0.png", "dark/2.png", "light/0.png", "light/2.png")
    ]
    with pytest.raises(InputError, match="holds no labelled image"):
        make_trial(
            card("classify", ["dark", "light"]), DataChoice(write_classes(tmp_path / "b", ("train",)), part="test")
        )


def test_without_parts_all_is_measured_and_calibrated_on(tmp_path):
    trial = make_trial(card("classify", ["dark", "light"]), DataChoice(write_classes(tmp_path, ("",))))
    assert trial.part == "all images"
    assert not trial.apart
    assert len(trial.calibration) == len(trial.samples) == 8


def test_classes_and_where_two_classifiers_differ(tmp_path):
    trial = make_trial(card("classify", ["dark", "light"]), DataChoice(write_classes(tmp_path, ("",))))
    good, bad = trial.measure(by_brightness(128)), trial.measure(by_brightness(201))  # of light, 200 and 201 are lost
    before, after, drop, changes = compare_measured(trial, good, bad)
    assert (before.value, after.value, drop.value) == (1.0, 0.75, 25.0)
    assert [(one.name, one.count, one.drop.value) for one in changes] == [("dark", 4, 0.0), ("light", 4, 50.0)]
    found = trial.differ(good, bad, 6)
    assert [(one.name, one.before, one.after, one.truth) for one in found] == [
        (f"light/{k}.png", "light 90%", "dark 90%", "light") for k in (0, 1)
    ]
    assert found[0].image.shape == (20, 30, 3)
    assert trial.differ(good, good, 6) == []


def test_boxes_and_where_two_detectors_differ(tmp_path):
    rendered_boxes.write_voc(tmp_path, {"train": 3, "test": 5})
    trial = make_trial(card("detect", rendered_boxes.NAMES), DataChoice(tmp_path))
    assert trial.part == "part 'test'"
    truth = {trial.image(k).tobytes(): sample for k, sample in enumerate(trial.samples)}

    def detector(skip):
        def detect(images, *, conf=None):
            sample = truth[images[0].tobytes()]
            boxes, ids = (array[skip:] for array in (sample.xyxy, sample.class_id))
            return [Detections(boxes, np.full(len(boxes), 0.9, np.float32), ids)]

        return detect

    good, bad = trial.measure(detector(0)), trial.measure(detector(1))
    before, _, drop, changes = compare_measured(trial, good, bad)
    assert before.value == 1.0
    assert 10 < drop.value < 100
    assert sum(one.count for one in changes) == sum(len(sample) for sample in trial.samples)
    found = trial.differ(good, bad, 10)
    assert len(found) == 5  # one object of each image is gone
    assert "(1 of them missed now, blue)" in found[0].before
    assert "(0 of them new, red)" in found[0].after


def test_masks_and_where_two_segmenters_differ(tmp_path):
    from visionkit.train.mask_images import SegmentMaterial

    rendered_masks.write_camvid(tmp_path, {"train": 2, "test": 4})
    labels = rendered_masks.NAMES
    trial = make_trial(card("segment", labels), DataChoice(tmp_path))
    truth = {}
    for sample in trial.samples:
        image, mask = SegmentMaterial(trial.folders, trial._material.labels)(sample)
        truth[image.tobytes()] = mask

    class Segmenter:
        def __init__(self, wrong):
            self.wrong = wrong

        def probs(self, image):
            mask = truth[image.tobytes()].copy()
            mask[mask == 255] = 0
            if self.wrong:
                mask[:, : mask.shape[1] // 4] = 0
            return np.eye(len(labels), dtype=np.float32)[mask]

    good, bad = trial.measure(Segmenter(False)), trial.measure(Segmenter(True))
    before, after, drop, _ = compare_measured(trial, good, bad)
    assert before.value == 1.0
    assert after.value < 1.0
    assert drop.value == pytest.approx(100 * (1 - after.value))
    found = trial.differ(good, bad, 3)
    assert 0 < len(found) <= 3
    height, width = trial.image(0).shape[:2]
    assert found[0].image.shape == (height, 3 * width, 3)
    assert "of the pixels" in found[0].after


def test_other_tasks_are_not_judged(tmp_path):
    with pytest.raises(ModelError, match="judged are models to classify, detect, segment, track"):
        make_trial(card("rectify", ["a"]), DataChoice(tmp_path))


def test_a_split_is_of_class_folders(tmp_path):
    with pytest.raises(UsageError, match="class folders"):
        make_trial(card("detect", ["a"]), DataChoice(tmp_path, split=tmp_path / "split.json"))


def test_calls_take_turns_and_are_told_apart():
    order = []

    def call(name, seconds):
        def run():
            order.append(name)
            time.sleep(seconds)

        return run

    found = time_calls({"slow": call("slow", 0.004), "fast": call("fast", 0.001)}, budget_s=0.2, least=10)
    assert 4 <= found["slow"][0] <= found["slow"][1]
    assert 1 <= found["fast"][0] < found["slow"][0]
    turns = sum(a != b for a, b in itertools.pairwise(order))
    assert turns >= 5
