"""Between which values the tensors of a float `.tflite` run on example inputs, and where to cut them for eight bits."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from visionkit.runtime.base import Array
from visionkit.runtime.tflite_watch import Feed, watch_tensors

__all__ = ["RangeMeter", "Watched", "best_range", "share_range"]

Range = tuple[float, float]

BINS = 2048
HISTOGRAM_FEEDS = 64  # inputs whose values are counted; extremes are taken over all
VALUES = 1 << 16  # of one tensor on one input that are counted
CUTS = np.concatenate([np.arange(1.0, 0.3, -0.05), [0.25, 0.2, 0.15, 0.1]])


@dataclass
class Watched:
    """What was seen of one tensor: extremes, then counts of values in `BINS` equal parts between them."""

    low: float = np.inf
    high: float = -np.inf
    counts: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))

    def extend(self, values: Array) -> None:
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def count(self, values: Array) -> None:
        flat = values.reshape(-1)
        flat = flat[:: _step(flat.size)]
        if self.high > self.low:
            places = ((flat - self.low) * ((BINS - 1) / (self.high - self.low))).round().astype(np.int64)
            self.counts += np.bincount(places.clip(0, BINS - 1), minlength=BINS)


class RangeMeter:
    """Ranges of the float tensors of a `.tflite` with one signature, over example inputs; by several methods.

    Args:
        content: the float `.tflite`.
        feeds: inputs by name, one mapping for each call.
        exact: names of tensors whose extremes are kept whatever the method: inputs and outputs.
        floors: by name, a value below which all are alike to what reads the tensor.
    """

    def __init__(
        self,
        content: bytes,
        feeds: Sequence[Feed],
        *,
        exact: Sequence[str] = (),
        floors: Mapping[str, float] | None = None,
    ) -> None:
        self._exact, self._floors = frozenset(exact), dict(floors or {})
        self._seen: dict[str, Watched] = {}
        watch_tensors(content, feeds, self._extend)
        watch_tensors(content, _spread(feeds), self._count)

    def ranges(self, method: str) -> dict[str, Range]:
        """Least and largest value to represent, by tensor name.

        Args:
            method: `minmax`, the extremes seen. `mse`, cut where that makes the squared error of eight bits smallest.
                A number such as `0.999`, so that this share of the values lies within: an outlier in a hundred images
                otherwise costs every value a part of its resolution.
        """
        cut = CUTTERS.get(method) or functools.partial(share_range, share=float(method))
        return {name: (seen.low, seen.high) if name in self._exact else cut(seen) for name, seen in self._seen.items()}

    def _extend(self, name: str, values: Array) -> None:
        self._seen.setdefault(name, Watched()).extend(self._above(name, values))

    def _count(self, name: str, values: Array) -> None:
        self._seen[name].count(self._above(name, values))

    def _above(self, name: str, values: Array) -> Array:
        return np.maximum(values, self._floors[name]) if name in self._floors else values


def best_range(seen: Watched) -> Range:
    """The range with the smallest squared error of 256 steps, among cuts of the extremes seen.

    A value outside errs by its distance, one inside by a twelfth of the step squared; zero has a step of its own.
    """
    low, high = seen.low, seen.high
    if high <= low or not seen.counts.any():
        return low, high
    centres = np.linspace(low, high, BINS)
    rounded = seen.counts * (np.abs(centres) > (high - low) / BINS)  # zero is exact
    lows = np.unique(np.minimum(low, 0.0) * CUTS) if low < 0 else np.array([low])
    highs = np.unique(np.maximum(high, 0.0) * CUTS) if high > 0 else np.array([high])
    below = np.array([(seen.counts * np.maximum(edge - centres, 0) ** 2).sum() for edge in lows])
    above = np.array([(seen.counts * np.maximum(centres - edge, 0) ** 2).sum() for edge in highs])
    steps = (np.maximum(highs, 0)[None] - np.minimum(lows, 0)[:, None]) / 255
    errors = below[:, None] + above[None] + rounded.sum() * steps**2 / 12
    row, column = np.unravel_index(int(errors.argmin()), errors.shape)
    return float(lows[row]), float(highs[column])


def share_range(seen: Watched, share: float) -> Range:
    """The range that holds a share of the values; as much of the rest is cut off below as above."""
    total = seen.counts.sum()
    if seen.high <= seen.low or not total:
        return seen.low, seen.high
    below = np.cumsum(seen.counts) / total
    edges = np.linspace(seen.low, seen.high, BINS)
    first, last = np.searchsorted(below, [(1 - share) / 2, 1 - (1 - share) / 2])
    low, high = float(edges[first]), float(edges[min(int(last), BINS - 1)])
    return (low, high) if high > low else (seen.low, seen.high)


def _spread(feeds: Sequence[Feed]) -> list[Feed]:
    return [feeds[int(i)] for i in np.linspace(0, len(feeds) - 1, min(len(feeds), HISTOGRAM_FEEDS)).round()]


def _step(size: int) -> int:
    """Between values that are counted: no divisor of the size, or it would always meet the same channels."""
    return next(step for step in itertools.count(max(1, size // VALUES)) if math.gcd(step, size) == 1)


CUTTERS: dict[str, Callable[[Watched], Range]] = {"minmax": lambda seen: (seen.low, seen.high), "mse": best_range}
