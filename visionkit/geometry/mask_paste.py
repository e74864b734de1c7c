"""Masks of objects, predicted on a small grid over their box, put back into the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.geometry.checks import as_boxes, as_floats

__all__ = ["paste_masks", "paste_probs"]

Floats = npt.NDArray[np.float32]
Pair = tuple[int, int]
Part = tuple[slice, slice, Floats]  # rows and columns of the image, and the values there


def paste_masks(
    probs: npt.ArrayLike, boxes: npt.ArrayLike, size_hw: Pair, *, threshold: float = 0.5, rule: str = "centers"
) -> npt.NDArray[np.bool_]:
    """Masks of the whole image, bool (N, H, W): where the probability is more than `threshold`.

    Args:
        probs: (N, m, m), rows first, each a grid over its box.
        boxes: (N, 4) xyxy in pixels of the image; may be fractions and reach over the edge.
        size_hw: of the image.
        threshold: of the probability.
        rule: "centers": each pixel is asked at its centre, `i + 0.5`, and the grid is 0 beyond its edge;
            "torchvision": grid and box get a cell more on each side, the box is cut to whole pixels and both edge
            pixels count, so a mask may lie up to a pixel off.
    """
    grids, regions, part = _checked(probs, boxes, rule)
    masks = np.zeros((len(grids), *size_hw), bool)
    for mask, grid, box in zip(masks, grids, regions, strict=True):
        rows, columns, values = part(grid, box, size_hw)
        mask[rows, columns] = values > threshold
    return masks


def paste_probs(probs: npt.ArrayLike, boxes: npt.ArrayLike, size_hw: Pair, *, rule: str = "centers") -> Floats:
    """Probabilities over the whole image, float32 (N, H, W), 0 away from the boxes; see `paste_masks`."""
    grids, regions, part = _checked(probs, boxes, rule)
    maps = np.zeros((len(grids), *size_hw), np.float32)
    for whole, grid, box in zip(maps, grids, regions, strict=True):
        rows, columns, values = part(grid, box, size_hw)
        whole[rows, columns] = values
    return maps


def _checked(probs: npt.ArrayLike, boxes: npt.ArrayLike, rule: str) -> tuple[Floats, Floats, Callable[..., Part]]:
    grids, regions = as_floats(probs).astype(np.float32), as_boxes(boxes, "boxes").astype(np.float32)
    if grids.ndim != 3 or len(grids) != len(regions) or (len(grids) and 0 in grids.shape):
        raise ValueError(
            f"`probs` must be (N, m, m), one for each box. Received: shape={grids.shape}, {len(regions)} boxes."
        )
    if rule not in _RULES:
        raise ValueError(f"`rule` must be one of {', '.join(_RULES)}. Received: rule={rule!r}.")
    if not np.isfinite(regions).all():
        raise ValueError("`boxes` must be finite.")
    return grids, regions, _RULES[rule]


def _at_centers(grid: Floats, box: Floats, size_hw: Pair) -> Part:
    """Pixels whose centres lie on the grid or half a cell around it."""
    lines = []
    for axis, (count, length) in enumerate(zip(grid.shape, size_hw, strict=True)):
        start, end = float(box[1 - axis]), float(box[3 - axis])
        side = (end - start) / count  # of a grid cell, in pixels
        if side <= 0:
            return slice(0), slice(0), np.zeros((0, 0), np.float32)
        first = int(np.clip(np.ceil(start - side / 2 - 0.5), 0, length))
        behind = int(np.clip(np.floor(end + side / 2 - 0.5) + 1, first, length))
        places = (np.arange(first, behind) + 0.5 - start) / side - 0.5
        lines.append((slice(first, behind), _hats(places, count)))
    (rows, down), (columns, across) = lines
    return rows, columns, np.asarray(down @ grid @ across.T, np.float32)


def _as_torchvision(grid: Floats, box: Floats, size_hw: Pair) -> Part:
    """The padded grid over the box grown with it, cut to whole pixels, both edge pixels counted."""
    padded = np.pad(grid, 1)
    lines = []
    for axis, length in enumerate(size_hw):
        cells = padded.shape[axis]
        low, high = box[1 - axis], box[3 - axis]
        half = (high - low) * np.float32(0.5) * np.float32(cells / (cells - 2))
        middle = (high + low) * np.float32(0.5)
        first, last = int(middle - half), int(middle + half)
        pixels = max(last - first + 1, 1)
        inside = np.arange(max(first, 0), max(min(last + 1, length), max(first, 0)))
        places = (inside - first + 0.5) * (cells / pixels) - 0.5
        whole = slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0)
        lines.append((whole, _hats(np.clip(places, 0, cells - 1), cells)))
    (rows, down), (columns, across) = lines
    return rows, columns, np.asarray(down @ padded @ across.T, np.float32)


def _hats(places: npt.NDArray[Any], count: int) -> Floats:
    """How much each of `count` cells gives to each place, float32 (places, count); nothing beyond the outer ones."""
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(count))).astype(np.float32)


_RULES: dict[str, Callable[[Floats, Floats, Pair], Part]] = {"centers": _at_centers, "torchvision": _as_torchvision}
