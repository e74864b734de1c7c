"""CRF-2: parity with pydensecrf, where somebody installed it (pip install pydensecrf2)."""

from __future__ import annotations

import numpy as np
import pytest

from tests.crf.cases import right_of_three_regions, same_labels, settings, three_regions
from visionkit.crf import CRFParams, mean_field

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


def test_crf2_a_width_for_each_channel_goes_with_its_channel():
    unary, image, labels = three_regions((60, 85), noise=8)
    image[..., 0] = 60 + 30 * labels  # the regions differ here alone, and little
    image[..., 1:] = np.random.default_rng(0).normal(128, 25, image[..., 1:].shape)
    params = CRFParams.from_pydensecrf(sxy=(60, 90), srgb=(6, 60, 90), gaussian_sxy=(2, 4), compat=5)
    theirs = by_pydensecrf(unary, image, params)
    assert same_labels(mean_field(unary, image, params), theirs) >= 0.99
    reversed_channels = mean_field(unary, image[..., ::-1], params)
    assert np.abs(reversed_channels - theirs).max() > 0.2


@pytest.mark.parametrize("name", ["BEFORE", "AFTER"])
def test_crf2_the_other_normalizations(name):
    unary, image, _ = three_regions((60, 85), noise=4)
    params = CRFParams.from_pydensecrf(normalization=f"NORMALIZE_{name}")
    height, width, labels = unary.shape
    crf = densecrf.DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(-1, labels).T))
    how = {"normalization": getattr(densecrf, f"NORMALIZE_{name}")}
    crf.addPairwiseGaussian(sxy=3, compat=3, **how)
    crf.addPairwiseBilateral(sxy=80, srgb=13, compat=10, rgbim=image, **how)
    theirs = np.array(crf.inference(5)).reshape(labels, height, width).transpose(1, 2, 0)
    assert same_labels(mean_field(unary, image, params), theirs) >= 0.99


def test_as_near_to_the_exact_sum_as_pydensecrf():
    far: dict[str, list[float]] = {"ours": [], "theirs": []}
    same: dict[str, list[float]] = {"ours": [], "theirs": []}
    for params in settings():
        unary, image, _ = three_regions()
        right = right_of_three_regions(params)
        found = {
            "ours": mean_field(unary, image, params, engine="numba"),
            "theirs": by_pydensecrf(unary, image, params),
        }
        for who, q in found.items():
            far[who].append(np.abs(q - right).max())
            same[who].append(same_labels(q, right))
    assert np.mean(far["ours"]) <= np.mean(far["theirs"]) * 1.02
    assert min(same["ours"]) >= min(same["theirs"])
