"""The maps of a large image, strip by strip: what no later tile changes is used and forgotten."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from visionkit.tasks.score_maps import Scores, Span, neighbours
from visionkit.tasks.tiling import Joined, Tile, TilePlan

__all__ = ["LookRows", "joined_parts", "strips"]

Floats = npt.NDArray[np.float32]
Size = tuple[int, int]
Answer = Callable[[Tile], Floats]


def joined_parts(plan: TilePlan, answer: Answer, *, whole: bool = False) -> Iterator[tuple[Floats, int]]:
    """The map of a plan's tiles: rows float32 (L, rows, w) from above once no later tile changes them; its height.

    Args:
        plan: of the tiles.
        answer: the map (L, h, w) of one tile.
        whole: give all rows at once.
    """
    map_: Joined | None = None
    for top, tiles in itertools.groupby(plan.tiles(), key=lambda tile: tile.corner_yx[0]):
        if map_ is not None and not whole:
            yield map_.take(top // map_.ratio), map_.height
        for tile in tiles:
            found = answer(tile)
            map_ = map_ or Joined(plan, plan.tile_hw[0] // found.shape[1], whole=whole)
            map_.add(tile, found)
    if map_ is None:
        raise RuntimeError("a plan has at least one tile")
    yield map_.take(map_.height), map_.height


class LookRows:
    """The rows of one look's map that are held: more come from below, and those above are forgotten.

    Args:
        parts: rows (L, rows, w) from above, and how many the whole map has.
    """

    def __init__(self, parts: Iterator[tuple[Floats, int]]) -> None:
        self._parts = parts
        self.values, height = next(parts)
        self.span = Span(0, height)

    @property
    def end(self) -> int:
        """The row behind the last one held."""
        return self.span.first + self.values.shape[1]

    def hold(self, begin: int, last: int) -> None:
        """Hold the rows from `begin` to at least `last`, no more of those before."""
        first, height = self.span
        parts = [self.values[:, begin - first :]]
        end = self.end
        while end <= last:
            part, _ = next(self._parts)
            parts.append(part)
            end += part.shape[1]
        self.values = np.concatenate(parts, axis=1)
        self.span = Span(begin, height)


def strips(looks: Sequence[LookRows], size_hw: Size) -> Iterator[Scores]:
    """The scores of an image from above, strip by strip, each as high as what is held of all looks lets it be."""
    height = size_hw[0]
    behind = [neighbours(look.span.height, slice(0, height), height)[:2] for look in looks]
    begin = 0
    while begin < height:
        ends = []
        for look, (upper, lower) in zip(looks, behind, strict=True):
            # the entropy's rows may lie between the strip before and this one, or below the image's last row
            final = begin == height - 1
            look.hold(int(upper[max(0, begin - 1)]), look.span.height - 1 if final else int(lower[begin]))
            reached = int(np.searchsorted(lower, look.end))
            ends.append(height if look.end == look.span.height else min(reached, height - 1))
        end = min(ends)
        yield Scores(
            tuple(look.values for look in looks), size_hw, slice(begin, end), tuple(look.span for look in looks)
        )
        begin = end
