"""The same lattice and Gaussian on SciPy and NumPy alone, for machines without numba: slower, equal to rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.crf.diagonal import lattice_diagonal, needs_unit_diagonal
from visionkit.crf.exact import scales
from visionkit.crf.gaussian import gaussian_taps
from visionkit.crf.params import CRFParams

__all__ = ["PlainField", "embed", "neighbours"]

Array = npt.NDArray[np.float32]


def embed(features: npt.NDArray[np.floating[Any]]) -> tuple[npt.NDArray[np.int64], Array, npt.NDArray[np.int64]]:
    """Vertices ids (N, d + 1), barycentric weights (N, d + 1) and keys (M, d) of features (N, d) in units of widths.

    Adams, Baek and Davis, Fast High-Dimensional Filtering Using the Permutohedral Lattice, Eurographics 2010, sec. 4.
    """
    count, d = features.shape
    k = np.arange(1, d + 1)
    scaled = features * (np.sqrt(2 / 3) * (d + 1) / np.sqrt(k * (k + 1)))
    # Onto the plane where coordinates sum to 0: what lies above adds up, the own one is taken off.
    above = np.cumsum(scaled[:, ::-1], axis=1)[:, ::-1]
    up = np.hstack([above, np.zeros((count, 1))])
    up[:, 1:] -= k * scaled
    whole = np.floor(up / (d + 1) + 0.5)
    zero = whole * (d + 1)
    residual = up - zero
    order = np.argsort(-residual, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(d + 1)[None, :].repeat(count, 0), axis=1)
    rank += whole.sum(axis=1).astype(np.int64)[:, None]
    low, high = rank < 0, rank > d
    rank += (d + 1) * (low.astype(np.int64) - high)
    zero += (d + 1) * (low.astype(np.int64) - high)
    sorted_part = np.empty_like(up)
    np.put_along_axis(sorted_part, rank, (up - zero) / (d + 1), axis=1)  # by rank, largest first
    weights = np.empty_like(up)
    weights[:, 1:] = (sorted_part[:, :-1] - sorted_part[:, 1:])[:, ::-1]
    weights[:, 0] = 1 - (sorted_part[:, 0] - sorted_part[:, -1])
    r = np.arange(d + 1)[None, :, None]
    keys = zero[:, None, :d] + r - (d + 1) * (rank[:, None, :d] > d - r)
    unique, ids = np.unique(keys.reshape(-1, d).astype(np.int64), axis=0, return_inverse=True)
    return ids.reshape(count, d + 1), weights.astype(np.float32), unique


def neighbours(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Numbers (d + 1, M, 2) of the vertices on both sides along each axis; M where there is none."""
    count, d = keys.shape
    numbers = {key.tobytes(): i for i, key in enumerate(keys)}
    beside = np.full((d + 1, count, 2), count, np.int64)
    for axis in range(d + 1):
        step = np.ones(d, np.int64)
        if axis < d:
            step[axis] = -d
        for side, moved in enumerate((keys - step, keys + step)):
            beside[axis, :, side] = [numbers.get(key.tobytes(), count) for key in moved]
    return beside


class PlainField:
    """Mean field over one image; see `FastMeanField`."""

    engine = "scipy"

    def __init__(self, image: npt.NDArray[Any], params: CRFParams, threads: int | None = None) -> None:
        del threads  # SciPy's own loops run in one
        self.params = params
        self.size_hw = image.shape[:2]
        self.filters: list[tuple[float, Callable[[Array], Array]]] = []
        if params.gaussian_weight:
            self.filters.append((params.gaussian_weight, self._normalised(_gaussian(self.size_hw, params))))
        if params.bilateral_weight:
            self.filters.append((params.bilateral_weight, self._normalised(_bilateral(image, params))))

    def _normalised(self, apply: Callable[[Array], Array]) -> Callable[[Array], Array]:
        count = self.size_hw[0] * self.size_hw[1]
        sums = np.maximum(apply(np.ones((count, 1), np.float32)), 1e-20).astype(np.float64)
        before, after = (side.astype(np.float32) for side in scales(sums, self.params.normalization))

        def normalised(q: Array) -> Array:
            source = before * q
            message = apply(source)
            return np.asarray(after * (message if self.params.self_term else message - source))

        return normalised

    def infer(self, unary: Array, first: Array | None, iterations: int) -> Array:
        """Marginals float32 (H, W, L) after `iterations` updates of softmax(-unary), or of `first`."""
        labels = unary.shape[2]
        flat = unary.reshape(-1, labels)
        matrix = self.params.compat_matrix(labels)
        q = _softmax(-flat) if first is None else np.array(first.reshape(flat.shape))
        for _ in range(iterations):
            message = np.zeros_like(flat)
            for weight, apply in self.filters:
                message += np.float32(weight) * apply(q)
            q = _softmax((message if matrix is None else -message @ matrix.T) - flat)
        return q.reshape(unary.shape)


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _gaussian(size_hw: tuple[int, int], params: CRFParams) -> Callable[[Array], Array]:
    from scipy.ndimage import correlate1d

    width_x, width_y = params.gaussian_widths()
    taps = [gaussian_taps(theta, size) for theta, size in zip((width_y, width_x), size_hw, strict=True)]

    def apply(q: Array) -> Array:
        values = q.reshape(*size_hw, q.shape[1])
        for axis in range(2):
            values = correlate1d(values, taps[axis], axis=axis, mode="constant")
        return values.reshape(q.shape)

    return apply


def _bilateral(image: npt.NDArray[Any], params: CRFParams) -> Callable[[Array], Array]:
    from scipy.sparse import csr_matrix

    height, width, channels = image.shape
    grid = np.indices((height, width))[::-1].reshape(2, -1).T
    features = np.hstack([grid, image.reshape(-1, channels)]) / params.bilateral_widths(channels)
    ids, weights, keys = embed(features)
    if needs_unit_diagonal(params):
        weights /= np.sqrt(lattice_diagonal(weights))[:, None]
    beside = neighbours(keys)
    starts = np.arange(0, ids.size + 1, ids.shape[1])
    onto = csr_matrix((weights.ravel(), ids.ravel(), starts), shape=(len(ids), len(keys)))
    back = onto.T.tocsr()
    gain = np.float32(1 / (1 + 2.0 ** -(channels + 2)))

    def apply(q: Array) -> Array:
        values = back @ q
        for pair in beside:
            held = np.vstack([values, np.zeros((1, q.shape[1]), np.float32)])
            values = values + np.float32(0.5) * (held[pair[:, 0]] + held[pair[:, 1]])
        return np.asarray(gain * (onto @ values))

    return apply
