"""Square windows around an object, and the one mapping between window pixels and image coordinates.

A window lies on whole image pixels, so the mapping is exact however the window is resized: with `scale = size / side`,
a point at image coordinate x (continuous, the centre of pixel i is i + 0.5) lies at `(x - x0) * scale` in the window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Window", "cell_cover", "context_side", "window_around"]


@dataclass(frozen=True, slots=True)
class Window:
    """A square of an image, possibly reaching over its edge: left, top and side in whole pixels."""

    x0: int
    y0: int
    side: int

    def to_image(self, points: npt.ArrayLike, size: int) -> npt.NDArray[np.float32]:
        """Coordinates (..., 2) or boxes (..., 4) of the window resized to `size` pixels, in image pixels."""
        values = np.asarray(points, np.float32)
        return values * np.float32(self.side / size) + self._offset(values)

    def to_window(self, points: npt.ArrayLike, size: int) -> npt.NDArray[np.float32]:
        """Image coordinates (..., 2) or boxes (..., 4) as pixels of the window resized to `size`."""
        values = np.asarray(points, np.float32)
        return (values - self._offset(values)) * np.float32(size / self.side)

    def _offset(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if values.shape[-1:] not in {(2,), (4,)}:
            raise ValueError(f"`points` must end in an axis of length 2 or 4. Received: shape={values.shape}.")
        return np.array([self.x0, self.y0] * (values.shape[-1] // 2), np.float32)


def context_side(size_wh: npt.ArrayLike, context: float = 0.5) -> float:
    """Side in pixels of the square that holds a (w, h) box with its context, s_z of SiamFC.

    Bertinetto et al., Fully-convolutional Siamese networks for object tracking, ECCVW 2016, section 2.3 and the
    authors' code: s_z = sqrt((w + p)(h + p)) with p = `context` * (w + h).
    """
    width, height = (float(v) for v in np.asarray(size_wh, np.float64))
    if not (width > 0 and height > 0 and math.isfinite(width * height)):
        raise ValueError(f"`size_wh` must be two positive numbers. Received: size_wh=({width}, {height}).")
    margin = context * (width + height)
    return math.sqrt((width + margin) * (height + margin))


def window_around(center_xy: npt.ArrayLike, side: float) -> Window:
    """The window of whole pixels nearest to the square of `side` pixels centred on `center_xy`."""
    whole = max(2, round(side))
    x, y = (float(v) for v in np.asarray(center_xy, np.float64))
    return Window(round(x - whole / 2), round(y - whole / 2), whole)


def cell_cover(xyxy: npt.ArrayLike, size: int, *, cells: int, stride: int) -> npt.NDArray[np.float32]:
    """Share of each of the middle `cells` x `cells` cells that a box covers: float32 (cells, cells), rows first.

    Args:
        xyxy: float (4,), the box in pixels of a square image of `size` pixels.
        cells: how many cells a side.
        stride: side of a cell in pixels.
    """
    x0, y0, x1, y1 = (float(v) for v in np.asarray(xyxy, np.float32))
    edges = size / 2 + (np.arange(cells + 1) - cells / 2) * stride
    across, down = (
        np.clip(np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1]), 0, None) / stride
        for low, high in ((x0, x1), (y0, y1))
    )
    return np.outer(down, across).astype(np.float32)
