"""What a point's value adds to its own result on the permutohedral lattice."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from visionkit.crf.params import CRFParams

__all__ = ["lattice_diagonal", "needs_unit_diagonal"]


def needs_unit_diagonal(params: CRFParams) -> bool:
    """Whether the lattice is to be scaled so that a point's weight for itself is 1, as the Gaussian's is.

    The lattice alone gives 0.5 to 0.8 of the Gaussian's sums and of its diagonal. Where the kernel is normalised as a
    whole that is no matter, and it is taken as it is, as pydensecrf does; where it is not, or where the point itself
    is to be left out, it is.
    """
    return params.normalization == "none" or not params.self_term


def lattice_diagonal(weights: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """The diagonal (N,) of splat, blur and slice with barycentric `weights` (N, d + 1).

    Corners k and l of a simplex are |k - l| steps apart along as many axes, and d + 1 - |k - l| the other way round; a
    step halves. That holds where the vertices between them are occupied; where not, it is a little too much.
    """
    corners = weights.shape[1]
    total = np.zeros(len(weights), np.float32)
    for apart in range(corners):
        reached = (2.0**-apart + 2.0 ** (apart - corners)) * (2 if apart else 1)
        if not apart:
            reached += 2.0**-corners
        for k in range(corners - apart):
            total += np.float32(reached) * weights[:, k] * weights[:, k + apart]
    return total / np.float32(1 + 2.0 ** (1 - corners))
