# mypy: ignore-errors
"""Compiled loops of one mean field update: blur of the lattice, Gaussian, softmax, splat.

Labels are worked on in blocks of eight, which sit in one vector register (`vectors.py`); rows of the lattice are padded
to whole blocks with zeros, rows of the image are not (memory).
"""

from __future__ import annotations

import numpy as np

from visionkit.crf.jitting import inlined, jit
from visionkit.crf.vectors import (
    LANES,
    WIDE,
    add,
    largest,
    load,
    load_wide,
    maximum,
    muladd,
    multiply,
    power,
    scale,
    shift,
    store,
    total,
    zeros_wide,
)

__all__ = ["blur", "row_sums", "splat", "splat_ones", "update"]

LOWEST = np.float32(-1e30)
ONE = np.float32(1)
TILE = 512  # values of a row that are blurred at once; as many of thirty rows fit into a core's second cache
BAND = 8  # rows that are blurred together, a multiple of four


@jit
def blur(parts, values, beside, gain, block0, block1):
    """Sum the parts (P, M + 1, padded) and blur them along every axis of the lattice, into `values` (M + 1, padded).

    Only the blocks of eight labels from block0 to block1; `parts[0]` is used up. The last row stays zero.
    """
    pieces, rows, padded = parts.shape
    axes = beside.shape[0]
    half = np.float32(0.5)
    first = parts[0] if axes % 2 else values
    second = values if axes % 2 else parts[0]
    for o in range(block0 * LANES, block1 * LANES, LANES):
        for m in range(rows - 1):
            at = m * padded + o
            value = load(parts, at)
            for p in range(1, pieces):
                value = muladd(value, ONE, load(parts, p * rows * padded + at))
            store(first, at, scale(value, gain))
        for j in range(LANES):
            first[rows - 1, o + j] = 0
            second[rows - 1, o + j] = 0
        source, target = first, second
        for axis in range(axes):
            for m in range(rows - 1):
                value = load(source, m * padded + o)
                value = muladd(value, half, load(source, np.intp(beside[axis, m, 0]) * padded + o))
                value = muladd(value, half, load(source, np.intp(beside[axis, m, 1]) * padded + o))
                store(target, m * padded + o, value)
            source, target = target, source


@inlined
def _weighted_sum(out, out0, source, source0, step, taps, count, factor, factor0, size):
    """out[out0 + i] = factor[factor0 + i] * sum over k < count of taps[k] * source[source0 + k * step + i]."""
    whole = size - size % (4 * WIDE)
    for i in range(0, whole, 4 * WIDE):  # four sums, so that a tap is spread over the lanes once for all of them
        at = source0 + i
        a, b = scale(load_wide(source, at), taps[0]), scale(load_wide(source, at + WIDE), taps[0])
        c, d = scale(load_wide(source, at + 2 * WIDE), taps[0]), scale(load_wide(source, at + 3 * WIDE), taps[0])
        for k in range(1, count):
            at += step
            tap = taps[k]
            a, b = muladd(a, tap, load_wide(source, at)), muladd(b, tap, load_wide(source, at + WIDE))
            c, d = muladd(c, tap, load_wide(source, at + 2 * WIDE)), muladd(d, tap, load_wide(source, at + 3 * WIDE))
        to, by = out0 + i, factor0 + i
        store(out, to, multiply(a, load_wide(factor, by)))
        store(out, to + WIDE, multiply(b, load_wide(factor, by + WIDE)))
        store(out, to + 2 * WIDE, multiply(c, load_wide(factor, by + 2 * WIDE)))
        store(out, to + 3 * WIDE, multiply(d, load_wide(factor, by + 3 * WIDE)))
    for i in range(whole, size):
        single = np.float32(0)
        for k in range(count):
            single += taps[k] * source[source0 + k * step + i]
        out[out0 + i] = single * factor[factor0 + i]


@inlined
def _taps_of_band(y0, y1, height, gauss, table):
    """The rows k0 to k1 that rows y0 to y1 are made of, and what each gives to each, into table (k1 - k0, BAND)."""
    taps, scale_in, scale_out, _, _, _ = gauss
    radius = (taps.size - 1) // 2
    k0, k1 = max(0, y0 - radius), min(height, y1 + radius)
    for k in range(k0, k1):
        for y in range(y0, y0 + BAND):
            near = y < y1 and abs(k - y) <= radius
            table[(k - k0) * BAND + y - y0] = taps[k - y + radius] * scale_in[k] * scale_out[y] if near else 0
    return k0, k1


