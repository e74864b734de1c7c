# mypy: ignore-errors
"""Compiled loops that build a permutohedral lattice: vertices around every pixel, and who is whose neighbour."""

from __future__ import annotations

import numpy as np

from visionkit.crf.jitting import inlined, jit

__all__ = ["embed", "merge", "neighbours", "remap"]

MEMORY = 2**14  # simplices that are remembered; a power of two


@inlined
def _hash(keys, row, d, mask):
    h = np.uint64(0)
    for k in range(d):
        h = (h + np.uint64(np.int64(keys[row, k]))) * np.uint64(0x9E3779B97F4A7C15)
        h ^= h >> np.uint64(29)
    return np.int64(h & np.uint64(mask))


@inlined
def _find(table, keys, row, d):
    """The slot of `table` that holds the key in `keys[row]`, or the free one where it belongs."""
    mask = table.size - 1
    slot = _hash(keys, row, d, mask)
    while table[slot] >= 0:
        other = table[slot]
        same = True
        for k in range(d):
            if keys[other, k] != keys[row, k]:
                same = False
                break
        if same:
            return slot
        slot = (slot + 1) & mask
    return slot


@inlined
def _copy(target, at, source, first, rows):
    """target[at : at + rows] = source[first : first + rows], in loops: numba's own assignment compiles for seconds."""
    for row in range(rows):
        for k in range(source.shape[1]):
            target[at + row, k] = source[first + row, k]


@inlined
def _rehashed(table, keys, count, d):
    bigger = np.full(table.size * 2, np.int32(-1), np.int32)
    for row in range(count):
        bigger[_find(bigger, keys, row, d)] = row
    return bigger


@jit
def embed(colours, widths, row0, row1, ids, weights):
    """Vertices around the pixels of rows row0 to row1, their barycentric weights; returns the vertices' keys (M, d).

    Adams, Baek and Davis, Fast High-Dimensional Filtering Using the Permutohedral Lattice, Eurographics 2010, sec. 4.

    Args:
        colours: float32 (H, W, C).
        widths: float32 (2 + C,), of x, y and the channels.
        ids: int32 (H * W, d + 1), written: numbers of vertices, counted from 0 within this call.
        weights: float32 (H * W, d + 1), written.
    """
    width, channels = colours.shape[1], colours.shape[2]
    d = channels + 2
    steps = np.empty(d, np.float32)
    for k in range(d):
        # Splat, blur and slice together have the variance of a unit Gaussian on this scale.
        steps[k] = np.sqrt(2.0 / 3.0) * (d + 1) / np.sqrt((k + 1.0) * (k + 2.0)) / widths[k]
    keys = np.empty((1024, d), np.int32)
    table = np.full(4096, np.int32(-1), np.int32)
    count = 0
    up = np.empty(d + 1, np.float32)
    rest = np.empty(d + 1, np.float32)
    zero = np.empty(d + 1, np.int32)
    rank = np.empty(d + 1, np.int32)
    seen = np.full((MEMORY, 2 * d + 2), np.int32(-(2**31)), np.int32)
    seen_ids = np.empty((MEMORY, d + 1), np.int32)
    simplex = np.empty(2 * d + 2, np.int32)
    factors = np.empty(2 * d + 2, np.uint64)
    for j in range(2 * d + 2):
        factors[j] = np.uint64(0x9E3779B97F4A7C15) * np.uint64(2 * j * j + 1)
    bary = np.empty(d + 2, np.float32)
    down = np.float32(1.0 / (d + 1))
    for y in range(row0, row1):
        for x in range(width):
            pixel = y * width + x
            passed = np.float32(0)
            for j in range(d, 0, -1):
                if j > 2:
                    f = colours[y, x, j - 3]
                elif j == 2:
                    f = np.float32(y)
                else:
                    f = np.float32(x)
                f *= steps[j - 1]
                up[j] = passed - np.float32(j) * f
                passed += f
            up[0] = passed
            # The nearest vertex of colour 0, then the order of the residuals tells the simplex.
            off = np.int32(0)
            for j in range(d + 1):
                whole = np.int32(np.floor(up[j] * down + np.float32(0.5)))
                zero[j] = whole * (d + 1)
                off += whole
                rank[j] = 0
                rest[j] = up[j] - np.float32(zero[j])
            for i in range(d):
                for j in range(i + 1, d + 1):
                    less = np.int32(rest[i] < rest[j])  # no branch, which could not be foreseen
                    rank[i] += less
                    rank[j] += np.int32(1) - less
            for j in range(d + 1):
                rank[j] += off
                if rank[j] < 0:
                    rank[j] += d + 1
                    zero[j] += d + 1
                elif rank[j] > d:
                    rank[j] -= d + 1
                    zero[j] -= d + 1
                simplex[j], simplex[d + 1 + j] = zero[j], rank[j]
            for j in range(d + 2):
                bary[j] = 0
            for j in range(d + 1):
                v = (up[j] - np.float32(zero[j])) * down
                bary[d - rank[j]] += v
                bary[d + 1 - rank[j]] -= v
            bary[0] += np.float32(1) + bary[d + 1]
            for r in range(d + 1):
                weights[pixel, r] = bary[r]
            # Most pixels share their simplex with an earlier one: one look instead of d + 1.
            mixed = np.uint64(0)
            for j in range(2 * d + 2):
                mixed += np.uint64(np.int64(simplex[j])) * factors[j]
            place = np.int64((mixed >> np.uint64(40)) & np.uint64(MEMORY - 1))
            known = True
            for j in range(2 * d + 2):
                known &= simplex[j] == seen[place, j]
            if known:
                for r in range(d + 1):
                    ids[pixel, r] = seen_ids[place, r]
                continue
            if count + d + 2 > keys.shape[0]:
                more = np.empty((2 * keys.shape[0], d), np.int32)
                _copy(more, 0, keys, 0, count)
                keys = more
            for r in range(d + 1):
                for k in range(d):
                    keys[count, k] = zero[k] + r - (d + 1 if rank[k] > d - r else 0)
                slot = _find(table, keys, count, d)
                if table[slot] < 0:
                    table[slot] = count
                    count += 1
                ids[pixel, r] = table[slot]
                if 2 * count > table.size:
                    table = _rehashed(table, keys, count, d)
            for j in range(2 * d + 2):
                seen[place, j] = simplex[j]
            _copy(seen_ids, place, ids, pixel, 1)
    return keys[:count].copy()


