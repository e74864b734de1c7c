"""TRK-8: labels of the response map."""

from __future__ import annotations

import numpy as np
import pytest

from visionkit.train.labels import balanced_weights, response_labels


@pytest.mark.parametrize("cells", [15, 17])
def test_trk8_thirteen_positives_at_radius_16(cells: int) -> None:
    labels = response_labels(cells, stride=8, radius=16)
    assert int((labels == 1).sum()) == 13
    middle = cells // 2
    # two cells along the axes, one along the diagonals: 16 <= 16, 8 * sqrt(2) <= 16, 8 * sqrt(5) > 16
    assert labels[middle, middle + 2] == 1
    assert labels[middle + 1, middle + 1] == 1
    assert labels[middle + 1, middle + 2] == -1
    assert np.array_equal(labels, labels.T)


def test_trk8_weights_sum_to_one_half_each() -> None:
    labels = response_labels(15)
    weights = balanced_weights(labels)
    assert weights[labels > 0].sum() == pytest.approx(0.5, abs=1e-6)
    assert weights[labels < 0].sum() == pytest.approx(0.5, abs=1e-6)
    assert balanced_weights(-np.ones((3, 3))).sum() == pytest.approx(1, abs=1e-6)


def test_trk8_the_unit_of_the_radius_matters() -> None:
    # taking the radius in cells, or forgetting the stride, changes the count
    assert int((response_labels(15, stride=1, radius=16) == 1).sum()) == 225
    assert int((response_labels(15, stride=8, radius=2) == 1).sum()) == 1


def test_an_object_off_the_middle_moves_the_labels() -> None:
    labels = response_labels(17, offset_xy=(24, -8))
    assert int((labels == 1).sum()) == 13
    rows, columns = np.nonzero(labels == 1)
    assert (rows.mean(), columns.mean()) == (8 - 1, 8 + 3)


def test_bad_sizes_are_named() -> None:
    with pytest.raises(ValueError, match="stride=0"):
        response_labels(15, stride=0)
