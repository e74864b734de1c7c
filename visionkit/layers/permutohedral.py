"""Gaussian filtering in many dimensions on the permutohedral lattice, of Keras operations only."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

__all__ = ["Permutohedral"]

# Odd numbers without pattern are made of it. A vertex's key is the sum of its coordinates times such numbers, in
# integers that wrap: one number to sort by, and the key of a neighbour is the key plus a constant. Among 64 bits two of
# a million vertices share one with a chance of 1e-7; among 32 (JAX) a hundred pairs do, and are filtered as one point.
SEED = 0x9E3779B97F4A7C15


class Permutohedral:
    """Approximate multiplication of (B, N, L) by exp(-|f_i - f_j|^2 / 2) of all pairs of points of a sample.

    Adams, Baek and Davis, Fast High-Dimensional Filtering Using the Permutohedral Lattice, Eurographics 2010: values
    are shared out to the corners of the simplex around each point, blurred along the d + 1 axes, and gathered back.
    Where their code has a hash table, here keys are sorted and equal ones numbered, which every backend can do, in a
    traced graph and for open sizes too. Linear in the values, and differentiable by them; features are constants.

    Memory is that of the occupied vertices, except under JAX, whose sizes are fixed before the data are seen: there it
    is that of N (d + 1) vertices.

    Args:
        features: float32 (B, N, d).
        unit_diagonal: scale the kernel so that a point's weight for itself is 1, as the Gaussian's is. The lattice
            alone gives 0.5 to 0.8 of it and of the row sums: no matter where the kernel is normalised as a whole, but
            wrong by as much where it is not, or where the point itself is to be left out.
    """

    def __init__(self, features: Any, *, unit_diagonal: bool = False) -> None:
        features = ops.stop_gradient(features)
        batch, points, axes = ops.shape(features)
        rows = batch * points
        lowest, ranks, weights = _simplices(ops.reshape(features, (rows, axes)), axes)
        factors = _factors(2 * axes + 1)
        sample = ops.repeat(ops.arange(batch, dtype="int32"), points)
        base = _wide(sample) * factors[-1]
        for coordinate, factor in zip(lowest, factors[:axes], strict=False):
            base = base + _wide(coordinate) * factor
        simplex = base
        for rank, factor in zip(ranks, factors[axes : 2 * axes], strict=False):
            simplex = simplex + _wide(rank) * factor
        # Neighbours of like colour share their simplex. Points are taken in the order of their simplices: then fewer
        # vertices need sorting, and a simplex adds up its points (which is quick) before vertices add up simplices.
        points_of = self.points = _Runs(simplex, rows)
        self.weights = [ops.take(weight, points_of.order, axis=0) for weight in weights]
        self.back = _scattered(points_of.order, ops.arange(rows, dtype="int32"))
        self.scale = ops.rsqrt(_diagonal(weights)) if unit_diagonal else 1.0
        base = ops.take(base, points_of.first)
        ranks = [ops.take(rank, points_of.first) for rank in ranks]
        keys = ops.reshape(_vertex_keys(base, ranks, factors[:axes]), (-1,))
        vertices = _Runs(keys, points_of.count * (axes + 1))
        self.count = vertices.count
        self.beside = _neighbours(ops.take(keys, vertices.first), factors[:axes], self.count)
        self.vertices = _scattered(vertices.order, vertices.numbers)  # (S (d + 1),)
        corners = ops.reshape(self.vertices, (-1, axes + 1))
        self.corners = [ops.take(corners[:, k], points_of.numbers) for k in range(axes + 1)]
        self.gain = 1 / (1 + 2.0**-axes)  # of spreading, blurring and gathering: Adams's code

    def __call__(self, values: Any) -> Any:
        """The filtered values, float32 (B, N, L)."""
        shape = ops.shape(values)
        flat = ops.take(ops.reshape(values, (-1, shape[-1])) * self.scale, self.points.order, axis=0)
        sums = ops.stack([self.points.sums(flat * weight) for weight in self.weights], axis=1)  # (S, d + 1, L)
        nodes = self.gain * ops.segment_sum(
            ops.reshape(sums, (-1, shape[-1])), self.vertices, num_segments=self.count + 1
        )
        for left, right in self.beside:
            nodes = nodes + 0.5 * (ops.take(nodes, left, axis=0) + ops.take(nodes, right, axis=0))
        out: Any = 0.0
        for corner, weight in zip(self.corners, self.weights, strict=True):
            out = out + ops.take(nodes, corner, axis=0) * weight
        return ops.reshape(ops.take(out, self.back, axis=0) * self.scale, shape)


class _Runs:
    """Equal keys of (R,), numbered in the order of the keys.

    Attributes:
        order: int32 (R,), which puts equal keys side by side.
        numbers: int32 (R,), of the keys in that order.
        count: of different keys; under JAX `bound`, and what is over repeats the last key.
        first: int32 (count,), where each key is found first.
    """

    def __init__(self, keys: Any, bound: Any) -> None:
        self.order = ops.cast(ops.argsort(keys), "int32")
        ordered = ops.take(keys, self.order)
        new = ops.cast(ops.not_equal(ordered[1:], ordered[:-1]), "int32")
        self.numbers = ops.concatenate([ops.zeros((1,), "int32"), ops.cast(ops.cumsum(new), "int32")])
        backend = keras.backend.backend()
        last = self.numbers[-1]
        self.count = bound if backend == "jax" else last + 1 if backend == "tensorflow" else int(last) + 1
        starts = ops.cast(ops.searchsorted(self.numbers, ops.arange(self.count, dtype="int32")), "int32")
        self.first = ops.take(self.order, ops.minimum(starts, ops.shape(keys)[0] - 1))

    def sums(self, values: Any) -> Any:
        """Sums (count, L) over the rows (R, L), in the keys' order, of each key."""
        if keras.backend.backend() == "tensorflow":  # counts for itself, and takes no other count
            return ops.segment_sum(values, self.numbers, sorted=True)
        return ops.segment_sum(values, self.numbers, num_segments=self.count, sorted=True)


