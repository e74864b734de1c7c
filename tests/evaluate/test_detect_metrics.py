"""DET-10: hits, curves and AP by hand, VOC's reference values, COCO's numbers against a slow count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from visionkit.errors import UsageError
from visionkit.evaluate import detect_metrics
from visionkit.evaluate.detect import detections_of_rows
from visionkit.evaluate.detect_metrics import (
    COCO_NAMES,
    average_precision,
    box_overlaps,
    class_curves,
    coco_summary,
    match_answers,
    precision_recall,
    score_detections,
)
from visionkit.structures import Detections
from visionkit.train.detection_folders import DetectionSample

BOX = (10.0, 10.0, 30.0, 40.0)
FAR = (100.0, 10.0, 130.0, 40.0)


def sample(
    boxes: list[tuple[float, ...]], kinds: list[int], name: str = "a.png", **flags: list[bool]
) -> DetectionSample:
    count = len(boxes)
    return DetectionSample(
        name,
        Path(name),
        (150, 200),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(kinds, np.int64),
        np.array(flags.get("difficult", [False] * count), bool),
        np.array(flags.get("crowd", [False] * count), bool),
    )


def answer(boxes: list[tuple[float, ...]], sure: list[float], kinds: list[int]) -> Detections:
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.array(sure, np.float32), np.array(kinds, np.int64))


def moved(box: tuple[float, ...], by: float) -> tuple[float, ...]:
    return box[0] + by, box[1], box[2] + by, box[3]


def three_images() -> tuple[list[DetectionSample], list[Detections]]:
    """Four objects of one class; five answers: hit .9, false .8, hit .7, a double of the first .6, hit .3."""
    samples = [sample([BOX, FAR], [0, 0], "a"), sample([BOX], [0], "b"), sample([FAR], [0], "c")]
    answers = [
        answer([BOX, moved(BOX, 1)], [0.9, 0.6], [0, 0]),
        answer([FAR, moved(BOX, 2)], [0.8, 0.7], [0, 0]),
        answer([moved(FAR, 3)], [0.3], [0]),
    ]
    return samples, answers


def test_three_images_by_hand() -> None:
    scores = score_detections(*three_images(), 1)
    curve = scores.curves[0]
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 2 / 3, 2 / 4, 3 / 5])
    np.testing.assert_allclose(curve.recall, [1 / 4, 1 / 4, 2 / 4, 2 / 4, 3 / 4])
    assert curve.positives == 4
    # all points: 1/4 at 1, 1/4 at 2/3, 1/4 at 3/5; what is never found at 0
    assert scores.ap[0] == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
    # 11 points: recall 0, .1, .2 at 1; .3, .4, .5 at 2/3; .6, .7 at 3/5; .8, .9, 1 at 0
    assert scores.ap_11_point[0] == pytest.approx((3 * 1 + 3 * 2 / 3 + 2 * 3 / 5) / 11)


def test_doubles_are_false_and_counting_them_as_hits_is_not_the_same() -> None:
    overlaps = box_overlaps([BOX, moved(BOX, 1)], [BOX])
    assert match_answers(overlaps, [0.9, 0.6], [False], 0.5).tolist() == [1, 0]
    assert match_answers(overlaps, [0.6, 0.9], [False], 0.5).tolist() == [0, 1]  # the surer one hits
    right = average_precision(precision_recall([1, 0, 1], [0.9, 0.8, 0.7], 2))
    wrong = average_precision(precision_recall([1, 1, 1], [0.9, 0.8, 0.7], 2))
    assert right == pytest.approx((1 + 2 / 3) / 2)
    assert wrong == pytest.approx(1.5)  # more than everything


def test_perfect_answers_score_one_and_none_zero() -> None:
    samples, _ = three_images()
    perfect = [answer([tuple(b) for b in s.xyxy], [0.9] * len(s), [0] * len(s)) for s in samples]
    for method in ("all-point", "11-point", "101-point"):
        curve = score_detections(samples, perfect, 1).curves[0]
        assert average_precision(curve, method=method) == 1.0
        assert average_precision(score_detections(samples, [Detections.empty()] * 3, 1).curves[0], method=method) == 0.0
    empty = score_detections(samples, perfect, 2)
    assert np.isnan(empty.ap[1])  # a class that is not there is left out of the mean
    assert empty.mean_ap == 1.0


def test_difficult_objects_count_neither_way() -> None:
    samples = [sample([BOX, FAR], [0, 0], difficult=[False, True])]
    found = score_detections(samples, [answer([FAR, BOX], [0.9, 0.5], [0, 0])], 1)
    assert found.curves[0].positives == 1
    assert found.ap[0] == 1.0
    counted = score_detections([sample([BOX, FAR], [0, 0])], [answer([BOX], [0.5], [0])], 1)
    assert counted.ap[0] == 0.5


def test_overlap_with_one_pixel_more() -> None:
    assert box_overlaps([(0, 0, 10, 10)], [(5, 0, 15, 10)])[0, 0] == pytest.approx(50 / 150)
    assert box_overlaps([(0, 0, 9, 9)], [(5, 0, 14, 9)], pixel_offset=1)[0, 0] == pytest.approx(50 / 150)
    assert box_overlaps([(0, 0, 10, 10)], [(0, 0, 100, 100)], crowd=[True])[0, 0] == 1.0
    assert box_overlaps(np.zeros((1, 4)), [(0, 0, 0, 0)])[0, 0] == 0.0


def test_vocs_reference_values(shared: Path) -> None:
    root = shared / "data" / "detection" / "voc_ap_reference"
    answers, truths = [], []
    for path in sorted((root / "gts").glob("*.txt")):
        objects, found = rows(path, 4), rows(root / "dets" / path.name, 5)
        truths.append((corners(objects), np.zeros(len(objects), int), np.zeros(len(objects), bool)))
        answers.append((corners(found[:, 1:]), found[:, 0], np.zeros(len(found), int)))
    expected = {
        "all-point": (0.3371980676, 0.2456866804, 0.0222222222, 0.0),
        "11-point": (0.3333333333, 0.2683982683, 0.0303030303, 0.0),
    }
    for method, values in expected.items():
        for threshold, value in zip((0.1, 0.3, 0.5, 0.75), values, strict=True):
            # these boxes count whole pixels, both ends in
            (curve,) = class_curves(answers, truths, 1, threshold=threshold, pixel_offset=1)
            assert average_precision(curve, method=method) == pytest.approx(value, abs=1e-6)
    (wrong,) = class_curves(answers, truths, 1, threshold=0.1)
    assert abs(average_precision(wrong) - 0.3371980676) > 0.05  # without the pixel it is another number


def rows(path: Path, columns: int) -> np.ndarray:
    lines = [line.split()[1:] for line in path.read_text().splitlines() if line.strip()]
    return np.array(lines, float).reshape(-1, columns)


def corners(xywh: np.ndarray) -> np.ndarray:
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def crowded(seed: int) -> tuple[list[DetectionSample], list[Detections]]:
    """Images of up to eight objects of two classes, and answers that are right, shifted, doubled or invented."""
    rng = np.random.default_rng(seed)
    samples, answers = [], []
    for k in range(12):
        count = int(rng.integers(0, 9))
        start, size = rng.uniform(0, 120, (count, 2)), rng.uniform(6, 60, (count, 2))
        boxes = np.concatenate([start, start + size], axis=1)
        kinds = rng.integers(0, 2, count)
        crowd = rng.random(count) < 0.1
        samples.append(sample([tuple(b) for b in boxes], kinds.tolist(), f"{k}.png", crowd=crowd.tolist()))
        extra = rng.integers(0, 4)
        found = np.concatenate([boxes, boxes[: count // 2], rng.uniform(0, 60, (extra, 4)) + np.array([0, 0, 60, 60])])
        found = found + rng.normal(0, 3, found.shape)
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        ids = np.concatenate([kinds, kinds[: count // 2], rng.integers(0, 2, extra)])
        answers.append(Detections(found, rng.uniform(0.05, 1, len(found)), ids))
    return samples, answers


def slow_coco(samples: list[DetectionSample], answers: list[Detections], classes: int) -> dict[str, float]:
    """AP, AP50, AP75 and AR100 over all sizes as pycocotools counts, with loops."""
    by_threshold, recalls = [], []
    for threshold in detect_metrics.COCO_THRESHOLDS:
        values, most = [], []
        for kind in range(classes):
            flags, sure, positives = [], [], 0
            for one, found in zip(samples, answers, strict=True):
                there = np.flatnonzero(one.class_id == kind)
                own = np.flatnonzero(found.class_id == kind)
                own = own[np.argsort(-found.confidence[own], kind="stable")][:100]
                there = there[np.argsort(one.crowd[there], kind="stable")]  # crowds last
                crowd = one.crowd[there]
                iou = box_overlaps(found.xyxy[own], one.xyxy[there], crowd=crowd)
                taken = np.zeros(len(there), bool)
                for row, place in enumerate(own):
                    best, chosen = min(threshold, 1 - 1e-10), -1
                    for column in range(len(there)):
                        if taken[column] and not crowd[column]:
                            continue
                        if chosen >= 0 and not crowd[chosen] and crowd[column]:
                            break
                        if iou[row, column] < best:
                            continue
                        best, chosen = iou[row, column], column
                    if chosen >= 0:
                        taken[chosen] = True
                    flags.append(-1 if chosen >= 0 and crowd[chosen] else int(chosen >= 0))
                    sure.append(found.confidence[place])
                positives += int((~crowd).sum())
            if positives:
                curve = precision_recall(flags, sure, positives)
                values.append(average_precision(curve, method="101-point"))
                most.append(curve.recall[-1] if len(curve.recall) else 0.0)
        by_threshold.append(np.mean(values))
        recalls.append(np.mean(most))
    return {
        "AP": float(np.mean(by_threshold)),
        "AP50": float(by_threshold[0]),
        "AP75": float(by_threshold[5]),
        "AR100": float(np.mean(recalls)),
    }


@pytest.mark.parametrize("library", ["faster_coco_eval", "pycocotools"])
def test_cocos_numbers(library: str) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed")
    for seed in range(3):
        samples, answers = crowded(seed)
        found = coco_summary(samples, answers, ("a", "b"), library=library)
        assert tuple(found) == COCO_NAMES
        for name, value in slow_coco(samples, answers, 2).items():
            assert found[name] == pytest.approx(value, abs=1e-6)
    nothing = coco_summary(samples, [Detections.empty()] * len(samples), ("a", "b"), library=library)
    assert nothing["AP"] == 0.0


def test_slow_count_of_a_perfect_answer() -> None:
    samples, _ = crowded(0)
    perfect = [Detections(s.xyxy[~s.crowd], np.full(int((~s.crowd).sum()), 0.9), s.class_id[~s.crowd]) for s in samples]
    assert slow_coco(samples, perfect, 2) == {"AP": 1.0, "AP50": 1.0, "AP75": 1.0, "AR100": 1.0}


def test_without_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect_metrics.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install visionkit"):
        coco_summary([], [], ())


def test_stored_rows_go_to_their_samples() -> None:
    samples = [sample([BOX], [1], "JPEGImages/a.png"), sample([FAR], [0], "JPEGImages/b.png")]
    rows_ = [
        {"source": "a.png", "detections": [{"xyxy": list(BOX), "confidence": 0.8, "class_name": "y", "class_id": 0}]},
        {"source": "other.png", "detections": []},
        {"source": "a.png", "error": "damaged"},
    ]
    kept, found, problems = detections_of_rows(rows_, samples, ("x", "y"))
    assert [one.name for one in kept] == ["JPEGImages/a.png"]
    assert found[0].class_id.tolist() == [1]  # by name
    assert sorted(p.kind for p in problems) == ["row-unknown", "row-unknown", "unanswered"]
