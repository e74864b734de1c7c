"""Parameters and unaries: both vocabularies, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from visionkit.crf import CRFParams, unary_from_labels, unary_from_probs


def test_defaults_are_those_of_pydensecrfs_example():
    assert CRFParams() == CRFParams.from_pydensecrf(sxy=80, srgb=13, compat=10, gaussian_sxy=3, gaussian_compat=3)
    assert CRFParams().iterations == 5


def test_every_word_of_pydensecrf_has_its_place():
    params = CRFParams.from_pydensecrf(
        sxy=(50, 40), srgb=(5, 6, 7), compat=4, gaussian_sxy=2, gaussian_compat=1, iterations=7,
        normalization="NORMALIZE_AFTER",
    )  # fmt: skip
    assert (params.theta_alpha, params.theta_beta, params.theta_gamma) == ((50, 40), (5, 6, 7), 2)
    assert (params.bilateral_weight, params.gaussian_weight) == (4, 1)
    assert (params.iterations, params.normalization, params.self_term) == (7, "after", True)
    assert params.bilateral_widths(3).tolist() == [50, 40, 5, 6, 7]


def test_to_pydensecrf_goes_back():
    params = CRFParams(theta_alpha=50, theta_beta=4, iterations=9)
    words = params.to_pydensecrf()
    bilateral, gaussian = words["bilateral"], words["gaussian"]
    again = CRFParams.from_pydensecrf(
        **bilateral,
        gaussian_sxy=gaussian["sxy"],
        gaussian_compat=gaussian["compat"],
        iterations=words["inference"]["n_iterations"],
    )
    assert again == params
    with pytest.raises(ValueError, match="no counterpart"):
        CRFParams(normalization="none").to_pydensecrf()


def test_a_matrix_compares_and_hashes():
    matrix = np.array([[0, 1], [2, 0]])
    params = CRFParams(compat=matrix)
    assert params == CRFParams(compat=[[0, 1], [2, 0]])
    assert hash(params) == hash(dataclasses.replace(params))
    assert params.compat_matrix(2).tolist() == matrix.tolist()
    with pytest.raises(ValueError, match=r"\(2, 2\) but the unary has 3 labels"):
        params.compat_matrix(3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("theta_alpha", 0),
        ("theta_alpha", (1, 2, 3)),
        ("theta_beta", -1),
        ("theta_beta", ()),
        ("theta_beta", "wide"),
        ("theta_gamma", float("nan")),
        ("theta_gamma", (1.0,)),
        ("bilateral_weight", -1),
        ("gaussian_weight", float("inf")),
        ("iterations", -1),
        ("iterations", 1.5),
        ("iterations", True),
        ("normalization", "rows"),
        ("compat", [[0, 1]]),
        ("compat", [[0, float("nan")], [1, 0]]),
        ("compat", "potts"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        CRFParams(**{name: value})


def test_a_width_for_each_channel():
    params = CRFParams(theta_beta=(5, 6))
    with pytest.raises(ValueError, match="2 widths but the image has 3 channels"):
        params.bilateral_widths(3)


def test_unknown_normalization_of_pydensecrf():
    with pytest.raises(ValueError, match="NORMALIZE_SYMMETRIC"):
        CRFParams.from_pydensecrf(normalization="NO_NORMALIZATION")


def test_unary_from_probs_is_minus_log_and_clipped():
    unary = unary_from_probs([[0.5, 0.5, 0.0]])
    assert np.allclose(unary, [[0.693147, 0.693147, 11.512925]])  # ln 2, ln 2, ln 1e5
    assert unary.dtype == np.float32


@pytest.mark.parametrize("probs", [[np.nan, 1], [-0.1, 1.1], [3.0, 4.0], []])
def test_what_is_no_probability_is_refused(probs):
    with pytest.raises(ValueError, match="`probs`"):
        unary_from_probs(probs)


def test_unary_from_labels():
    unary = unary_from_labels(np.array([[2, 0, 255]]), 3, 0.7, unsure=255)
    rest = -np.log(0.15)  # the other two share 0.3
    assert np.allclose(unary[0, 0], [rest, rest, -np.log(0.7)])
    assert np.allclose(unary[0, 1], [-np.log(0.7), rest, rest])
    assert np.allclose(unary[0, 2], np.log(3))


def test_unary_from_one_label():
    assert unary_from_labels(np.zeros((2, 3), int), 1, 0.9).shape == (2, 3, 1)


@pytest.mark.parametrize(
    ("labels", "n", "probability"),
    [
        (np.zeros((2, 3)), 2, 0.5),
        (np.zeros(4, int), 2, 0.5),
        (np.full((2, 3), 2), 2, 0.5),
        (np.full((2, 3), -1), 2, 0.5),
        (np.zeros((2, 3), int), 2, 1.0),
        (np.zeros((2, 3), int), 0, 0.5),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, n, probability):
    with pytest.raises(ValueError, match=r"`labels`|`n`"):
        unary_from_labels(labels, n, probability)