def _scattered(order: Any, values: Any) -> Any:
    """What `take` by `order` made `values` of."""
    return ops.scatter(ops.expand_dims(order, 1), values, ops.shape(values))


def _simplices(features: Any, axes: int) -> tuple[list[Any], list[Any], list[Any]]:
    """The simplex around each row of (R, d), and the row's place in it.

    Returns its vertex of colour 0 and the order of the axes, int32 (R,) for each of d + 1 axes; and the row's
    barycentric weights, float32 (R, 1) for each of d + 1 corners.
    """
    # Spreading, blurring and gathering together have the variance of a unit Gaussian on this scale.
    unit = math.sqrt(2 / 3) * (axes + 1)
    total: Any = 0.0
    up: list[Any] = [None] * (axes + 1)
    for j in range(axes, 0, -1):
        coordinate = features[:, j - 1] * (unit / math.sqrt(j * (j + 1)))
        up[j] = total - j * coordinate
        total = total + coordinate
    up[0] = total
    whole = [ops.floor(u / (axes + 1) + 0.5) for u in up]
    rest = [u - w * (axes + 1) for u, w in zip(up, whole, strict=True)]
    off = ops.cast(sum(whole[1:], whole[0]), "int32")
    lowest, ranks, residuals = [], [], []
    for j in range(axes + 1):
        before = [ops.cast(rest[i] >= rest[j], "int32") for i in range(j)]
        after = [ops.cast(rest[i] > rest[j], "int32") for i in range(j + 1, axes + 1)]
        rank = sum([*before, *after], off)
        turn = ops.cast(rank < 0, "int32") - ops.cast(rank > axes, "int32")  # back onto the plane of sum 0
        ranks.append(rank + turn * (axes + 1))
        lowest.append((ops.cast(whole[j], "int32") + turn) * (axes + 1))
        residuals.append(rest[j] / (axes + 1) - ops.cast(turn, "float32"))
    # By rank the residuals descend; a weight is the step from one to the next.
    steps = [
        sum(ops.where(rank == r, residual, 0.0) for rank, residual in zip(ranks, residuals, strict=True))
        for r in range(axes + 1)
    ]
    weights = [steps[axes] - steps[0] + 1.0, *(steps[axes - k] - steps[axes + 1 - k] for k in range(1, axes + 1))]
    return lowest, ranks, [ops.expand_dims(weight, 1) for weight in weights]


def _diagonal(weights: list[Any]) -> Any:
    """What a point's value adds to its own result, float32 (R, 1): corners k and l of a simplex are |k - l| steps apart
    along as many axes, and d + 1 - |k - l| the other way round; a step halves.
    """
    corners = len(weights)
    total: Any = 0.0
    for apart in range(corners):
        reached = (2.0**-apart + 2.0 ** (apart - corners)) * (2 if apart else 1)
        if not apart:
            reached += 2.0**-corners
        pairs = [weights[k] * weights[k + apart] for k in range(corners - apart)]
        total = total + reached * sum(pairs[1:], pairs[0])
    return total / (1 + 2.0 ** (1 - corners))


def _vertex_keys(base: Any, ranks: list[Any], factors: list[int]) -> Any:
    """Keys (S, d + 1) of simplices' corners: corner k adds k to each coordinate, less d + 1 where rank > d - k."""
    axes, whole = len(factors), _wrap(sum(factors))
    columns = []
    for k in range(axes + 1):
        key = base + _wrap(k * whole)
        for rank, factor in zip(ranks, factors, strict=False):
            key = key - _wide(ops.cast(rank > axes - k, "int32")) * _wrap((axes + 1) * factor)
        columns.append(key)
    return ops.stack(columns, axis=1)


def _neighbours(keys: Any, factors: list[int], count: Any) -> list[tuple[Any, Any]]:
    """For each axis the numbers (M + 1,) of the vertices on both sides; M, a row of zeros, where there is none."""
    found = []
    for j in range(len(factors) + 1):
        step = _wrap((len(factors) + 1) * factors[j] - sum(factors)) if j < len(factors) else _wrap(-sum(factors))
        found.append((_find(keys, keys + step, count), _find(keys, keys - step, count)))
    return found


def _find(keys: Any, wanted: Any, count: Any) -> Any:
    at = ops.minimum(ops.cast(ops.searchsorted(keys, wanted), "int32"), count - 1)
    at = ops.where(ops.equal(ops.take(keys, at), wanted), at, count)
    return ops.concatenate([at, ops.reshape(ops.cast(count, "int32"), (1,))])


def _wide(x: Any) -> Any:
    return ops.cast(x, _key_type())


def _key_type() -> str:
    return "int32" if keras.backend.backend() == "jax" else "int64"


def _wrap(value: int) -> int:
    """The signed number of the key's width that is congruent to `value`."""
    bits = 32 if _key_type() == "int32" else 64
    value %= 1 << bits
    return value - (1 << bits) if value >> (bits - 1) else value


def _factors(count: int) -> list[int]:
    state, found = SEED, []
    for _ in range(count):
        state = (state + SEED) % (1 << 64)
        mixed = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % (1 << 64)
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % (1 << 64)
        found.append(_wrap((mixed ^ (mixed >> 31)) >> 1 | 1))
    return found
