"""Thin-plate splines of the plane as one matrix: where points go when control points are moved."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["control_grid", "thin_plate_basis"]

Matrix = npt.NDArray[np.float64]


def control_grid(control: tuple[int, int]) -> Matrix:
    """Control points (rows * columns, 2) xy, spread evenly over [-1, 1] with its edges, row by row.

    Raises:
        ValueError: fewer than two rows or columns.
    """
    counts = tuple(control) if isinstance(control, tuple | list) else ()
    if len(counts) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 2 for n in counts):
        raise ValueError(f"`control` must be (rows, columns) of at least 2. Received: control={control!r}.")
    y, x = np.meshgrid(np.linspace(-1, 1, counts[0]), np.linspace(-1, 1, counts[1]), indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=-1)


def thin_plate_basis(points: npt.ArrayLike, control: npt.ArrayLike) -> Matrix:
    """The matrix (P, K) that takes places (K, 2) of the control points to those (P, 2) of `points`.

    The spline is the least bent map that moves each control point to its place. Bookstein, Principal warps: thin-plate
    splines and the decomposition of deformations, TPAMI 1989: U(r) = r^2 log r^2 around each control point, and an
    affine part. It is linear in the places, so that a transformer need only multiply.

    Args:
        points: (P, 2).
        control: (K, 2), at least three, not all on a line.

    Raises:
        ValueError: points of another shape, or too few control points.
    """
    xy, knots = np.asarray(points, np.float64), np.asarray(control, np.float64)
    if xy.ndim != 2 or xy.shape[1:] != (2,) or knots.ndim != 2 or knots.shape[1:] != (2,):
        raise ValueError(f"`points` and `control` must be (P, 2) and (K, 2). Received: {xy.shape} and {knots.shape}.")
    flat = _flat(knots)
    if np.linalg.matrix_rank(flat) < 3:
        raise ValueError(f"`control` must hold three points that are not on a line. Received: {knots.tolist()}.")
    count = len(knots)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = _bending(knots, knots)
    system[:count, count:], system[count:, :count] = flat, flat.T
    weights = np.linalg.solve(system, np.eye(count + 3)[:, :count])
    return np.asarray(np.hstack([_bending(xy, knots), _flat(xy)]) @ weights)


def _flat(points: Matrix) -> Matrix:
    return np.column_stack([np.ones(len(points)), points])


def _bending(points: Matrix, knots: Matrix) -> Matrix:
    """U of the distances, (P, K)."""
    squares: Any = ((points[:, None] - knots[None]) ** 2).sum(axis=-1)
    return np.asarray(squares * np.log(np.where(squares == 0, 1, squares)))
