"""Labels and weights of a response map (Bertinetto et al., ECCVW 2016, section 2.2, equation 4)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["balanced_weights", "response_labels"]


def response_labels(
    cells: int, *, stride: int = 8, radius: float = 16.0, offset_xy: tuple[float, float] = (0.0, 0.0)
) -> npt.NDArray[np.float32]:
    """+1 for cells whose displacement is at most `radius` pixels from the object, else -1: float32 (cells, cells).

    Args:
        cells: side of the response map.
        stride: pixels between neighbouring cells.
        radius: in pixels of the search region, Euclidean.
        offset_xy: where the object lies, in pixels from the middle of the search region.
    """
    if cells < 1 or stride < 1 or radius < 0:
        raise ValueError(
            "`cells` and `stride` must be positive and `radius` not negative. "
            f"Received: cells={cells}, stride={stride}, radius={radius}."
        )
    line = (np.arange(cells) - (cells - 1) / 2) * stride
    distance = np.hypot(line[None, :] - offset_xy[0], line[:, None] - offset_xy[1])
    return np.where(distance <= radius, 1, -1).astype(np.float32)


def balanced_weights(labels: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Weights that give positives and negatives of `labels` (+1, -1) a sum of one half each; one kind alone, of 1."""
    signs = np.asarray(labels, np.float32)
    positive = signs > 0
    count = int(positive.sum())
    if count in (0, signs.size):
        return np.full(signs.shape, 1 / signs.size, np.float32)
    return np.where(positive, 0.5 / count, 0.5 / (signs.size - count)).astype(np.float32)
