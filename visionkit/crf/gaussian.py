"""The Gaussian kernel over pixels: the same along rows and columns, so a product of two short ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from visionkit.crf.exact import scales
from visionkit.crf.params import CRFParams

__all__ = ["gaussian_arrays", "gaussian_taps"]

Array = npt.NDArray[np.float32]


def gaussian_taps(theta: float, size: int) -> npt.NDArray[np.float64]:
    """A Gaussian of height 1 at whole distances up to 3.5 widths (what lies beyond adds 5e-4), or to the size."""
    radius = min(max(1, round(3.5 * theta)), size - 1)
    return np.asarray(np.exp(-0.5 * (np.arange(-radius, radius + 1) / theta) ** 2))


def gaussian_arrays(size_hw: tuple[int, int], params: CRFParams) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Along y: taps, scales of rows going in and out; along x the same. The kernel's weight is in the taps of y."""
    found: list[Array] = []
    width_x, width_y = params.gaussian_widths()
    for size, theta in zip(size_hw, (width_y, width_x), strict=True):
        taps = gaussian_taps(theta, size) if params.gaussian_weight else np.zeros(0)
        # Row sums of the kernel are the product of those along y and x, and so are their roots and inverses.
        sums = np.convolve(np.ones(size), taps)[len(taps) // 2 :][:size] if len(taps) else np.ones(size)
        before, after = scales(sums, params.normalization)
        found += [taps.astype(np.float32), before.astype(np.float32), after.astype(np.float32)]
    return found[0] * np.float32(params.gaussian_weight), found[1], found[2], found[3], found[4], found[5]
