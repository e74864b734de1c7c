"""Homographies between a straightened crop and the image it is cut from, in pixels and as a transformer's theta.

Every matrix here leads from the crop to the image, as a warp needs it: each pixel of the crop asks where it comes from.
Pixels are continuous (the centre of pixel i is i + 0.5); `index_homography` gives the matrix between pixel indices that
`cv2.warpPerspective` takes, with the flag `cv2.WARP_INVERSE_MAP`.

Theta is the same map with both pictures on [-1, 1]: -1 and 1 are the outer edges of the first and of the last pixel,
or, with `align_corners`, their centres.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "apply_homography",
    "corner_homography",
    "homography",
    "homography_to_theta",
    "index_homography",
    "size_corners",
    "theta_matrix",
    "theta_to_homography",
]

Matrix = npt.NDArray[np.float64]
Size = tuple[int, int]
THETAS = {3: "attention", 6: "affine", 8: "projective"}
FLAT = 1e-9  # area of a triangle of three corners, as a share of the square around all of them


def homography(source: npt.ArrayLike, target: npt.ArrayLike) -> Matrix:
    """The 3x3 matrix that takes four points `source` (4, 2) xy to `target` (4, 2) xy; its last entry is 1.

    Hartley, Zisserman, Multiple view geometry, 2nd edition, section 2.3: eight equations, solved exactly.

    Raises:
        ValueError: points that are not (4, 2) or not finite; three of them on a line, or four that do not go round.
    """
    first, second = _corners(source, "source"), _corners(target, "target")
    before, after = _centred(first), _centred(second)
    a, b = apply_homography(before, first), apply_homography(after, second)
    rows = np.zeros((8, 8))
    rows[:4, 0:2], rows[:4, 2] = a, 1
    rows[4:, 3:5], rows[4:, 5] = a, 1
    rows[:4, 6:8], rows[4:, 6:8] = -b[:, :1] * a, -b[:, 1:] * a
    solved = np.append(np.linalg.solve(rows, b.T.ravel()), 1.0).reshape(3, 3)
    matrix = np.linalg.inv(after) @ solved @ before
    return matrix / matrix[2, 2]


def corner_homography(corners: npt.ArrayLike, output_hw: Size) -> Matrix:
    """The matrix (3, 3) from a crop of `output_hw` to the four-sided region `corners` of an image.

    Args:
        corners: (4, 2) xy in pixels of the image; where the crop's top left, top right, bottom right and bottom left
            corners (the outer ones of its corner pixels) lie.
        output_hw: height and width of the crop in pixels.

    Raises:
        ValueError: as `homography`; a size below 1.
    """
    return homography(size_corners(output_hw), corners)


def size_corners(size_hw: Size) -> Matrix:
    """The outer corners (4, 2) xy of a picture: top left, top right, bottom right, bottom left."""
    height, width = _size(size_hw, "size_hw")
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)


def apply_homography(matrix: npt.ArrayLike, points: npt.ArrayLike) -> Matrix:
    """Points (..., 2) xy taken through `matrix` (3, 3) or (2, 3); NaN for a point that it sends to infinity."""
    given, xy = np.asarray(matrix, np.float64), np.asarray(points, np.float64)
    if given.shape not in ((3, 3), (2, 3)) or xy.shape[-1:] != (2,):
        raise ValueError(
            f"`matrix` must be (3, 3) or (2, 3), `points` (..., 2). Received: {given.shape} and {xy.shape}."
        )
    moved = xy @ given[:, :2].T + given[:, 2]
    if len(given) == 2:
        return np.asarray(moved)
    below = moved[..., 2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below == 0, np.nan, moved[..., :2] / below)


def index_homography(matrix: npt.ArrayLike) -> Matrix:
    """A matrix (3, 3) between continuous pixels as one between pixel indices, half a pixel less on both sides."""
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    return _scaled(np.linalg.inv(half) @ _whole(matrix) @ half)


def theta_matrix(theta: npt.ArrayLike) -> Matrix:
    """Theta (..., n) as matrices (..., 3, 3) from output to input, both on [-1, 1].

    Args:
        theta: of 3 numbers, attention: s, x, y; of 6, affine: the rows of (2, 3); of 8, projective: the rows of (3, 3)
            without the last entry, which is 1.

    Raises:
        ValueError: another number of them (a thin-plate spline has no matrix).
    """
    numbers = np.asarray(theta, np.float64)
    count = numbers.shape[-1] if numbers.ndim else 0
    if count not in THETAS:
        raise ValueError(
            f"`theta` must hold 3 (attention), 6 (affine) or 8 (projective) numbers. Received: shape={numbers.shape}."
        )
    whole = np.zeros((*numbers.shape[:-1], 9))
    whole[..., 8] = 1
    if count == 3:
        whole[..., (0, 4)], whole[..., 2], whole[..., 5] = numbers[..., :1], numbers[..., 1], numbers[..., 2]
    else:
        whole[..., :count] = numbers
    return whole.reshape(*numbers.shape[:-1], 3, 3)


def theta_to_homography(
    theta: npt.ArrayLike, input_hw: Size, output_hw: Size, *, align_corners: bool = False
) -> Matrix:
    """The matrices (..., 3, 3) in pixels, crop to image, of thetas (..., n); see `theta_matrix`.

    Args:
        input_hw: of the image that the transformer reads; `output_hw` of what it writes.
        align_corners: as the transformer has it.

    Raises:
        ValueError: as `theta_matrix`; a size below 1, or below 2 with `align_corners`.
    """
    into, out = (_normalizing(size, align_corners) for size in (input_hw, output_hw))
    return _scaled(np.linalg.inv(into) @ theta_matrix(theta) @ out)


def homography_to_theta(
    matrix: npt.ArrayLike,
    input_hw: Size,
    output_hw: Size,
    *,
    align_corners: bool = False,
    transform: str = "projective",
) -> Matrix:
    """The theta (n,) of a matrix (3, 3) in pixels, crop to image: what `theta_to_homography` undoes.

    Raises:
        ValueError: the matrix is not of the kind `transform`; a size as in `theta_to_homography`.
    """
    counts = {name: count for count, name in THETAS.items()}
    if transform not in counts:
        raise ValueError(f"`transform` must be one of {', '.join(counts)}. Received: transform={transform!r}.")
    into, out = (_normalizing(size, align_corners) for size in (input_hw, output_hw))
    whole = into @ _whole(matrix) @ np.linalg.inv(out)
    if abs(whole[2, 2]) < 1e-12:
        raise ValueError("`matrix` sends the middle of the crop to infinity; theta cannot hold it.")
    whole = whole / whole[2, 2]
    theta = np.array([whole[0, 0], whole[0, 2], whole[1, 2]]) if transform == "attention" else whole.ravel()[:8]
    theta = theta[: counts[transform]]
    if not np.allclose(theta_matrix(theta), whole, atol=1e-6):
        raise ValueError(f"`matrix` is no {transform} transform. Received: theta matrix {whole.round(4).tolist()}.")
    return np.asarray(theta)


def _scaled(matrices: Matrix) -> Matrix:
    """Matrices (..., 3, 3) whose last entry is 1, where that can be."""
    last = matrices[..., 2:, 2:]
    return matrices / np.where(last == 0, 1, last)


def _normalizing(size_hw: Size, align_corners: bool) -> Matrix:
    """The matrix (3, 3) from continuous pixels of a picture to [-1, 1]."""
    height, width = _size(size_hw, "size_hw", least=2 if align_corners else 1)
    spread = np.array([width, height], np.float64) - align_corners
    start = 0.5 if align_corners else 0.0
    scale = 2 / spread
    return np.array([[scale[0], 0, -1 - start * scale[0]], [0, scale[1], -1 - start * scale[1]], [0, 0, 1]])


def _size(size_hw: Any, name: str, least: int = 1) -> Size:
    sizes = tuple(size_hw) if isinstance(size_hw, tuple | list | np.ndarray) else ()
    if len(sizes) != 2 or any(int(n) != n or n < least for n in sizes):
        raise ValueError(f"`{name}` must be (height, width) of at least {least}. Received: {name}={size_hw!r}.")
    return int(sizes[0]), int(sizes[1])


def _whole(matrix: npt.ArrayLike) -> Matrix:
    given = np.asarray(matrix, np.float64)
    if given.shape != (3, 3):
        raise ValueError(f"`matrix` must be (3, 3). Received: shape={given.shape}.")
    return given


def _corners(points: npt.ArrayLike, name: str) -> Matrix:
    """Four points that go round: every turn is to the same side, and none is straight."""
    corners = np.asarray(points, np.float64)
    if corners.shape != (4, 2) or not np.isfinite(corners).all():
        raise ValueError(f"`{name}` must be four finite points, (4, 2). Received: {corners.tolist()}.")
    sides = np.roll(corners, -1, axis=0) - corners
    ahead = np.roll(sides, -1, axis=0)
    turns = sides[:, 0] * ahead[:, 1] - sides[:, 1] * ahead[:, 0]
    flat = FLAT * max(float(np.ptp(corners, axis=0).max()) ** 2, 1e-300)
    if not (np.all(turns > flat) or np.all(turns < -flat)):
        raise ValueError(
            f"`{name}` must be the corners of a convex region, one after the other around it. "
            f"Received: {corners.tolist()}."
        )
    return corners


def _centred(points: Matrix) -> Matrix:
    """The matrix (3, 3) that brings points (4, 2) about 0 and to a size of 1, so that the equations are well scaled."""
    middle = points.mean(axis=0)
    scale = 1 / max(float(np.abs(points - middle).max()), 1e-300)
    return np.array([[scale, 0, -middle[0] * scale], [0, scale, -middle[1] * scale], [0, 0, 1]])