@inlined
def _gauss_down(y0, y1, q, gauss, table, tall, stride, edge):
    """Rows y0 to y1 of `q` (H, W * L) blurred along y, and scaled to be blurred along x, into `tall` behind its edge.

    Tile by tile, whose rows stay in the fastest cache, and four rows at once, so that a value is loaded once for them.
    """
    in_x = gauss[4]
    height, flat = q.shape
    source = q.reshape(q.size)
    k0, k1 = _taps_of_band(y0, y1, height, gauss, table)
    whole = flat - flat % (2 * WIDE)
    for start in range(0, whole, TILE):
        for four in range(0, y1 - y0, 4):
            for i in range(start, min(start + TILE, whole), 2 * WIDE):
                a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = zeros_wide()
                for k in range(k0, k1):
                    at = k * flat + i
                    v0, v1 = load_wide(source, at), load_wide(source, at + WIDE)
                    t = (k - k0) * BAND + four
                    a0, a1 = muladd(a0, table[t], v0), muladd(a1, table[t], v1)
                    b0, b1 = muladd(b0, table[t + 1], v0), muladd(b1, table[t + 1], v1)
                    c0, c1 = muladd(c0, table[t + 2], v0), muladd(c1, table[t + 2], v1)
                    d0, d1 = muladd(d0, table[t + 3], v0), muladd(d1, table[t + 3], v1)
                f0, f1 = load_wide(in_x, i), load_wide(in_x, i + WIDE)
                to = four * stride + edge + i
                store(tall, to, multiply(a0, f0))
                store(tall, to + WIDE, multiply(a1, f1))
                store(tall, to + stride, multiply(b0, f0))
                store(tall, to + stride + WIDE, multiply(b1, f1))
                store(tall, to + 2 * stride, multiply(c0, f0))
                store(tall, to + 2 * stride + WIDE, multiply(c1, f1))
                store(tall, to + 3 * stride, multiply(d0, f0))
                store(tall, to + 3 * stride + WIDE, multiply(d1, f1))
    for i in range(whole, flat):
        for y in range(y1 - y0):
            single = np.float32(0)
            for k in range(k0, k1):
                single += table[(k - k0) * BAND + y] * source[k * flat + i]
            tall[y * stride + edge + i] = single * in_x[i]


@inlined
def _pay(room, at, labels, costs, unary, pixel, message):
    """Turn a pixel's messages into logits by a full compatibility matrix."""
    for i in range(labels):
        message[i] = room[at + i]
    for i in range(labels):
        cost = unary[pixel * labels + i]
        for j in range(labels):
            cost += costs[i, j] * message[j]
        room[at + i] = -cost


@inlined
def _gather(z, at, room, absent, padded, pixel, lattice):
    """room = z[at:] + absent + what the lattice says at a pixel; three blocks at once, as long as there are three."""
    ids, weights, _, scale_out, values = lattice
    corners, factor = ids.shape[1], scale_out[pixel]
    o = 0
    while o + 3 * LANES <= padded:
        a, b = add(load(z, at + o), load(absent, o)), add(load(z, at + o + LANES), load(absent, o + LANES))
        c = add(load(z, at + o + 2 * LANES), load(absent, o + 2 * LANES))
        for k in range(corners):
            w, r = weights[pixel, k] * factor, np.intp(ids[pixel, k]) * padded + o
            a, b = muladd(a, w, load(values, r)), muladd(b, w, load(values, r + LANES))
            c = muladd(c, w, load(values, r + 2 * LANES))
        store(room, o, a)
        store(room, o + LANES, b)
        store(room, o + 2 * LANES, c)
        o += 3 * LANES
    while o < padded:
        a = add(load(z, at + o), load(absent, o))
        for k in range(corners):
            a = muladd(a, weights[pixel, k] * factor, load(values, np.intp(ids[pixel, k]) * padded + o))
        store(room, o, a)
        o += LANES


@inlined
def _scatter(room, part, padded, pixel, ids, weights, factor):
    """Add a pixel's marginals to its vertices, three blocks at once, as long as there are three."""
    o = 0
    while o + 3 * LANES <= padded:
        a, b, c = load(room, o), load(room, o + LANES), load(room, o + 2 * LANES)
        for k in range(ids.shape[1]):
            w, r = weights[pixel, k] * factor, np.intp(ids[pixel, k]) * padded + o
            store(part, r, muladd(load(part, r), w, a))
            store(part, r + LANES, muladd(load(part, r + LANES), w, b))
            store(part, r + 2 * LANES, muladd(load(part, r + 2 * LANES), w, c))
        o += 3 * LANES
    while o < padded:
        a = load(room, o)
        for k in range(ids.shape[1]):
            r = np.intp(ids[pixel, k]) * padded + o
            store(part, r, muladd(load(part, r), weights[pixel, k] * factor, a))
        o += LANES


