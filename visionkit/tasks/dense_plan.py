"""Which parts of an image a dense classifier is run on, so that every window is met and memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from visionkit.errors import UsageError

__all__ = ["DensePlan", "Pass", "check_stride", "possible_strides", "window_counts"]

Size = tuple[int, int]

# Windows along one axis of a tile. Not any number, so that images of many sizes share a few compiled networks.
LADDER = (*range(1, 11), 12, 14, 16, 18, 20, 24, 28, 32, 36, 40, 48, 56, 64)


class Pass(NamedTuple):
    """One run of the network: the tile with its corner at `corner_yx` of the image answers for places of the map.

    Args:
        corner_yx: first pixel of the tile in the image, which may end before the tile does.
        cells_hw: how many rows and columns of the answer lie inside the image.
        rows, columns: the places of the whole map that they are, as slices.
    """

    corner_yx: Size
    cells_hw: Size
    rows: slice
    columns: slice


def window_counts(size_hw: Size, window_hw: Size, stride: int) -> Size:
    """Rows and columns of windows that lie inside an image."""
    rows, columns = (max(0, (n - w) // stride + 1) for n, w in zip(size_hw, window_hw, strict=True))
    return rows, columns


def possible_strides(stride_hw: Size) -> list[int]:
    """Strides from window to window that shifted passes over a network of `stride_hw` reach, largest first."""
    return [s for s in range(min(stride_hw), 0, -1) if not (stride_hw[0] % s or stride_hw[1] % s)]


def check_stride(stride: int | None, stride_hw: Size) -> int:
    """The stride asked for, or the network's own.

    Raises:
        UsageError: `stride-impossible`; lists those that are.
    """
    possible = possible_strides(stride_hw)
    if stride is None:
        return possible[0]
    if stride not in possible:
        raise UsageError(
            "stride-impossible",
            f"The network steps {stride_hw[0]} pixels from window to window; shifted passes make that any divisor of "
            f"it. Received: stride {stride}. Possible: {', '.join(map(str, possible))}.",
        )
    return stride


@dataclass(frozen=True)
class DensePlan:
    """How the windows of an image of `size_hw` are met by runs over tiles of one size.

    A network of stride S gives the windows at multiples of S. Those at multiples of s = S / f take f^2 passes, shifted
    by (i, j) * s pixels, whose answers are interlaced (shift and stitch: Long, Shelhamer, Darrell, CVPR 2015, section
    3.2). Two passes, shifted by (0, 0) and (s, s), would meet about half of the windows.

    Args:
        size_hw: of the image.
        window_hw: of the classifier's crop.
        stride_hw: of the network.
        stride: from window to window.
        max_pixels: the largest tile; one window is always allowed.
    """

    size_hw: Size
    window_hw: Size
    stride_hw: Size
    stride: int
    max_pixels: int

    @property
    def counts_hw(self) -> Size:
        """Rows and columns of the map."""
        return window_counts(self.size_hw, self.window_hw, self.stride)

    @property
    def cells_hw(self) -> Size:
        """Rows and columns of windows in a tile: those with which the fewest pixels are run."""
        whole = self._coarse(0, 0), self._coarse(1, 0)
        best: tuple[int, int, Size] | None = None
        for rows in _steps(whole[0]):
            for columns in _steps(whole[1]):
                height, width = self._tile((rows, columns))
                runs = -(-whole[0] // rows) * -(-whole[1] // columns)
                if height * width <= self.max_pixels or rows == columns == 1:
                    best = min(filter(None, (best, (runs * height * width, runs, (rows, columns)))))
        return best[2] if best else (1, 1)

    @property
    def tile_hw(self) -> Size:
        """Height and width of a tile in pixels."""
        return self._tile(self.cells_hw)

    def passes(self) -> Iterator[Pass]:
        """The runs that together meet every window once or, where tiles overlap, twice."""
        cells = self.cells_hw
        for rows in self._axis(0, cells[0]):
            for columns in self._axis(1, cells[1]):
                yield Pass((rows[0], columns[0]), (rows[1], columns[1]), rows[2], columns[2])

    def _tile(self, cells_hw: Size) -> Size:
        height, width = (w + (k - 1) * s for w, k, s in zip(self.window_hw, cells_hw, self.stride_hw, strict=True))
        return height, width

    def _coarse(self, axis: int, shift: int) -> int:
        """Windows at multiples of the network's stride behind `shift` pixels."""
        return max(0, (self.size_hw[axis] - self.window_hw[axis] - shift) // self.stride_hw[axis] + 1)

    def _axis(self, axis: int, cells: int) -> Iterator[tuple[int, int, slice]]:
        """First pixel, number of answers inside, and their places, of each run along one axis."""
        fold = self.stride_hw[axis] // self.stride
        for phase in range(fold):
            count = self._coarse(axis, phase * self.stride)
            for start in range(0, count, cells):
                start = min(start, max(0, count - cells))  # the last tile lies inside, over its neighbour
                inside = min(cells, count - start)
                first = phase + fold * start
                corner = phase * self.stride + start * self.stride_hw[axis]
                yield corner, inside, slice(first, first + fold * (inside - 1) + 1, fold)


def _steps(count: int) -> list[int]:
    """Numbers of the ladder up to the first that reaches `count`."""
    steps = [n for n in LADDER if n < count]
    return steps + [n for n in LADDER if n >= count][:1]
