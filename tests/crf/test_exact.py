"""The O(N^2) reference against a loop over pairs of pixels, and the invariants it must keep (CRF-4)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.crf.cases import SETTINGS, three_regions
from visionkit.crf import NORMALIZATIONS, CRFParams, exact, mean_field_exact, objective


def by_loops(unary, image, params):
    """Mean field as the papers write it, one pair of pixels at a time; Potts as cost of disagreement."""
    height, width, labels = unary.shape
    places = [(y, x) for y in range(height) for x in range(width)]
    count = len(places)
    kernels = []
    for weight, alpha, beta in [
        (params.bilateral_weight, params.theta_alpha, params.theta_beta),
        (params.gaussian_weight, params.theta_gamma, None),
    ]:
        kernel = np.zeros((count, count))
        for i, (y, x) in enumerate(places):
            for j, (v, u) in enumerate(places):
                exponent = ((y - v) ** 2 + (x - u) ** 2) / (2 * alpha**2)
                if beta:
                    exponent += np.sum((image[y, x].astype(float) - image[v, u]) ** 2) / (2 * beta**2)
                kernel[i, j] = np.exp(-exponent)
        d = kernel.sum(1)
        scaled = {
            "symmetric": kernel / np.sqrt(np.outer(d, d)),
            "before": kernel / d[None, :],
            "after": kernel / d[:, None],
            "none": kernel,
        }[params.normalization]
        if not params.self_term:
            np.fill_diagonal(scaled, 0)
        kernels.append(weight * scaled)
    pairs = sum(kernels)
    costs = 1 - np.eye(labels) if params.compat is None else np.array(params.compat)
    u = unary.reshape(count, labels).astype(float)
    q = np.exp(-u) / np.exp(-u).sum(1, keepdims=True)
    for _ in range(params.iterations):
        logits = np.zeros_like(u)
        for i in range(count):
            for label in range(labels):
                logits[i, label] = -u[i, label] - sum(pairs[i, j] * (costs[label] @ q[j]) for j in range(count))
        q = np.exp(logits - logits.max(1, keepdims=True))
        q /= q.sum(1, keepdims=True)
    return q.reshape(unary.shape)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("self_term", [True, False])
def test_against_loops(normalization, self_term):
    unary, image, _ = three_regions((5, 6))
    params = CRFParams(
        theta_alpha=4, theta_beta=60, theta_gamma=1.5, bilateral_weight=1.3, gaussian_weight=0.7, iterations=2,
        normalization=normalization, self_term=self_term,
    )  # fmt: skip
    assert np.abs(mean_field_exact(unary, image, params) - by_loops(unary, image, params)).max() < 1e-6


def test_a_full_matrix_against_loops():
    unary, image, _ = three_regions((5, 6))
    matrix = [[0, 1, 2], [0.5, -0.2, 1], [3, 1, 0]]  # not symmetric, so that a transposed one is seen
    params = CRFParams(theta_alpha=4, theta_beta=60, compat=matrix, iterations=2, bilateral_weight=1)
    right = by_loops(unary, image, params)
    assert np.abs(mean_field_exact(unary, image, params) - right).max() < 1e-6
    turned = dataclasses.replace(params, compat=np.transpose(matrix))
    assert np.abs(mean_field_exact(unary, image, turned) - right).max() > 0.05


def test_potts_is_the_matrix_of_disagreement():
    unary, image, _ = three_regions((20, 31))
    params = CRFParams(iterations=3)
    potts = mean_field_exact(unary, image, params)
    # "after" makes row sums 1, so that the two differ by a constant; with other sums they would differ by far
    after = dataclasses.replace(params, normalization="after")
    matrix = dataclasses.replace(after, compat=1 - np.eye(3))
    assert np.abs(mean_field_exact(unary, image, after) - mean_field_exact(unary, image, matrix)).max() < 1e-5
    symmetric = dataclasses.replace(params, compat=1 - np.eye(3))
    assert np.abs(mean_field_exact(unary, image, symmetric) - potts).max() < 1e-5


def test_slabs_are_the_same_as_the_whole_matrix(monkeypatch):
    unary, image, _ = three_regions((19, 24))
    whole = mean_field_exact(unary, image)
    monkeypatch.setattr(exact, "KEPT_VALUES", 0)
    monkeypatch.setattr(exact, "BLOCK_VALUES", 5000)
    assert np.abs(mean_field_exact(unary, image) - whole).max() < 1e-6


def test_without_kernels_the_unary_stays():
    unary, image, _ = three_regions((9, 11))
    q = mean_field_exact(unary, image, CRFParams(bilateral_weight=0, gaussian_weight=0))
    assert np.allclose(q, np.exp(-unary) / np.exp(-unary).sum(-1, keepdims=True), atol=1e-6)


def test_labels_are_alike():
    unary, image, _ = three_regions((16, 21))
    order = [2, 0, 1]
    q = mean_field_exact(unary, image)
    assert np.abs(mean_field_exact(unary[..., order], image) - q[..., order]).max() < 1e-6
    assert np.allclose(q.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("kernels", SETTINGS[:3])
def test_the_objective_does_not_rise(kernels):
    rng = np.random.default_rng(3)
    unary = rng.normal(size=(24, 24, 3)).astype(np.float32)
    image = rng.integers(0, 256, (24, 24, 3)).astype(np.uint8)
    values = [
        objective(mean_field_exact(unary, image, params), unary, image, params)
        for params in (CRFParams(iterations=n, **kernels) for n in range(11))
    ]
    assert max(np.diff(values)) < 1e-3
    assert values[-1] < values[0] - 1


@pytest.mark.parametrize("kernels", SETTINGS[:3])
def test_the_objective_rises_where_a_sign_is_wrong(kernels):
    """Potts' agreement as a cost, and the unary with its sign turned: what the test above is to find."""
    rng = np.random.default_rng(3)
    unary = rng.normal(size=(24, 24, 3)).astype(np.float32)
    image = rng.integers(0, 256, (24, 24, 3)).astype(np.uint8)
    right = CRFParams(**kernels)
    repelled, turned = [], []
    for n in range(4):
        params = dataclasses.replace(right, iterations=n)
        wrong = dataclasses.replace(params, compat=np.eye(3))
        repelled.append(objective(mean_field_exact(unary, image, wrong), unary, image, right))
        turned.append(objective(mean_field_exact(-unary, image, params), unary, image, right))
    assert max(np.diff(repelled)) > 1
    assert max(turned) > repelled[0] + 1


def test_the_objective_of_two_pixels_by_hand():
    # One row of two like pixels, width 1: K = [[1, k], [k, 1]], k = exp(-1/2); without normalisation, w = 2, and for
    # q = (.8, .2), (.6, .4): Q log Q = -.5004 - .6730, U Q = .8 + .4 = 1.2 with U = (1, 0), (0, 1),
    # -1/2 * 2 * (q1.q1 + q2.q2 + 2 k q1.q2) = -(.68 + .52 + 2 * .60653 * .56)
    q = np.array([[[0.8, 0.2], [0.6, 0.4]]])
    unary = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    params = CRFParams(theta_gamma=1, gaussian_weight=2, bilateral_weight=0, normalization="none")
    expected = -0.50040 - 0.67301 + 1.2 - (0.68 + 0.52 + 2 * 0.60653 * 0.56)
    assert objective(q, unary, np.zeros((1, 2, 3)), params) == pytest.approx(expected, abs=1e-4)
