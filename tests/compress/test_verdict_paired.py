"""The paired bootstrap against counting by hand, against the evaluators, and against the unpaired one."""

from __future__ import annotations

import numpy as np
import pytest

from visionkit.compress.paired import ClassifyOutcome, DetectOutcome, SegmentOutcome, compare_paired
from visionkit.evaluate.classify_metrics import score_classifier
from visionkit.evaluate.detect_metrics import score_detections
from visionkit.evaluate.segment_metrics import score_counts
from visionkit.structures import Detections
from visionkit.train.detection_folders import DetectionSample


def classified(wrong, count=200, classes=4):
    labels = np.arange(count) % classes
    answers = labels.copy()
    answers[list(wrong)] = (labels[list(wrong)] + 1) % classes
    return ClassifyOutcome(answers, labels, classes)


def test_classes_and_metric_are_those_of_the_evaluator():
    outcome = classified([0, 4, 9])
    probs = np.eye(4, dtype=np.float32)[outcome.answers]
    scores = score_classifier(probs, outcome.labels)
    got = outcome.scores(np.ones((1, 200), np.int64))[0]
    np.testing.assert_allclose(got, [scores.top1, *scores.recall])
    np.testing.assert_array_equal(outcome.counts, [50, 50, 50, 50])


def test_a_draw_counts_an_image_as_often_as_it_holds_it():
    outcome = ClassifyOutcome(np.array([0, 1, 0]), np.array([0, 1, 1]), 3)
    # twice the right 0, once the wrong 1: 2 of 3; class 1: 0 of 1; class 2 is not there
    np.testing.assert_allclose(outcome.scores(np.array([[2, 0, 1]]))[0], [2 / 3, 1.0, 0.0, np.nan])


def test_pairing_takes_out_what_is_hard_for_both():
    """Both fail on the same 60 of 200, one more is lost: unpaired, each interval alone is 13 points wide."""
    both = compare_paired(classified(range(60)), classified(range(61)))
    assert both.drop.value == pytest.approx(0.5)
    # 1 / 202 +- 1.96 sqrt(2 - 1 / 202) / 202 (Agresti, Min); drawing again alone says 0 to 1.5
    assert both.drop.low == pytest.approx(-0.88, abs=0.01)
    assert both.drop.high == pytest.approx(1.87, abs=0.01)
    assert 100 * (both.before.high - both.before.low) > 10


def test_the_interval_is_that_of_the_binomial():
    """10 of 200 lost and nothing gained: mean 5 points, standard deviation sqrt(.05 x .95 / 200) = 1.54 points."""
    paired = compare_paired(classified([]), classified(range(10)), draws=4000)
    assert paired.drop.value == pytest.approx(5.0)
    assert paired.drop.low == pytest.approx(5 - 1.96 * 1.54, abs=0.5)
    assert paired.drop.high == pytest.approx(5 + 1.96 * 1.54, abs=0.5)


def test_gains_and_losses_cancel_but_widen():
    paired = compare_paired(classified(range(10)), classified(range(10, 20)))
    assert paired.drop.value == 0
    assert paired.drop.low < -2 < 2 < paired.drop.high


def test_all_right_is_not_all_sure():
    """Wilson at 200 of 200: 200 / (200 + 1.96^2) = 0.981."""
    paired = compare_paired(classified([]), classified([]))
    assert paired.before.low == pytest.approx(0.981, abs=5e-4)
    assert paired.before.value == 1.0
    assert paired.before.high == pytest.approx(1.0)


def test_nothing_changed_is_not_nothing_can_change():
    """0 +- 1.96 / 202, and of each class of 50 images 0 +- 1.96 / 52."""
    paired = compare_paired(classified([3]), classified([3]))
    assert (paired.drop.low, paired.drop.high) == pytest.approx((-0.97, 0.97), abs=0.005)
    assert paired.classes[1][2].high == pytest.approx(3.77, abs=0.005)


def test_the_true_loss_is_in_the_interval_as_often_as_it_says():
    """A loss of 1 point measured on 150 images: in a fifth of all trials not one image shows it."""
    rng = np.random.default_rng(0)
    inside, drawn_alone = [], []
    for seed in range(300):
        lost = np.flatnonzero(rng.random(150) < 0.01)
        paired = compare_paired(classified([], 150, 2), classified(lost, 150, 2), draws=200, seed=seed)
        inside.append(paired.drop.low <= 1 <= paired.drop.high)
        again = np.random.default_rng(seed).binomial(150, len(lost) / 150, 200) / 1.5
        drawn_alone.append(np.quantile(again, 0.025) <= 1 <= np.quantile(again, 0.975))
    assert np.mean(inside) >= 0.94
    assert np.mean(drawn_alone) < 0.85  # the control: the bootstrap alone


def test_other_images_are_refused():
    with pytest.raises(ValueError, match="same images"):
        compare_paired(classified([]), classified([], count=100))


def boxes(rng, count):
    corner = rng.uniform(0, 80, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(8, 30, (count, 2))], axis=1).astype(np.float32)


def scene(rng):
    truth = boxes(rng, 4)
    kinds = rng.integers(0, 2, 4)
    sample = DetectionSample(
        "a.png", None, (90, 120), truth, kinds.astype(np.int64), rng.random(4) < 0.2, np.zeros(4, bool)
    )
    near = truth + rng.normal(0, 2, truth.shape).astype(np.float32)
    found = np.concatenate([near, boxes(rng, 3)])
    ids = np.concatenate([kinds, rng.integers(0, 2, 3)]).astype(np.int64)
    return sample, Detections(found, rng.random(7).astype(np.float32), ids)


def detected(pairs):
    answers = [(one.xyxy, one.confidence, one.class_id) for _, one in pairs]
    truths = [(one.xyxy, one.class_id, one.difficult | one.crowd) for one, _ in pairs]
    return DetectOutcome(answers, truths, 2)


def test_detection_scores_of_a_draw_are_the_evaluators_on_the_drawn_images():
    rng = np.random.default_rng(0)
    pairs = [scene(rng) for _ in range(12)]
    outcome = detected(pairs)
    for _ in range(5):
        drawn = rng.integers(0, 12, 12)
        expected = score_detections([pairs[k][0] for k in drawn], [pairs[k][1] for k in drawn], 2)
        got = outcome.scores(np.bincount(drawn, minlength=12)[None])[0]
        np.testing.assert_allclose(got, [expected.mean_ap, *expected.ap])


def test_segmentation_scores_are_the_evaluators():
    rng = np.random.default_rng(1)
    confusions = rng.integers(0, 50, (6, 3, 3))
    confusions[:, 2] = confusions[:, :, 2] = 0  # a class that is nowhere
    scores = score_counts(2 * confusions[1] + confusions[3])
    weights = np.array([[0, 2, 0, 1, 0, 0]])
    got = SegmentOutcome(confusions).scores(weights)[0]
    np.testing.assert_allclose(got, [scores.mean_iu, *scores.iu])
