"""Mean field by brute force, every pixel with every other: slow, exact, the reference for everything faster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.crf.params import CRFParams, Normalization
from visionkit.crf.unary import check_image, check_initial, check_unary

__all__ = ["mean_field_exact", "objective"]

Array = npt.NDArray[np.float64]
BLOCK_VALUES = 2**22  # of a slab of the kernel matrix, 32 MiB
KEPT_VALUES = 2**24  # a whole kernel matrix up to this size is kept between iterations


def mean_field_exact(
    unary: npt.ArrayLike,
    image: npt.ArrayLike,
    params: CRFParams | None = None,
    *,
    initial: npt.ArrayLike | None = None,
) -> npt.NDArray[np.float32]:
    """Marginals float32 (H, W, L) of the fully connected CRF by the O(N^2) sum, in double precision.

    Krähenbühl and Koltun, NIPS 2011, algorithm 1, with the normalisation and the self term that `params` asks for.
    Memory is bounded (the kernel matrix is made slab by slab where it is large); time is not: N^2 per iteration.

    Args:
        unary: (H, W, L), -log p.
        image: (H, W, C), any number of channels, of which differences count: their order does not matter.
        params: default: CRFParams().
        initial: first marginals (H, W, L) instead of softmax(-unary).
    """
    params = params or CRFParams()
    costs = check_unary(unary)
    first = check_initial(initial, costs.shape)
    flat = costs.reshape(-1, costs.shape[2]).astype(np.float64)
    q = softmax(-flat) if first is None else first.reshape(flat.shape).astype(np.float64)
    pairwise = _pairwise(check_image(image, costs.shape[:2]), params, flat.shape[1])
    for _ in range(params.iterations):
        q = softmax(-flat - pairwise(q))
    return q.reshape(costs.shape).astype(np.float32)


def objective(
    marginals: npt.ArrayLike, unary: npt.ArrayLike, image: npt.ArrayLike, params: CRFParams | None = None
) -> float:
    """What mean field makes small: sum Q log Q + sum U Q + 1/2 sum Q'(pairwise costs)Q, exact.

    The KL divergence between the product of the marginals and the CRF's distribution, up to its log partition.
    """
    params = params or CRFParams()
    costs = check_unary(unary)
    q = np.asarray(marginals, np.float64).reshape(-1, costs.shape[2])
    pairwise = _pairwise(check_image(image, costs.shape[:2]), params, q.shape[1])
    entropy = np.sum(q * np.log(np.maximum(q, 1e-300)))
    return float(entropy + np.sum(q * costs.reshape(q.shape)) + 0.5 * np.sum(q * pairwise(q)))


def softmax(logits: Array) -> Array:
    """Softmax over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _pairwise(image: npt.NDArray[Any], params: CRFParams, labels: int) -> Callable[[Array], Array]:
    """The costs (N, L) that the neighbours' marginals (N, L) put on each label."""
    matrix = params.compat_matrix(labels)
    grid = np.indices(image.shape[:2])[::-1].reshape(2, -1).T.astype(np.float64)  # (N, 2) x, y
    colours = image.reshape(len(grid), -1).astype(np.float64)
    kernels: list[tuple[float, Array]] = []
    if params.gaussian_weight:
        kernels.append((params.gaussian_weight, grid / params.gaussian_widths()))
    if params.bilateral_weight:
        widths = params.bilateral_widths(colours.shape[1])
        kernels.append((params.bilateral_weight, np.hstack([grid, colours]) / widths))
    filters = [(weight, _filter(features, params)) for weight, features in kernels]

    def costs(q: Array) -> Array:
        message = np.zeros_like(q)
        for weight, apply in filters:
            message += weight * apply(q)
        # Potts: minus the agreement, which differs from the paper's cost of disagreement by a constant per pixel.
        return -message if matrix is None else message @ matrix.T.astype(np.float64)

    return costs


def _filter(features: Array, params: CRFParams) -> Callable[[Array], Array]:
    """Multiplication of (N, L) by one normalised Gaussian kernel over `features` (N, d)."""
    apply = _kernel(features)
    before, after = scales(apply(np.ones((len(features), 1))), params.normalization)

    def normalised(q: Array) -> Array:
        source = before * q
        message = apply(source)
        return after * (message if params.self_term else message - source)

    return normalised


def scales(row_sums: Array, normalization: Normalization) -> tuple[Array, Array]:
    """What a kernel's input and output are multiplied by, given its row sums."""
    ones = np.ones_like(row_sums)
    if normalization == "none":
        return ones, ones
    inverse = 1 / row_sums
    if normalization == "symmetric":
        return np.sqrt(inverse), np.sqrt(inverse)
    return (inverse, ones) if normalization == "before" else (ones, inverse)


def _kernel(features: Array) -> Callable[[Array], Array]:
    """Multiplication by exp(-|f_i - f_j|^2 / 2) of all pairs, kept where it is small, else made slab by slab."""
    count = len(features)
    squares = 0.5 * np.sum(features**2, axis=1)
    step = max(1, BLOCK_VALUES // count)

    def slab(start: int) -> Array:
        part = slice(start, start + step)
        exponents = features[part] @ features.T - squares[part, None] - squares[None, :]
        return np.asarray(np.exp(np.minimum(exponents, 0.0)))

    if count * count <= KEPT_VALUES:
        kept = np.vstack([slab(start) for start in range(0, count, step)])
        return lambda q: np.asarray(kept @ q)
    return lambda q: np.vstack([slab(start) @ q for start in range(0, count, step)])
