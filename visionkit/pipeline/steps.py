"""A stage with what belongs to it in a run: the files it writes, how it is drawn, what is told of it in the end."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from visionkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from visionkit.pipeline.sinks import Sink
    from visionkit.pipeline.stage import Item, Stage

__all__ = ["Silent", "Step", "Telling", "draw_steps", "ends_of", "refuse"]


class Step:
    """One stage, as commands and recipes run it. A kind of stage has a child of this, which builds the stage.

    Args:
        stage: what works on the frames.
        sinks: write files of its results.

    Attributes:
        boxes: whether its rows hold detections, which further formats can hold.
        way: how the closing line begins to tell what was seen.
    """

    boxes = False
    way = "most often"

    def __init__(self, stage: Stage, sinks: Sequence[Sink] = ()) -> None:
        self.stage = stage
        self.sinks = list(sinks)
        self.seen: Counter[str] = Counter()

    def draw(self, item: Item) -> None:
        """Draw what the stage found onto the item's image."""

    def names(self, item: Item) -> list[str]:
        """What is in a frame, for the closing line."""
        return []

    def watch(self, item: Item) -> None:
        """See an item when all is done with it."""
        self.seen.update(self.names(item))

    def shown(self, item: Item) -> Item:
        """What a window shows of it."""
        return item

    def told(self) -> str:
        """The closing line's part about what was seen."""
        found = ", ".join(f"{name} in {count}" for name, count in self.seen.most_common(3))
        return f"{self.way} {found or 'nothing'}"

    def lines(self) -> list[str]:
        """What else is told in the end, a line each."""
        return []


class Telling(Protocol):
    """Tells a user what happens while a model is made ready."""

    def compiling(self, what: str) -> None:
        """That `network`, `sizes` (a network that is compiled for each size) or `crf` is compiled, which takes time."""

    def say(self, line: str) -> None:
        """A line about a model."""

    def loading(self, name: Any, what: str = "network") -> contextlib.AbstractContextManager[dict[str, Any]]:
        """Keyword arguments `on_compile`, `notice` and `progress` of a loader, while it loads."""


class Silent:
    """Tells nothing."""

    def compiling(self, what: str) -> None:
        """Say nothing."""

    def say(self, line: str) -> None:
        """Say nothing."""

    def loading(self, name: Any, what: str = "network") -> contextlib.AbstractContextManager[dict[str, Any]]:
        """Add nothing."""
        return contextlib.nullcontext({})


def ends_of(steps: Sequence[Step]) -> dict[str, Any]:
    """Arguments of `visionkit.pipeline.run` that steps bring along: stages and sinks."""
    return {"stages": [step.stage for step in steps], "sinks": [sink for step in steps for sink in step.sinks]}


def draw_steps(steps: Sequence[Step]) -> Callable[[Item], None]:
    """Draws what every step found, the last one's on top."""

    def draw(item: Item) -> None:
        for step in steps:
            step.draw(item)

    return draw


def refuse(options: Mapping[str, Any], names: Sequence[str], why: str) -> None:
    """Refuse options that have no meaning for this kind of model.

    Raises:
        UsageError: `option-unfit`.
    """
    for name in names:
        if options[name] is not None:
            raise UsageError("option-unfit", f"--{name} does not go with this model: {why}. Leave it out.")
