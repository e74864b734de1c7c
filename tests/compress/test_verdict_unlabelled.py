"""Where two models part on frames that nobody labelled: found, drawn, and shown on the page and in the JSON."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from tests.compress.made_report import made_report, picture
from tests.compress.test_verdict_trials import card, write_classes
from visionkit.compress.differences import boxes_apart, maps_apart
from visionkit.compress.report import render_quantize_report, report_table
from visionkit.compress.report_data import Disagreement
from visionkit.compress.trials import DataChoice, Frames, make_trial
from visionkit.errors import InputError, ModelError, UsageError
from visionkit.structures import Classification, Detections
from visionkit.weights import card_names, load_card


def by_brightness(threshold):
    def classify(image):
        k = int(image.mean() > threshold)
        return Classification(np.array([k, 1 - k]), np.array([0.9, 0.1], np.float32))

    return classify


def test_classifiers(tmp_path):
    trial = make_trial(card("classify", ["dark", "light"]), DataChoice(write_classes(tmp_path / "data", ("",))))
    clip = tmp_path / "clip"
    clip.mkdir()
    for k, level in enumerate((20, 150, 180, 240)):
        cv2.imwrite(str(clip / f"{k}.png"), np.full((20, 30, 3), level, np.uint8))
    frames = trial.frames(str(clip))
    score, found = trial.compare(by_brightness(128), by_brightness(200), frames, 6)
    assert score == 0.5
    assert [(one.name, one.before, one.after, one.truth) for one in found] == [
        (f"{k}.png", "light 90%", "dark 90%", "") for k in (1, 2)
    ]
    assert found[0].image.mean() == 150
    with pytest.raises(UsageError, match="--box is of trackers"):
        trial.frames(str(clip), xyxy=(0, 0, 5, 5))
    assert len(trial.frames(None)) == len(Frames()) == 0


def test_boxes():
    image = np.full((60, 90, 3), 128, np.uint8)
    boxes = np.array([[10, 10, 40, 40], [50, 10, 80, 50]], np.float32)
    both = Detections(boxes, np.array([0.9, 0.8], np.float32), np.array([0, 1]))
    found = boxes_apart("a.png", image, both, both[:1])
    assert found.before == "2 objects (1 of them missed now, blue)"
    assert found.after == "1 objects (0 of them new, red)"
    assert found.gap == pytest.approx(1 / 3)
    assert boxes_apart("a.png", image, both, both) is None
    faint = replace(both, confidence=np.array([0.1, 0.1], np.float32))
    assert boxes_apart("a.png", image, faint, both[:0]) is None  # nothing that is shown


def test_maps():
    image = np.full((40, 60, 3), 90, np.uint8)
    first = np.zeros((40, 60), np.uint8)
    second = first.copy()
    second[:10] = 1
    second[30:, :30] = 255  # no class at all
    found = maps_apart("a.png", image, first, second, 2)
    assert found.image.shape == (40, 180, 3)
    assert found.gap == pytest.approx(600 / 2400 + 300 / 2400)
    assert "37.50%" in found.after
    assert (found.image[5, 130] == (0, 230, 255)).all()
    assert maps_apart("a.png", image, first, first, 2) is None


def test_the_page_and_the_json_show_them():
    worst = [Disagreement("clip.mp4#12", "fox <1>", "hen", "", 0.4, picture(1))]
    plain = made_report()
    report = replace(plain, unlabelled={"int8": worst})
    html = render_quantize_report(report)
    assert "The worst on frames without labels" in html
    assert "fox &lt;1&gt;" in html
    assert "frames without labels</h2>" not in render_quantize_report(plain)
    assert report_table(report)["disagreements_unlabelled"] == {
        "int8": [{"name": "clip.mp4#12", "float": "fox <1>", "int8": "hen", "truth": ""}]
    }


def test_several_heads_are_refused_before_any_work(tmp_path):
    heads = {"kind": ("a", "b"), "colour": ("x", "y", "z")}
    made = replace(card("classify", []), heads=heads)
    with pytest.raises(ModelError, match=r"several heads \(kind, colour\)") as caught:
        make_trial(made, DataChoice(write_classes(tmp_path / "data", ("",))))
    assert caught.value.slug == "model-unfit"


def test_a_calibration_that_cannot_be_read_is_told_before_any_work(tmp_path):
    trial = make_trial(card("classify", ["dark", "light"]), DataChoice(write_classes(tmp_path / "data", ("",))))
    with pytest.raises(InputError):
        trial.calibrate(str(tmp_path / "none"))
    chosen = trial.calibrate(None, count=3)(tmp_path / "any.tflite")
    assert len(chosen) == 3


def test_of_a_float_model_that_finds_nothing_nothing_is_said():
    from visionkit.compress.verdict import Bounds, Interval, VariantFacts, judge

    def facts(value):
        same = Interval(0.0, 0.0, 0.0)
        return VariantFacts("int8", Interval(value, 0, 1), same, images=400, size=1, zipped=1)

    ruling = judge(facts(0.0), facts(0.0), Bounds(), "mAP50")
    assert [reason.slug for reason in ruling.reasons] == ["not-measured"]
    assert "float32 itself has mAP50 of 0" in ruling.reasons[0].text
    assert judge(facts(0.5), facts(0.5), Bounds(), "mAP50").verdict == "ship"


@pytest.mark.parametrize("name", card_names())
def test_of_every_card_missing_data_is_told_before_any_work(name, tmp_path):
    with pytest.raises(InputError):
        make_trial(load_card(name), DataChoice(tmp_path))
