"""Features of regions: RoIAlign, RoI pooling, and the level of a pyramid that a region is read from."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.geometry.checks import as_boxes, as_floats

__all__ = ["pyramid_level", "roi_align", "roi_pool"]

Floats = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Pair = tuple[int, int]


def roi_align(
    feature: npt.ArrayLike,
    boxes: npt.ArrayLike,
    output_hw: Pair,
    *,
    scale: float,
    sampling_ratio: int = 2,
    aligned: bool = False,
) -> Floats:
    """The map read at points spread over each box, (N, h, w, C): no coordinate is rounded.

    He et al., Mask R-CNN, ICCV 2017, section 3. A box is h x w bins; in each bin `sampling_ratio` squared points are
    read bilinearly and averaged. The points of a bin lie at `(a + 0.5) / n` of its side. Their rule at the edge is
    torchvision's: a point more than one cell above or left of cell 0, or beyond H or W, counts as 0; nearer ones take
    the value at the edge. A row of points and a column of points do not depend on each other, so a box is two small
    matrices around its part of the map.

    Args:
        feature: (H, W, C).
        boxes: (N, 4) xyxy in pixels of the image.
        output_hw: bins down and across.
        scale: cells per pixel, 1 / stride.
        sampling_ratio: points along a bin's side; 0: as many as a bin has cells, `ceil(side / bins)`.
        aligned: take the half cell away that lies between continuous coordinates and cell indices. Networks trained
            without (torchvision's) read half a cell too far right and below, and a box of less than a cell as one cell.
    """
    cells, regions = _map(feature), as_boxes(boxes, "boxes")
    if sampling_ratio < 0 or min(output_hw) < 1 or not scale > 0:
        raise ValueError(
            "`output_hw` and `scale` must be positive, `sampling_ratio` not negative. "
            f"Received: output_hw={output_hw}, scale={scale}, sampling_ratio={sampling_ratio}."
        )
    regions = regions * regions.dtype.type(scale) - regions.dtype.type(0.5 * aligned)
    start, size = regions[:, :2], regions[:, 2:] - regions[:, :2]
    size = size if aligned else np.maximum(size, 1)
    down, across = (
        _axis_weights(start[:, k], size[:, k], bins, cells.shape[1 - k], sampling_ratio)
        for k, bins in ((1, output_hw[0]), (0, output_hw[1]))
    )
    out = np.zeros((len(regions), *output_hw, cells.shape[2]), np.result_type(cells, regions))
    for n, (rows, columns) in enumerate(zip(down, across, strict=True)):
        y, x = _extent(rows), _extent(columns)
        part = np.tensordot(rows[:, y], cells[y, x], axes=1)  # (h, x, C)
        out[n] = columns[:, x] @ part
    return out


def _map(feature: npt.ArrayLike) -> Floats:
    cells = as_floats(feature)
    if cells.ndim != 3 or 0 in cells.shape[:2]:
        raise ValueError(f"`feature` must be (H, W, C). Received: shape={cells.shape}.")
    return cells


def _axis_weights(start: Floats, size: Floats, bins: int, cells: int, ratio: int) -> Floats:
    """How much of each cell goes into each bin along one axis, (N, bins, cells)."""
    counts = np.full(len(start), ratio) if ratio else np.ceil(size / bins).astype(np.int64)
    weights = np.zeros((len(start), bins, cells), start.dtype)
    for count in np.unique(counts[counts > 0]):
        which = counts == count
        side = (size[which] / bins)[:, None, None]
        points = start[which, None, None] + np.arange(bins, dtype=start.dtype)[:, None] * side
        points = points + (np.arange(count, dtype=start.dtype) + start.dtype.type(0.5)) * (side / count)
        there = (points >= -1) & (points <= cells)
        places = np.clip(points, 0, cells - 1)[..., None]  # (n, bins, count, 1)
        share = np.maximum(0, 1 - np.abs(places - np.arange(cells, dtype=start.dtype)))
        weights[which] = (share * there[..., None]).mean(axis=2)
    return weights


def _extent(weights: Floats) -> slice:
    """From the first cell that counts to the last."""
    used = np.flatnonzero(weights.any(axis=0))
    return slice(used[0], used[-1] + 1) if len(used) else slice(0, 0)


def roi_pool(feature: npt.ArrayLike, boxes: npt.ArrayLike, output_hw: Pair, *, scale: float) -> Floats:
    """The largest value in each of h x w bins of each box, (N, h, w, C); 0 in a bin without cells.

    Girshick, Fast R-CNN, ICCV 2015, section 2.1, with the bins of SPPnet (He et al., ECCV 2014): the box's edges are
    rounded to cells, both counted, so that it has one at least; of n cells bin i of P takes floor(i n / P) to
    ceil((i + 1) n / P), and of these the ones on the map.

    Args:
        feature: (H, W, C).
        boxes: (N, 4) xyxy in pixels of the image.
        output_hw: bins down and across.
        scale: cells per pixel, 1 / stride.
    """
    cells, regions = _map(feature), as_boxes(boxes, "boxes")
    if min(output_hw) < 1 or not scale > 0:
        raise ValueError(f"`output_hw` and `scale` must be positive. Received: output_hw={output_hw}, scale={scale}.")
    edges = _rounded(regions * regions.dtype.type(scale))
    down, across = (
        _bins(edges[:, k], edges[:, k + 2], bins, cells.shape[1 - k])
        for k, bins in ((1, output_hw[0]), (0, output_hw[1]))
    )
    out = np.zeros((len(regions), *output_hw, cells.shape[2]), cells.dtype)
    for n, (rows, columns) in enumerate(zip(down, across, strict=True)):
        for i, (top, bottom) in enumerate(rows):
            if top >= bottom:
                continue
            line = cells[top:bottom].max(axis=0)
            for j, (left, right) in enumerate(columns):
                if left < right:
                    out[n, i, j] = line[left:right].max(axis=0)
    return out


def _rounded(values: Floats) -> Ints:
    """Whole numbers, halves away from 0, as C rounds."""
    whole = np.trunc(values)
    return (whole + np.where(np.abs(values - whole) >= 0.5, np.sign(values), 0)).astype(np.int64)


def _bins(first: Ints, last: Ints, bins: int, cells: int) -> Ints:
    """The first cell of each bin and the one behind its last, (N, bins, 2), cut to the map."""
    count = np.maximum(last - first + 1, 1)[:, None]
    steps = np.arange(bins)
    low, high = steps * count // bins, -(-(steps + 1) * count // bins)
    return np.clip(np.stack([low, high], axis=-1) + first[:, None, None], 0, cells)


def pyramid_level(boxes: npt.ArrayLike, levels: Pair = (2, 5), canonical: tuple[float, int] = (224, 4)) -> Ints:
    """Which map of a pyramid each box (N, 4) is read from, int64 (N,): 0 is the finest, `levels[0]`.

    Lin et al., Feature pyramid networks, CVPR 2017, equation 1: a box of `canonical[0]` pixels is read from level
    `canonical[1]`, one of twice the side from the next. A millionth is added before rounding down, as in torchvision.

    Args:
        boxes: xyxy, in pixels of the image.
        levels: log2 of the strides of the first and of the last map.
        canonical: side in pixels, and its level.
    """
    regions = as_boxes(boxes, "boxes")
    area = np.prod(regions[:, 2:] - regions[:, :2], axis=-1)
    side = np.sqrt(np.maximum(area, np.finfo(np.float32).tiny))
    level = np.floor(canonical[1] + np.log2(side / canonical[0]) + regions.dtype.type(1e-6))
    return np.clip(level, *levels).astype(np.int64) - levels[0]