@jit
def merge(keys, more):
    """Both sets of vertices as one: keys (M, d), and for those of `more` their numbers int32 in it."""
    d, count = keys.shape[1], keys.shape[0]
    every = np.empty((count + more.shape[0] + 1, d), np.int32)
    _copy(every, 0, keys, 0, count)
    size = 4096
    while size < 2 * every.shape[0]:
        size *= 2
    table = np.full(size, np.int32(-1), np.int32)
    for row in range(count):
        table[_find(table, every, row, d)] = row
    numbers = np.empty(more.shape[0], np.int32)
    for row in range(more.shape[0]):
        _copy(every, count, more, row, 1)
        slot = _find(table, every, count, d)
        if table[slot] < 0:
            table[slot] = count
            count += 1
        numbers[row] = table[slot]
    return every[:count].copy(), numbers


@jit
def remap(ids, row0, row1, numbers):
    """Give the vertices of pixels row0 to row1 new numbers, in place."""
    for i in range(row0, row1):
        for k in range(ids.shape[1]):
            ids[i, k] = numbers[ids[i, k]]


@jit
def neighbours(keys):
    """Numbers int32 (d + 1, M + 1, 2) of the vertices before and behind each one on the axes; M where there is none."""
    count, d = keys.shape
    size = 4096
    while size < 2 * count:
        size *= 2
    every = np.empty((count + 1, d), np.int32)
    _copy(every, 0, keys, 0, count)
    table = np.full(size, np.int32(-1), np.int32)
    for row in range(count):
        table[_find(table, every, row, d)] = row
    beside = np.full((d + 1, count + 1, 2), np.int32(count), np.int32)
    for axis in range(d + 1):
        for row in range(count):
            for k in range(d):
                every[count, k] = keys[row, k] + (-d if k == axis else 1)
            other = table[_find(table, every, count, d)]
            if other >= 0:
                beside[axis, row, 1] = other
                beside[axis, other, 0] = row
    return beside
