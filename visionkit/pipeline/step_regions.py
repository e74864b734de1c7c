"""Boxes around the pieces of a segmentation as a step of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from visionkit.pipeline.regions import RegionsStage
from visionkit.pipeline.steps import Step

if TYPE_CHECKING:
    from visionkit.pipeline.stage import Item, Stage

__all__ = ["RegionsStep"]


class RegionsStep(Step):
    """Boxes of pieces, drawn as a detector's.

    Args:
        source: the stage that segments.
        options: `classes`, `min_area`, `max_regions`.
    """

    boxes = True

    def __init__(self, source: Stage, options: Mapping[str, Any]) -> None:
        from visionkit.draw import DetectionDrawer

        how = {name: options[name] for name in ("classes", "min_area", "max_regions")}
        super().__init__(RegionsStage(source, **how))
        self._drawer, self._count = DetectionDrawer(length=0), 0

    def draw(self, item: Item) -> None:
        """The boxes, with the names of their classes."""
        if (found := item.results.get(self.stage.name)) is not None:
            self._drawer(item.frame.image, found, self.stage.class_names)

    def watch(self, item: Item) -> None:
        """Count them."""
        self._count += len(item.results.get(self.stage.name) or ())

    def told(self) -> str:
        """How many there were."""
        return f"{self._count} region{'s' * (self._count != 1)}"
