"""What travels through the runner (`Item`) and what works on it (`Stage`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.structures import Frame

if TYPE_CHECKING:
    from visionkit.io import MediaInfo

__all__ = ["FunctionStage", "Item", "Stage", "TaskStage"]


@dataclass(slots=True, eq=False)
class Item:
    """One frame on its way through the stages.

    Args:
        frame: what was decoded. Its pixels belong to the runner: a stage behind the last network may draw on them.
        results: what the stages found, by stage name.
        fields: further entries of the frame's row, such as the name of a file that a sink wrote for it.
        error: why this frame has no (trustworthy) result; None when all went well.
    """

    frame: Frame
    results: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    error: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of pixels held, those of masks and crops included."""
        return int(self.frame.image.nbytes) + sum(_pixel_bytes(result) for result in self.results.values())


def _pixel_bytes(result: Any) -> int:
    if isinstance(result, list):
        return sum(_pixel_bytes(one) for one in result)
    pixels = (getattr(result, name, None) for name in ("mask", "image"))
    return sum(int(one.nbytes) for one in pixels if one is not None)


class Stage:
    """One step of the line: called with items in order, from a thread of its own.

    A subclass overrides `process`, and the other methods where it needs them. `ModelError` raised by `process` marks
    the frame (its row says why) and the run goes on; any other exception ends the run and reaches the caller.

    A stage whose `process` keeps nothing between calls may have several workers: threads that are each inside
    `process` with items of their own. What needs the frames' order then belongs into `settle`.

    Args:
        name: the key of its results and of its seconds in `run.json`.
        batch: how many items `process` takes at a time; the last batch of a source may be smaller.
        workers: how many threads call `process`.

    Attributes:
        class_names: of the class ids in its results, for their rows; by head where there are several.
    """

    class_names: Any = None

    def __init__(self, name: str, batch: int = 1, workers: int = 1) -> None:
        for word, value in (("batch", batch), ("workers", workers)):
            if value < 1:
                raise ValueError(f"`{word}` must be a positive integer. Received: {word}={value}.")
        self.name = name
        self.batch = batch
        self.workers = workers

    def check(self, info: MediaInfo, first: Frame) -> None:
        """Refuse a source this stage cannot work on; cheap, before outputs are touched or a model is loaded.

        Args:
            info: what the source says about itself.
            first: its first frame, not to be changed.
        """

    def setup(self, info: MediaInfo, first: Frame) -> None:
        """Get ready for this source (load a model, open a file); arguments as in `check`."""

    def process(self, items: Sequence[Item]) -> None:
        """Work on the items in place."""
        raise NotImplementedError

    def settle(self, items: Sequence[Item]) -> None:
        """Finish what `process` did, in the order of the frames and never from two threads; cheap.

        Items that failed (`error`) come along.
        """

    def describe(self) -> dict[str, Any] | None:
        """The stage's model for `run.json`: name, sha256, runtime, precision; None for a stage without one."""
        return None

    def settings(self) -> dict[str, Any] | None:
        """What else its results depend on, for `run.json`; None for nothing."""
        return None

    def summary(self) -> dict[str, Any] | None:
        """What came of the run as a whole, for `run.json`, once all frames are through; None for nothing."""
        return None

    def close(self) -> None:
        """Let go of what `setup` took; called once, whether the run ended well or not."""


class FunctionStage(Stage):
    """A stage made of a function of one item."""

    def __init__(self, name: str, function: Callable[[Item], None]) -> None:
        super().__init__(name)
        self.function = function

    def process(self, items: Sequence[Item]) -> None:
        """Call the function on each item in order."""
        for item in items:
            self.function(item)


class TaskStage(Stage):
    """A stage made of a task: a callable from a list of images, uint8 (H, W, 3) BGR, to a list of structures."""

    def __init__(
        self, task: Callable[[list[npt.NDArray[np.uint8]]], Sequence[Any]], *, name: str = "result", batch: int = 1
    ) -> None:
        super().__init__(name, batch)
        self.task = task
        self.class_names = getattr(task, "labels", None) or None

    def process(self, items: Sequence[Item]) -> None:
        """Run the task on the images of the items and keep one structure for each."""
        found = self.task([item.frame.image for item in items])
        if len(found) != len(items):
            raise ValueError(f"A task must return one result an image. Received: {len(found)} for {len(items)} images.")
        for item, result in zip(items, found, strict=True):
            item.results[self.name] = result
