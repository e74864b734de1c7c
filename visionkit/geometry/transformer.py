"""The transforms of a spatial transformer: how many numbers theta has, what it is at the identity, where points go.

Theta leads from the output to the input, both on [-1, 1]; `visionkit.layers.SpatialTransformer` samples by it. See
`geometry.homography` for the same in pixels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from visionkit.geometry.homography import apply_homography, theta_matrix
from visionkit.geometry.thin_plate import control_grid, thin_plate_basis

__all__ = ["TRANSFORMS", "identity_theta", "theta_size", "transform_points"]

TRANSFORMS = ("affine", "attention", "projective", "tps")
CONTROL = (4, 4)  # the paper's 16 points
IDENTITIES = {"attention": (1, 0, 0), "affine": (1, 0, 0, 0, 1, 0), "projective": (1, 0, 0, 0, 1, 0, 0, 0)}


def identity_theta(transform: str, control: tuple[int, int] = CONTROL) -> npt.NDArray[np.float32]:
    """The theta (n,) that leaves a picture as it is.

    Args:
        transform: `attention`, s x y; `affine`, the rows of (2, 3); `projective`, the rows of (3, 3) without its last
            entry; `tps`, where each control point is taken from, x y, row by row.
        control: rows and columns of control points.

    Raises:
        ValueError: an unknown transform, or too few control points.
    """
    if transform == "tps":
        return control_grid(control).astype(np.float32).ravel()
    if transform not in IDENTITIES:
        raise ValueError(f"`transform` must be one of {', '.join(TRANSFORMS)}. Received: transform={transform!r}.")
    return np.array(IDENTITIES[transform], np.float32)


def theta_size(transform: str, control: tuple[int, int] = CONTROL) -> int:
    """How many numbers theta has: 3, 6, 8, or two for each control point."""
    return len(identity_theta(transform, control))


def transform_points(
    theta: npt.ArrayLike, points: npt.ArrayLike, transform: str, control: tuple[int, int] = CONTROL
) -> npt.NDArray[np.float64]:
    """Where points (P, 2) xy of the output lie in the input, (P, 2), all on [-1, 1].

    Raises:
        ValueError: theta has not the size of `transform`.
    """
    numbers = np.asarray(theta, np.float64)
    if numbers.shape != (theta_size(transform, control),):
        raise ValueError(
            f"`theta` of {transform} must be ({theta_size(transform, control)},). Received: {numbers.shape}."
        )
    if transform == "tps":
        return np.asarray(thin_plate_basis(points, control_grid(control)) @ numbers.reshape(-1, 2))
    return apply_homography(theta_matrix(numbers), points)
