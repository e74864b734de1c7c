"""Digits put down crooked in the four ways of Jaderberg et al., Spatial transformer networks, NIPS 2015, Table 1.

`R` turns by up to 90 degrees either way. `RTS` turns by up to 45, scales by 0.7 to 1.2 and puts the digit anywhere on a
canvas of 1.5 times its sides. `P` scales by 0.75 to 1 and moves each corner by a normal number of 5 pixels. `E` scales
by 0.75 to 1 and moves the 4 x 4 control points of a thin-plate spline by a normal number of 1.5 pixels. The pixels are
those of a digit 28 x 28, and grow with it.

Ours, where the paper's appendix says nothing: angles, scales and places are drawn evenly; `RTS` keeps the frame of the
digit, as it was before the turn, on the canvas; `P` draws corners again that no longer go round (`LEAST`); `E`'s spline
tells for each place of the result where it is read. Sampling is bilinear, and beyond the digit all is 0.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.geometry.homography import size_corners
from visionkit.geometry.thin_plate import control_grid, thin_plate_basis

__all__ = ["DISTORTIONS", "canvas_hw", "distort_digits", "draw_matrices", "draw_splines"]

DISTORTIONS = ("R", "RTS", "P", "E")
TURN = {"R": 90.0, "RTS": 45.0}  # degrees
SCALE = {"R": (1.0, 1.0), "RTS": (0.7, 1.2), "P": (0.75, 1.0), "E": (0.75, 1.0)}
CANVAS = {"RTS": 1.5}
CORNER, CONTROL_POINT, SIDE = 5.0, 1.5, 28.0  # standard deviations in pixels of a digit of SIDE
CONTROL = (4, 4)
LEAST = 0.1  # of the frame: the least area of a triangle of three neighbouring corners

Size = tuple[int, int]
Matrix = npt.NDArray[np.float64]


def canvas_hw(kind: str, size_hw: Size) -> Size:
    """Height and width of what a digit of `size_hw` is put on.

    Raises:
        ValueError: no such distortion.
    """
    if kind not in DISTORTIONS:
        raise ValueError(f"`kind` must be one of {', '.join(DISTORTIONS)}. Received: kind={kind!r}.")
    factor = CANVAS.get(kind, 1.0)
    return round(size_hw[0] * factor), round(size_hw[1] * factor)


def distort_digits(digits: npt.NDArray[np.uint8], kind: str, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Each digit uint8 (N, H, W) distorted in another way: (N, h, w, 1) from 0 to 1.

    Raises:
        ValueError: digits of another shape or type; no such distortion.
    """
    if digits.ndim != 3 or digits.dtype != np.uint8:
        raise ValueError(f"`digits` must be uint8 (N, H, W). Received: {digits.dtype} {digits.shape}.")
    size_hw = (digits.shape[1], digits.shape[2])
    canvas = canvas_hw(kind, size_hw)
    given, out = digits.astype(np.float32) / 255, np.empty((len(digits), *canvas, 1), np.float32)
    if kind == "E":
        places = draw_splines(len(digits), size_hw, rng).astype(np.float32)
        for k, (x, y) in enumerate(places):
            cv2.remap(given[k], x, y, cv2.INTER_LINEAR, dst=out[k, ..., 0])
        return out
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # from indices to continuous pixels
    for k, matrix in enumerate(np.linalg.inv(half) @ draw_matrices(kind, len(digits), size_hw, rng) @ half):
        cv2.warpPerspective(given[k], matrix, canvas[::-1], dst=out[k, ..., 0], flags=cv2.INTER_LINEAR)
    return out


def draw_matrices(kind: str, count: int, size_hw: Size, rng: np.random.Generator) -> Matrix:
    """The maps (count, 3, 3) of `R`, `RTS` or `P` from a digit to its canvas, in continuous pixels.

    Raises:
        ValueError: a distortion that is none of those.
    """
    canvas = np.array(canvas_hw(kind, size_hw)[::-1], np.float64)
    if kind == "E":
        raise ValueError("A spline is no matrix. Received: kind='E'.")
    scale = rng.uniform(*SCALE[kind], count)
    if kind == "P":
        return _stretched(scale, size_hw, rng)
    angle = np.deg2rad(rng.uniform(-TURN[kind], TURN[kind], count))
    size = np.array(size_hw[::-1], np.float64)
    room = np.maximum(canvas - scale[:, None] * size, 0) / 2 if kind in CANVAS else np.zeros((count, 2))
    out = np.zeros((count, 3, 3))
    out[:, 0, 0] = out[:, 1, 1] = scale * np.cos(angle)
    out[:, 1, 0] = scale * np.sin(angle)
    out[:, 0, 1] = -out[:, 1, 0]
    out[:, :2, 2] = canvas / 2 + rng.uniform(-1, 1, (count, 2)) * room - out[:, :2, :2] @ (size / 2)
    out[:, 2, 2] = 1
    return out


def draw_splines(count: int, size_hw: Size, rng: np.random.Generator) -> Matrix:
    """Where in a digit each pixel of the result of `E` is read: (count, 2, H, W), x and y as pixel indices."""
    size = np.array(size_hw[::-1], np.float64)
    scale = rng.uniform(*SCALE["E"], count)
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    pixels = (np.stack([x.ravel(), y.ravel()], axis=-1) + 0.5) * 2 / size - 1  # [-1, 1], its ends the outer edges
    knots = control_grid(CONTROL)
    moved = knots + rng.normal(0, CONTROL_POINT * 2 / SIDE, (count, len(knots), 2))
    read = thin_plate_basis(pixels, knots) @ moved / scale[:, None, None]  # (count, H * W, 2)
    return np.ascontiguousarray((((read + 1) * size - 1) / 2).transpose(0, 2, 1)).reshape(count, 2, *size_hw)


def _stretched(scale: npt.NDArray[np.float64], size_hw: Size, rng: np.random.Generator) -> Matrix:
    """Homographies that scale around the middle and then move each corner of the frame."""
    size = np.array(size_hw[::-1], np.float64)
    frame = size_corners(size_hw).astype(np.float32)
    out = np.empty((len(scale), 3, 3))
    for k, zoom in enumerate(scale):
        shrunk = (size_corners(size_hw) - size / 2) * zoom + size / 2
        while True:
            corners = shrunk + rng.normal(0, CORNER / SIDE, (4, 2)) * size
            if _least_triangle(corners) >= LEAST * zoom**2 * size.prod():
                break
        found: Any = cv2.getPerspectiveTransform(frame, corners.astype(np.float32))
        out[k] = found
    return out


def _least_triangle(corners: Matrix) -> float:
    """The least area of three neighbouring corners; negative where they turn the other way."""
    first, second = corners - np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0) - corners
    return float((first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).min() / 2)
