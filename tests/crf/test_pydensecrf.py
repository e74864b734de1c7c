"""CRF-2: parity with pydensecrf, where somebody installed it (pip install pydensecrf2)."""

from __future__ import annotations

import numpy as np
import pytest

from tests.crf.cases import same_labels, settings, three_regions
from visionkit.crf import CRFParams, mean_field
from visionkit.crf import mean_field_exact as exactly

densecrf = pytest.importorskip(
    "pydensecrf.densecrf", reason="needs pydensecrf (pip install pydensecrf2), which is not installed"
)


def by_pydensecrf(unary, image, params):
    height, width, labels = unary.shape
    crf = densecrf.DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(-1, labels).T))
    words = params.to_pydensecrf()
    crf.addPairwiseGaussian(**words["gaussian"])
    crf.addPairwiseBilateral(rgbim=np.ascontiguousarray(image), **words["bilateral"])
    result = np.array(crf.inference(words["inference"]["n_iterations"]))
    return np.ascontiguousarray(result.reshape(labels, height, width).transpose(1, 2, 0))


@pytest.mark.parametrize("engine", ["numba", "scipy"])
def test_crf2_labels_of_pydensecrf(engine):
    unary, image, _ = three_regions((60, 85), noise=8)
    for params in (CRFParams(), CRFParams(iterations=10)):
        theirs = by_pydensecrf(unary, image, params)
        ours = mean_field(unary, image, params, engine=engine)
        assert same_labels(ours, theirs) >= 0.99
        assert np.abs(ours - theirs).max() < 0.05


def test_crf2_wrong_mappings_are_seen():
    unary, image, _ = three_regions((60, 85), noise=8)
    theirs = by_pydensecrf(unary, image, CRFParams())
    swapped = CRFParams(bilateral_weight=3, gaussian_weight=10)
    assert np.abs(mean_field(unary, image, swapped) - theirs).max() > 0.2
    exchanged = CRFParams(theta_alpha=13, theta_beta=80, theta_gamma=80)
    assert np.abs(mean_field(unary, image, exchanged) - theirs).max() > 0.2


def test_as_near_to_the_exact_sum_as_pydensecrf():
    far: dict[str, list[float]] = {"ours": [], "theirs": []}
    same: dict[str, list[float]] = {"ours": [], "theirs": []}
    for params in settings():
        unary, image, _ = three_regions()
        right = exactly(unary, image, params)
        found = {
            "ours": mean_field(unary, image, params, engine="numba"),
            "theirs": by_pydensecrf(unary, image, params),
        }
        for who, q in found.items():
            far[who].append(np.abs(q - right).max())
            same[who].append(same_labels(q, right))
    assert np.mean(far["ours"]) <= np.mean(far["theirs"]) * 1.02
    assert min(same["ours"]) >= min(same["theirs"])
