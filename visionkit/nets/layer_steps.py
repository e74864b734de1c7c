"""What a layer does to the grid of its map: how it thins it out, and whether its values depend on the map's edge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from visionkit.inspection import effects
from visionkit.inspection.facts import WindowFacts
from visionkit.inspection.keras_rules import behaviour_of

__all__ = ["Step", "is_pointwise", "step_of"]

Size = tuple[int, int]
Shape = tuple[int | None, ...]


class Step(NamedTuple):
    """How one layer changes the grid.

    Args:
        stride: rows and columns of its input from one of its cells to the next.
        edge: how the map's edge comes into its values; None where it does not.
    """

    stride: Size
    edge: str | None = None


def is_pointwise(layer: Any, shapes: Sequence[Shape], made: Shape) -> bool:
    """Whether a layer treats every position of maps (B, H, W, C) by itself, and alike."""
    return behaviour_of(layer, shapes, made).effect in (effects.same, effects.join)


def step_of(layer: Any, shapes: Sequence[Shape], made: Shape) -> Step | None:
    """What a layer does to the grid; None where that is not known of such a layer.

    Args:
        layer: a Keras layer or operation.
        shapes: of its inputs, maps of one crop, the largest first.
        made: shape of its output.
    """
    if is_pointwise(layer, shapes, made):
        return Step((1, 1))
    window = behaviour_of(layer, shapes, made).window
    if window is None or window.rounding == "exact":  # none, or one that spreads a map out
        return None
    return Step(window.stride_hw, _edge(window, shapes[0][1:3], made[1:3]))


def _edge(window: WindowFacts, before_hw: Sequence[Any], after_hw: Sequence[Any]) -> str | None:
    """How far windows reach beyond the map, in words; None where they do not."""
    sides = []
    for axis in (0, 1):
        reach = (window.kernel_hw[axis] - 1) * window.dilation_hw[axis] + 1
        start, end = window.padding[2 * axis : 2 * axis + 2]
        overhang = (after_hw[axis] - 1) * window.stride_hw[axis] + reach - before_hw[axis] - start
        # Padding alone has a window of one pixel; behind a pooling's last window there may be padding that none sees.
        sides += [max(start, 0), max(end if window.kernel_hw == (1, 1) else overhang, 0)]
    if not any(sides):
        return None
    if len(set(sides)) == 1:
        return f"pads its map by {sides[0]} on each side"
    return f"pads its map by {sides[0]} above, {sides[1]} below, {sides[2]} left, {sides[3]} right"
