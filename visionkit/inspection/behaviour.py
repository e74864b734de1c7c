"""What a layer does, whatever the network is written in: its effect on fields, its cost, its window."""

from __future__ import annotations

from dataclasses import dataclass

from visionkit.geometry.receptive_field import Pair, window_reach
from visionkit.inspection import effects
from visionkit.inspection.effects import Effect
from visionkit.inspection.facts import Shape, WindowFacts

__all__ = ["Behaviour", "map_of", "reshape", "sliding"]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a layer does with maps of given sizes; `macs` of one sample, None where they cannot be told."""

    effect: Effect
    macs: int | None = 0
    window: WindowFacts | None = None


def map_of(shape: Shape) -> Pair:
    """Height and width of a map (B, H, W, C); (1, 1) for everything else."""
    return (shape[1] or 0, shape[2] or 0) if len(shape) == 4 else (1, 1)


def sliding(
    map_hw: Pair,
    kernel: Pair,
    stride: Pair,
    *,
    dilation: Pair = (1, 1),
    padding: Pair = (0, 0),
    rounding: str = "floor",
) -> tuple[Effect, WindowFacts]:
    """Effect and facts of a window over a map; `padding` is the same before and after, `same` finds its own."""
    reaches = [
        window_reach(size, k, stride=s, padding=(p, p), dilation=d, rounding=rounding)
        for size, k, s, p, d in zip(map_hw, kernel, stride, padding, dilation, strict=True)
    ]
    (top, bottom), (left, right) = reaches[0].padding, reaches[1].padding
    exact = reaches[0].exact, reaches[1].exact
    facts = WindowFacts(kernel, stride, dilation, (top, bottom, left, right), rounding, exact)
    return effects.local(lambda field: field.window(kernel, stride, (top, left), dilation)), facts


def reshape(before: Shape, after: Shape) -> Behaviour:
    """A change of shape alone, both with the batch."""
    if map_of(before) == map_of(after):
        return Behaviour(effects.same)
    if len(before) == 4:
        to_map = effects.all_of if map_of(after) == (1, 1) else effects.unknown
        return Behaviour(to_map if len(after) == 4 else effects.flatten)
    return Behaviour(effects.join if len(before) == 2 else effects.unknown)
