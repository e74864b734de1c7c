"""Where a transformer's output comes from, and reading an image there: both with gradients on every backend.

Places are computed as the output's own places in the input plus what theta moves them by, so that the identity moves
nothing and reads each pixel as it is, to the bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops

from visionkit.geometry.thin_plate import control_grid, thin_plate_basis

__all__ = ["bilinear_sample", "displacement", "grid_line", "input_line"]

HORIZON = 1e-6  # the least that a projective transform divides by


def grid_line(count: int, samples: int, align_corners: bool) -> npt.NDArray[np.float64]:
    """Places of one axis of the output on [-1, 1], (count * samples,).

    Args:
        count: pixels of the axis; `samples` points are spread evenly over each.
        align_corners: -1 and 1 are the centres of the first and the last pixel, not their outer edges; a single pixel
            is in the middle then.
    """
    index = (np.arange(count * samples) + 0.5) / samples - 0.5
    if align_corners:
        return 2 * index / (count - 1) - 1 if count > 1 else index * 0
    return (2 * index + 1) / count - 1


def input_line(count: int, samples: int, align_corners: bool, size: Any) -> Any:
    """The same places as pixel indices of an input axis of `size` (an integer, or a scalar tensor), float32.

    Nothing is rounded where the input has the output's size.
    """
    index = (np.arange(count * samples) + 0.5) / samples - 0.5
    if isinstance(size, int):
        line = _to_pixels(index, count, align_corners, size)
        return ops.convert_to_tensor(line.astype(np.float32))
    return _to_pixels(ops.convert_to_tensor(index.astype(np.float32)), count, align_corners, ops.cast(size, "float32"))


def _to_pixels(index: Any, count: int, align_corners: bool, size: Any) -> Any:
    if not align_corners:
        return ((2 * index + 1) * size / count - 1) / 2
    if count == 1:
        return index * 0 + (size - 1) / 2
    return index * (size - 1) / (count - 1)


def displacement(theta: Any, transform: str, lines: tuple[Any, Any], control: tuple[int, int]) -> tuple[Any, Any]:
    """How far theta (B, n) moves the points of a grid in x and in y, each (B, h, w) float32, on [-1, 1].

    Args:
        transform: see `geometry.transformer`.
        lines: NumPy arrays, y (h,) and x (w,), of the grid.
        control: rows and columns of a spline's control points.
    """
    if transform == "tps":
        return _spline(theta, lines, control)
    y, x = (ops.convert_to_tensor(line.astype(np.float32)) for line in lines)
    y, x = y[:, None], x[None, :]
    entry = [theta[:, k, None, None] for k in range(theta.shape[-1])]
    if transform == "attention":
        return (entry[0] - 1) * x + entry[1], (entry[0] - 1) * y + entry[2]
    moved_x = (entry[0] - 1) * x + entry[1] * y + entry[2]
    moved_y = entry[3] * x + (entry[4] - 1) * y + entry[5]
    if transform == "affine":
        return moved_x, moved_y
    tilt = entry[6] * x + entry[7] * y
    below = tilt + 1
    below = ops.where(ops.abs(below) < HORIZON, HORIZON, below)
    return (moved_x - x * tilt) / below, (moved_y - y * tilt) / below


def _spline(theta: Any, lines: tuple[Any, Any], control: tuple[int, int]) -> tuple[Any, Any]:
    points = control_grid(control)
    (height, width) = (len(line) for line in lines)
    y, x = np.meshgrid(*lines, indexing="ij")
    basis = thin_plate_basis(np.stack([x.ravel(), y.ravel()], axis=-1), points)
    # Two constants, not one sliced in the graph; the affine part of the basis keeps what does not move where it is.
    matrix = ops.convert_to_tensor(basis.T.astype(np.float32))  # (K, h * w)
    moved = [theta[:, k::2] - ops.convert_to_tensor(points[:, k].astype(np.float32)) for k in (0, 1)]
    found = [ops.reshape(ops.matmul(m, matrix), (-1, height, width)) for m in moved]
    return found[0], found[1]


def bilinear_sample(image: Any, x: Any, y: Any, border: str) -> Any:
    """An image (B, H, W, C) read bilinearly at pixel indices `x`, `y`, both (B, h, w): (B, h, w, C) float32.

    Jaderberg, Simonyan, Zisserman, Kavukcuoglu, Spatial transformer networks, NIPS 2015, equation 5. The four pixels
    around a place are gathered from the image laid out as a table, and weighed; gradients flow through the weights to
    the places, and through the pixels to the image.

    Args:
        border: outside of the image is `zero`, into which the last pixel fades, or its edge, `clamp`.
    """
    batch, height, width, channels = ops.shape(image)
    table = ops.cast(ops.reshape(image, (-1, channels)), "float32")
    first = ops.reshape(ops.arange(batch, dtype="int32") * (height * width), (-1, 1, 1))
    rows, columns = _axis(y, height, border), _axis(x, width, border)
    result: Any = 0.0
    for row, down in rows:
        begin = first + row * width
        for column, across in columns:
            result = result + ops.take(table, begin + column, axis=0) * (down * across)[..., None]
    return result


def _axis(places: Any, size: Any, border: str) -> list[tuple[Any, Any]]:
    """The two pixels around each place along one axis, int32, and their weights."""
    last = ops.cast(size, "float32") - 1
    # Far outside there is nothing more to see, and no integer overflows.
    beyond = 0.0 if border == "clamp" else 1.0
    places = ops.minimum(ops.maximum(places, -beyond), last + beyond)
    low = ops.floor(ops.stop_gradient(places))
    share = places - low
    found = []
    for pixel, weight in ((low, 1 - share), (low + 1, share)):
        inside = ops.minimum(ops.maximum(pixel, 0.0), last)
        if border == "zero":
            weight = weight * ops.cast(ops.equal(pixel, inside), "float32")
        found.append((ops.cast(inside, "int32"), weight))
    return found
