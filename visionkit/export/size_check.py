"""Whether a network can do anything with images of the size that is asked for, from its own strides."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from visionkit.errors import UsageError

if TYPE_CHECKING:
    from fractions import Fraction

    from visionkit.export.plan import ExportPlan
    from visionkit.weights import Card

__all__ = ["check_size"]

Size = tuple[int, int]
AXES = ("high", "wide")


class _Step(NamedTuple):
    """A layer that makes its map smaller along an axis: by how much, and all layers up to it together."""

    layer: str
    axis: int
    own: int
    so_far: int | Fraction

    def cells(self, size_hw: Size) -> int:
        """Of its map for images of a size, but for what padding adds."""
        return math.ceil(size_hw[self.axis] / self.so_far)

    def starves(self, size_hw: Size) -> bool:
        """Whether it steps farther than the map before it reaches."""
        return math.ceil(size_hw[self.axis] * self.own / self.so_far) < self.own

    @property
    def least(self) -> int:
        """The size from which on it does not."""
        return math.floor((self.own - 1) * self.so_far / self.own) + 1


def check_size(plan: ExportPlan, card: Card, size_hw: Size) -> str:
    """What is to be said of a size that is not the card's; nothing where the network's maps stay maps.

    Args:
        plan: made for this size.
        card: as it is written.
        size_hw: of the network's input.

    Raises:
        UsageError: `size-too-small`; a layer has a single cell left to make smaller, which it has not at the card's.
    """
    usual: Size = (int(card.input["size_hw"][0]), int(card.input["size_hw"][1]))
    if size_hw == usual:
        return ""
    steps = list(_steps(plan, size_hw))
    if plan.finest is None:
        starved = [(step, step.least) for step in steps if step.starves(size_hw) and not step.starves(usual)]
        why = "its layer {layer} makes a map smaller that is one cell {axis} already"
    else:
        last = [step for step in steps if step.so_far == plan.finest and step.cells(size_hw) < 2 <= step.cells(usual)]
        starved = [(step, plan.finest + 1) for step in last]
        why = "the finest map that it finds things on, behind {layer}, is one cell {axis}"
    if starved:
        least = [max((n for step, n in starved if step.axis == axis), default=size_hw[axis]) for axis in (0, 1)]
        first = starved[0][0]
        raise UsageError(
            "size-too-small",
            f"{card.name} cannot look at images of {_told(size_hw)} (height x width): "
            f"{why.format(layer=first.layer, axis=AXES[first.axis])}. The least is {_told(least)}, the card's own "
            f"{_told(usual)}.",
        )
    if not any(step.cells(size_hw) < 2 <= step.cells(usual) for step in steps):
        return ""
    return (
        f"at {_told(size_hw)} (height x width) a map of {card.name} is one cell, at the card's {_told(usual)} it is "
        "more: what the card promises does not hold there"
    )


def _steps(plan: ExportPlan, size_hw: Size) -> Iterator[_Step]:
    """Of the networks that see the image."""
    from visionkit.inspection import summarize

    for model in plan.raw.values():
        summary = summarize(model)
        images = [name for name, shape in summary.inputs.items() if tuple(shape[:2]) == tuple(size_hw)]
        for row in summary.layers:
            for name in images:
                field = (row.fields or {}).get(name)
                if field is None or row.window is None:
                    continue
                for axis, own in enumerate(row.window.stride_hw):
                    if own > 1 and field.stride_hw[axis] > 0:
                        yield _Step(row.name, axis, own, field.stride_hw[axis])


def _told(size_hw: Size | list[int]) -> str:
    return f"{size_hw[0]} x {size_hw[1]}"
