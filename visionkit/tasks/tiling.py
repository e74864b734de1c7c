"""Parts of an image that is too large for one pass of a network: where they lie, and how their answers are joined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Joined", "Tile", "TilePlan"]

Floats = npt.NDArray[np.float32]
Size = tuple[int, int]


class Tile(NamedTuple):
    """One part: its first pixel in the image, and whether its top, bottom, left and right edges are the image's."""

    corner_yx: Size
    at_edge: tuple[bool, bool, bool, bool]


@dataclass(frozen=True)
class TilePlan:
    """Tiles of one size over an image, neighbours at least `overlap` pixels over each other.

    Corners lie on multiples of `step`, so that a network of that stride sees each pixel at the phase at which it sees
    it in the whole image. Then only what a tile's edges cut off tells a tile's answer from the whole image's, and that
    reaches as far as the zeros which the network pads its maps with.

    Args:
        size_hw: of the image, multiples of `step`, as the tile's.
        tile_hw: of a tile; no side longer than the image's.
        overlap: of neighbours.
        step: a multiple of the network's stride.
    """

    size_hw: Size
    tile_hw: Size
    overlap: int
    step: int = 32

    def __post_init__(self) -> None:
        sides = (*self.size_hw, *self.tile_hw)
        if min(sides) < 1 or any(side % self.step for side in sides):
            raise ValueError(f"`size_hw` and `tile_hw` must be multiples of {self.step}. Received: {sides}.")
        if any(t > n for t, n in zip(self.tile_hw, self.size_hw, strict=True)):
            raise ValueError(f"`tile_hw` must fit into `size_hw`. Received: {self.tile_hw} in {self.size_hw}.")
        cut = [t for t, n in zip(self.tile_hw, self.size_hw, strict=True) if t < n]
        if self.overlap < 0 or (cut and self.overlap > min(cut) - self.step):
            raise ValueError(
                f"`overlap` must leave a tile {self.step} pixels of its own. Received: overlap={self.overlap} of "
                f"{self.tile_hw}."
            )

    def tiles(self) -> Iterator[Tile]:
        """The tiles, row by row."""
        tops, lefts = self._starts(0), self._starts(1)
        for top in tops:
            for left in lefts:
                ends = (top + self.tile_hw[0] == self.size_hw[0], left + self.tile_hw[1] == self.size_hw[1])
                yield Tile((top, left), (top == 0, ends[0], left == 0, ends[1]))

    def _starts(self, axis: int) -> list[int]:
        """First pixels along one axis: as few tiles as have the overlap, evenly spread over the steps."""
        size, tile = self.size_hw[axis], self.tile_hw[axis]
        if size == tile:
            return [0]
        pace = (tile - self.overlap) // self.step
        room = (size - tile) // self.step
        count = -(-room // pace) + 1
        return [self.step * (room * place // (count - 1)) for place in range(count)]


class Joined:
    """The map of a whole image out of its tiles' maps, each weighed by a window that falls off towards cut edges.

    Along each axis the weight is next to nothing within `margin` of a cut edge, where the network saw its own padding
    instead of the image, and rises linearly from there over `ramp`; an edge of the image itself is not cut.

    The map is held whole until its `result`, or, with tiles in the plan's order, only the rows of one row of tiles:
    then those which no later tile changes are to be taken (`take`) before a tile further down is added.

    Args:
        plan: of the tiles.
        ratio: pixels of the image for one place of the maps, a divisor of the plan's step.
        margin, ramp: in pixels; by default a quarter and a half of the overlap.
        whole: hold the whole map.
    """

    def __init__(
        self, plan: TilePlan, ratio: int, *, margin: int | None = None, ramp: int | None = None, whole: bool = True
    ) -> None:
        if plan.step % ratio:
            raise ValueError(f"`ratio` must divide {plan.step}. Received: ratio={ratio}.")
        self.plan, self.ratio = plan, ratio
        margin = plan.overlap // 4 if margin is None else margin
        ramp = plan.overlap // 2 if ramp is None else ramp
        if 2 * margin + ramp > plan.overlap:
            raise ValueError(
                f"`2 * margin + ramp` must not exceed the overlap of {plan.overlap}. Received: {margin}, {ramp}."
            )
        self._margin, self._ramp = margin / ratio, max(1.0, ramp / ratio)
        self._sum: Floats | None = None
        self.height, width = (side // ratio for side in plan.size_hw)
        self.first = 0  # row that the memory begins with
        held = self.height if whole else plan.tile_hw[0] // ratio
        self._weights = np.zeros((held, width), np.float32)

    def add(self, tile: Tile, scores: Floats) -> None:
        """Take in the map (L, h, w) of one tile."""
        top, bottom, left, right = tile.at_edge
        weights = np.outer(self._window(scores.shape[1], top, bottom), self._window(scores.shape[2], left, right))
        if self._sum is None:
            self._sum = np.zeros((len(scores), *self._weights.shape), np.float32)
        y, x = (corner // self.ratio for corner in tile.corner_yx)
        y -= self.first
        if y < 0 or y + scores.shape[1] > len(self._weights):
            raise ValueError(f"`tile` must lie in the rows held, from {self.first} on. Received: {tile}.")
        place = (slice(y, y + scores.shape[1]), slice(x, x + scores.shape[2]))
        self._sum[(slice(None), *place)] += weights * scores
        self._weights[place] += weights

    def take(self, end: int) -> Floats:
        """The rows of the map up to `end` that were not taken before, float32 (L, rows, w); they are forgotten here."""
        count = end - self.first
        found = self._mean(count)
        for held in (self._sum, self._weights):
            if held is not None:
                rest = held.shape[-2] - count
                held[..., :rest, :] = held[..., count:, :].copy()
                held[..., rest:, :] = 0
        self.first = end
        return found

    def result(self) -> Floats:
        """The whole map float32 (L, h, w)."""
        return self._mean(self.height)

    def _mean(self, count: int) -> Floats:
        weights = self._weights[:count]
        if self._sum is None or len(weights) < count or not (weights > 0).all():
            raise RuntimeError("some part of the image was in no tile")
        return self._sum[:, :count] / weights

    def _window(self, length: int, from_edge: bool, to_edge: bool) -> Floats:
        centers = np.arange(length) + 0.5
        rise = np.ones(length) if from_edge else (centers - self._margin) / self._ramp
        fall = np.ones(length) if to_edge else (length - centers - self._margin) / self._ramp
        # what only cut edges have seen keeps a weight that nothing else lets count
        return np.clip(np.minimum(rise, fall), 1e-8, 1).astype(np.float32)