@jit
def update(rows, labels, unary, q, new, gauss, lattice, own, costs, part):
    """New marginals of some rows: messages of `q`, compatibility, unary, softmax; and their splat onto the lattice.

    Args:
        rows: (first, last + 1).
        unary, q, new: float32 (H, W * L); `new` is written. Without messages `q` is not read.
        gauss: taps_y, in_y (H,), out_y (H,), taps_x, in_x (W * L,), out_x (W * L,); taps of length 0: no kernel.
        lattice: ids (H * W, d + 1), weights (H * W, d + 1), in (H * W,), out (H * W,), values (M + 1, padded); values
            of length 0: no message.
        own: float32 (H * W,), the weight of the message to itself that is taken away; length 0: none.
        costs: float32 (L, L), or (0, 0) for Potts.
        part: float32 (M + 1, padded), cleared and splatted to; length 0: not.
    """
    taps_y, _, _, taps_x, _, out_x = gauss
    ids, weights, scale_in, _, values = lattice
    flat = unary.shape[1]
    width = flat // labels
    padded = (labels + LANES - 1) // LANES * LANES
    edge = (taps_x.size - 1) // 2 * labels if taps_x.size else 0
    stride = flat + 2 * edge
    tall = np.zeros(BAND * stride if taps_x.size else 1, np.float32)
    table = np.zeros((taps_y.size + BAND) * BAND, np.float32)
    z = np.zeros(flat + LANES, np.float32)
    room = np.zeros(padded + LANES, np.float32)
    message = np.zeros(labels, np.float32)
    absent = np.zeros(padded, np.float32)
    absent[labels:] = LOWEST
    # A store of eight may spill over into pixels that are written later, but not over the end of the row.
    spilling = width - 1 - (LANES - 1) // labels
    part[:] = 0
    for y in range(rows[0], rows[1]):
        row, result = unary[y], new[y]
        if taps_x.size:
            band = (y - rows[0]) % BAND
            if band == 0:
                _gauss_down(y, min(y + BAND, rows[1]), q, gauss, table, tall, stride, edge)
            _weighted_sum(z, 0, tall, band * stride, labels, taps_x, taps_x.size, out_x, 0, flat)
        else:
            z[:] = 0
        if own.size:
            for p in range(width):
                for i in range(p * labels, (p + 1) * labels):
                    z[i] -= own[y * width + p] * q[y, i]
        if not costs.size:
            for i in range(flat):
                z[i] -= row[i]
        for p in range(width):
            pixel = y * width + p
            if values.size:
                _gather(z, p * labels, room, absent, padded, pixel, lattice)
            else:
                for o in range(0, padded, LANES):
                    store(room, o, add(load(z, p * labels + o), load(absent, o)))
            top = load(room, 0)
            for o in range(LANES, padded, LANES):
                top = maximum(top, load(room, o))
            if costs.size:
                _pay(room, 0, labels, costs, row, p, message)
                top = load(room, 0)
                for o in range(LANES, padded, LANES):
                    top = maximum(top, load(room, o))
            down = -largest(top)
            powers = power(shift(load(room, 0), down))
            store(room, 0, powers)
            for o in range(LANES, padded, LANES):
                value = power(shift(load(room, o), down))
                store(room, o, value)
                powers = add(powers, value)
            norm = ONE / total(powers)
            for o in range(0, padded, LANES):
                value = scale(load(room, o), norm)
                store(room, o, value)
                if p < spilling:
                    store(result, p * labels + o, value)
            if part.size:
                _scatter(room, part, padded, pixel, ids, weights, scale_in[pixel])
            if p >= spilling:
                for i in range(labels):
                    result[p * labels + i] = room[i]


@jit
def splat(rows, labels, q, lattice, part):
    """Clear `part` and splat given marginals of some rows onto it; arguments as of `update`."""
    ids, weights, scale_in, _, _ = lattice
    width = q.shape[1] // labels
    part[:] = 0
    for y in range(rows[0], rows[1]):
        for p in range(width):
            pixel = y * width + p
            for k in range(ids.shape[1]):
                w = weights[pixel, k] * scale_in[pixel]
                r = ids[pixel, k]
                for i in range(labels):
                    part[r, i] += w * q[y, p * labels + i]


@jit
def splat_ones(ids, weights, part):
    """Clear `part` (M + 1, 8) and splat an image of ones onto its first channel."""
    part[:] = 0
    for pixel in range(ids.shape[0]):
        for k in range(ids.shape[1]):
            part[ids[pixel, k], 0] += weights[pixel, k]


@jit
def row_sums(rows, ids, weights, values, out):
    """Slice one channel (values (M + 1, 8)) at the pixels of rows `rows` of a flat range, into out (N,)."""
    for pixel in range(rows[0], rows[1]):
        found = np.float32(0)
        for k in range(ids.shape[1]):
            found += weights[pixel, k] * values[ids[pixel, k], 0]
        out[pixel] = found
