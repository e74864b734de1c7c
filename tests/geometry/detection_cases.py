"""Boxes and slow loops that tests of detection share."""

from __future__ import annotations

import numpy as np


def random_boxes(rng: np.random.Generator, count: int, size_hw: tuple[int, int], over: float = 0) -> np.ndarray:
    """Boxes (N, 4) of all sizes, reaching up to `over` pixels (and half their size) over the edge."""
    height, width = size_hw
    center = rng.uniform(-over, [width + over, height + over], (count, 2))
    size = rng.uniform(1, [width, height], (count, 2)) * rng.uniform(0, 1, (count, 1))
    return np.concatenate([center - size / 2, center + size / 2], axis=-1).astype(np.float32)


def slow_iou(a: np.ndarray, b: np.ndarray, pixel_offset: int = 0) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + pixel_offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + pixel_offset
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(x[2] - x[0] + pixel_offset) * (x[3] - x[1] + pixel_offset) for x in (a, b)]
    return float(width * height / (areas[0] + areas[1] - width * height))


def slow_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, pixel_offset: int = 0) -> list[int]:
    """Greedy suppression, pair by pair; both numbers in float32, where .3 is what 3 / 10 is."""
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda k: -scores[k]):
        if all(np.float32(slow_iou(boxes[index], boxes[k], pixel_offset)) <= np.float32(threshold) for k in kept):
            kept.append(index)
    return kept


def ramp(rows: int, columns: int, stride: int) -> np.ndarray:
    """A map (H, W, 2) whose cells hold the x and y of their centres in pixels."""
    y, x = np.mgrid[:rows, :columns]
    return np.stack([(x + 0.5) * stride, (y + 0.5) * stride], axis=-1).astype(np.float64)


def bin_centers(boxes: np.ndarray, output_hw: tuple[int, int]) -> np.ndarray:
    """x and y of the centres of the bins of each box, (N, h, w, 2)."""
    lines = []
    for axis, bins in ((0, output_hw[1]), (1, output_hw[0])):
        start, end = boxes[:, axis, None], boxes[:, axis + 2, None]
        lines.append(start + (np.arange(bins) + 0.5) * (end - start) / bins)
    shape = (len(boxes), *output_hw)
    return np.stack([np.broadcast_to(lines[0][:, None], shape), np.broadcast_to(lines[1][:, :, None], shape)], -1)
