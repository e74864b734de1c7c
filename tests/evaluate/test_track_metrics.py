"""TRK-11: success and precision on hand-made tracks."""

from __future__ import annotations

import numpy as np
import pytest

from visionkit.evaluate.track_metrics import precision, success_auc, success_curve

TRUTH = np.tile(np.array([[100, 50, 140, 80]], np.float32), (10, 1))


def test_trk11_a_perfect_track() -> None:
    # overlap 1 exceeds 0, 0.05 ... 0.95 but not 1: 20 of 21
    assert success_auc(TRUTH, TRUTH) == pytest.approx(20 / 21)
    assert precision(TRUTH, TRUTH) == 1


def test_trk11_a_constant_shift() -> None:
    # 20 px of 40 to the right: overlap 1/3, above 0 ... 0.3, seven thresholds
    shifted = TRUTH + np.array([20, 0, 20, 0])
    assert success_auc(shifted, TRUTH) == pytest.approx(7 / 21)
    assert precision(shifted, TRUTH) == 1  # at most 20 px counts
    assert precision(shifted + 1, TRUTH) == 0


def test_trk11_half_lost() -> None:
    track = TRUTH.copy()
    track[5:] += 1000
    assert success_auc(track, TRUTH) == pytest.approx(0.5 * 20 / 21)
    assert precision(track, TRUTH) == 0.5
    assert success_curve(track, TRUTH)[[0, 19, 20]].tolist() == [0.5, 0.5, 0]


def test_trk11_counting_equality_would_be_found() -> None:
    lenient = np.mean([1.0 for _ in range(21)])  # `>=` gives a perfect track 1, not 20/21
    assert success_auc(TRUTH, TRUTH) != pytest.approx(lenient)


def test_frames_without_truth_are_left_out() -> None:
    truth = TRUTH.copy()
    truth[3:] = np.nan
    track = TRUTH.copy()
    track[3:] += 500
    assert success_auc(track, truth) == pytest.approx(20 / 21)


def test_unequal_lengths_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\)"):
        success_auc(TRUTH[:3], TRUTH)
