"""Anchors: the boxes that a detector starts from, float32 (N, 4) xyxy in pixels of the image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import numpy as np
import numpy.typing as npt

__all__ = ["cell_anchors", "faster_rcnn_anchors", "shifted_anchors", "ssd_boxes", "ssd_cell_sizes"]

Boxes = npt.NDArray[np.float32]
Pair = tuple[int, int]
Ratios = Sequence[float] | Sequence[Sequence[float]]


def faster_rcnn_anchors(
    *, base: int = 16, ratios: Sequence[float] = (0.5, 1, 2), scales: Sequence[float] = (8, 16, 32)
) -> Boxes:
    """The nine anchors (9, 4) of the published Faster R-CNN, ratios (height / width) first, then scales.

    Ren et al., Faster R-CNN, NIPS 2015, section 3.1.1, with the rounding of py-faster-rcnn's code: a cell is the pixels
    0 .. base - 1, both counted, so a box of them is `x2 - x1 + 1` wide. (The comment in that code lists MATLAB's
    anchors, which differ by one.) Add multiples of the stride: `shifted_anchors`.
    """
    center = (base - 1) / 2
    widths = np.rint(np.sqrt(base * base / np.asarray(ratios, np.float64)))
    heights = np.rint(widths * np.asarray(ratios, np.float64))
    sizes = np.stack([widths, heights], -1)[:, None] * np.asarray(scales, np.float64)[:, None]  # (ratios, scales, 2)
    half = (sizes.reshape(-1, 2) - 1) / 2
    return np.concatenate([center - half, center + half], axis=-1).astype(np.float32)


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float], *, rounded: bool = True) -> Boxes:
    """Anchors (A, 4) around the point 0, 0: areas `sizes` squared, height / width `ratios`; ratios first, then sizes.

    torchvision's rule, in float32; `rounded` to whole pixels, halves to the even one, as its detectors are trained.
    """
    if not len(sizes) or not len(ratios) or min(sizes) <= 0 or min(ratios) <= 0:
        raise ValueError(f"`sizes` and `ratios` must be positive. Received: sizes={sizes}, ratios={ratios}.")
    heights = np.sqrt(np.asarray(ratios, np.float32))
    widths = np.float32(1) / heights
    wh = np.stack([widths, heights], -1)[:, None] * np.asarray(sizes, np.float32)[:, None]
    half = wh.reshape(-1, 2) / np.float32(2)
    anchors = np.concatenate([-half, half], axis=-1)
    return np.rint(anchors) if rounded else anchors


def shifted_anchors(cell: npt.ArrayLike, grid_hw: Pair, stride_hw: Pair) -> Boxes:
    """Anchors (H * W * A, 4) at each cell of a grid: `cell` (A, 4) moved by whole strides; row by row, anchors fastest.

    With strides of `image // grid`, as torchvision takes them, also where the grid does not divide the image.
    """
    anchors = np.asarray(cell, np.float32)
    if anchors.ndim != 2 or anchors.shape[1] != 4:
        raise ValueError(f"`cell` must be (A, 4). Received: shape={anchors.shape}.")
    if min(grid_hw) < 0 or min(stride_hw) < 1:
        raise ValueError(
            f"`grid_hw` must not be negative, `stride_hw` positive. Received: grid_hw={grid_hw}, stride_hw={stride_hw}."
        )
    down, across = (np.arange(n, dtype=np.float32) * s for n, s in zip(grid_hw, stride_hw, strict=True))
    y, x = np.meshgrid(down, across, indexing="ij")
    shifts = np.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4)
    return (shifts + anchors).reshape(-1, 4)


def _ssd_scales(scales: Sequence[float], maps: int) -> list[float]:
    """The scale of each map, and one more."""
    if len(scales) == 2 and maps > 1:
        step = (scales[1] - scales[0]) / (maps - 1.0)
        scales = [*(scales[0] + step * k for k in range(maps)), 1.0]
    if len(scales) != maps + 1:
        raise ValueError(f"`scales` must be two numbers, or {maps + 1} for {maps} maps. Received: scales={scales}.")
    return list(scales)


def ssd_cell_sizes(
    maps: int, *, ratios: Ratios = (2, 3), scales: Sequence[float] = (0.2, 0.95)
) -> list[npt.NDArray[np.float32]]:
    """Widths and heights (A, 2) of the boxes of each of `maps` maps, in parts of the image: see `ssd_boxes`."""
    rows = [ratios] * maps if not ratios or isinstance(ratios[0], int | float) else list(ratios)
    if len(rows) != maps:
        raise ValueError(f"`ratios` must be one row for all maps, or one for each of {maps}. Received: {len(rows)}.")
    sizes = []
    for (scale, following), row in zip(pairwise(_ssd_scales(scales, maps)), rows, strict=True):
        between = (scale * following) ** 0.5
        there = [(scale, scale), (between, between)]
        for ratio in cast(Sequence[float], row):
            long, short = scale * ratio**0.5, scale / ratio**0.5
            there += [(long, short), (short, long)]
        sizes.append(np.array(there, np.float32))
    return sizes


def ssd_boxes(
    grids_hw: Sequence[Pair],
    size_hw: Pair,
    *,
    ratios: Ratios = (2, 3),
    scales: Sequence[float] = (0.2, 0.95),
    clip: bool = True,
) -> Boxes:
    """The default boxes (N, 4) of SSD over maps of `grids_hw`, map by map, row by row, boxes of a cell fastest.

    Liu et al., SSD, ECCV 2016, section 2.2, as torchvision has it: each cell has a square of scale s_k, one of
    sqrt(s_k s_k+1), and boxes of scale s_k at each ratio and its inverse.

    Args:
        grids_hw: rows and columns of each map, finest first.
        size_hw: of the image in pixels.
        ratios: beside 1, one row for all maps or one for each.
        scales: in parts of the image, of the first and of the last map, even steps between and 1 after the last; or of
            each map and one more.
        clip: sizes to the image's (not the boxes, which may reach over its edge).
    """
    scale = np.array([size_hw[1], size_hw[0]], np.float32)
    boxes = []
    for (rows, columns), sizes in zip(
        grids_hw, ssd_cell_sizes(len(grids_hw), ratios=ratios, scales=scales), strict=True
    ):
        half = (np.clip(sizes, 0, 1) if clip else sizes) * np.float32(0.5)
        y = ((np.arange(rows) + 0.5) / rows).astype(np.float32)
        x = ((np.arange(columns) + 0.5) / columns).astype(np.float32)
        centers = np.stack(np.meshgrid(x, y), axis=-1)[:, :, None]  # (rows, columns, 1, 2) x, y
        boxes.append(np.concatenate([(centers - half) * scale, (centers + half) * scale], axis=-1).reshape(-1, 4))
    return np.concatenate(boxes).astype(np.float32)
