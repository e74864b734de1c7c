# mypy: ignore-errors
"""Loops of a two-stage detector, compiled: pooling from the maps of a pyramid, and suppression."""

from __future__ import annotations

import numpy as np

from visionkit.crf.jitting import inlined, jit

__all__ = ["align_rows", "suppress"]


@jit
def suppress(boxes, groups, threshold, limit):
    """Which of boxes (N, 4), best first, stay: those that overlap no better one that stays, of the same group."""
    count = len(boxes)
    kept = np.empty(min(limit, count), np.int64)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    found = 0
    for i in range(count):
        if found == limit:
            break
        free = True
        for k in range(found):
            j = kept[k]
            if groups[j] != groups[i]:
                continue
            width = min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0])
            height = min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1])
            if width <= 0 or height <= 0:
                continue
            inter = width * height
            if inter / (areas[i] + areas[j] - inter) > threshold:
                free = False
                break
        if free:
            kept[found] = i
            found += 1
    return kept[:found]


@inlined
def _taps(start, size, bins, samples, cells, low, high, near, far):
    """Of each sampling point along an axis the two cells around it and their weights, 0 where it is off the map."""
    step = size / np.float32(bins)
    for i in range(bins):
        for k in range(samples):
            place = start + np.float32(i) * step + (np.float32(k) + np.float32(0.5)) * step / np.float32(samples)
            at = i * samples + k
            if place < -1 or place > cells:
                low[at], high[at], near[at], far[at] = 0, 0, 0.0, 0.0
                continue
            place = max(place, np.float32(0))
            first = int(place)
            if first >= cells - 1:
                low[at], high[at], near[at], far[at] = cells - 1, cells - 1, 1.0, 0.0
            else:
                share = place - np.float32(first)
                low[at], high[at], near[at], far[at] = first, first + 1, np.float32(1) - share, share


@jit
def align_rows(maps, batch, boxes, levels, scales, samples, begin, end, out):
    """`out` (N, h, w, C) rows `begin` to `end`: each box read from its map, by torchvision's unaligned RoIAlign.

    Args:
        maps: of each level (B, H, W, C), C-contiguous; which of the B is `batch`.
        boxes: (N, 4) xyxy in pixels of the input; `levels` (N,) and `scales` say which map and its cells per pixel.
        samples: points of a bin along each axis.
    """
    rows, columns, channels = out.shape[1], out.shape[2], out.shape[3]
    size = max(rows, columns) * samples
    y0, x0 = np.empty(size, np.int64), np.empty(size, np.int64)
    y1, x1 = np.empty(size, np.int64), np.empty(size, np.int64)
    v0, u0 = np.empty(size, np.float32), np.empty(size, np.float32)
    v1, u1 = np.empty(size, np.float32), np.empty(size, np.float32)
    mean = np.float32(1) / np.float32(samples * samples)
    for n in range(begin, end):
        level = levels[n]
        cells, scale = maps[level][batch], scales[level]
        left, top = boxes[n, 0] * scale, boxes[n, 1] * scale
        width = max(boxes[n, 2] * scale - left, np.float32(1))
        height = max(boxes[n, 3] * scale - top, np.float32(1))
        _taps(top, height, rows, samples, cells.shape[0], y0, y1, v0, v1)
        _taps(left, width, columns, samples, cells.shape[1], x0, x1, u0, u1)
        for i in range(rows):
            for j in range(columns):
                cell = out[n, i, j]
                for c in range(channels):
                    cell[c] = 0
                for a in range(i * samples, (i + 1) * samples):
                    for b in range(j * samples, (j + 1) * samples):
                        w00, w01 = v0[a] * u0[b] * mean, v0[a] * u1[b] * mean
                        w10, w11 = v1[a] * u0[b] * mean, v1[a] * u1[b] * mean
                        p00, p01 = cells[y0[a], x0[b]], cells[y0[a], x1[b]]
                        p10, p11 = cells[y1[a], x0[b]], cells[y1[a], x1[b]]
                        for c in range(channels):
                            cell[c] += w00 * p00[c] + w01 * p01[c] + w10 * p10[c] + w11 * p11[c]
