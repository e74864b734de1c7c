"""What `import visionkit` offers: load a model, stream its results, run a source into a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from visionkit.errors import ModelError, UsageError
from visionkit.opencv_check import explained

if TYPE_CHECKING:
    import numpy.typing as npt

    from visionkit.pipeline import RunResult
    from visionkit.structures import Frame

__all__ = ["load", "run", "stream"]


def load(name: str | os.PathLike[str], **options: Any) -> Any:
    """The task of a model card, ready for images; for a card of the task `track`, a tracker.

    Args:
        name: a card's name (`visionkit models list`), or the path of a folder with a `card.toml`.
        options: settings of the task that differ from the card's.

    Raises:
        ModelError: there is no such card, or its weights are missing or not what the card says.
        RecipeError: the card does not fit its schema.
    """
    from visionkit.weights import load_card

    with explained():
        card = load_card(name)
        if card.task != "track":
            raise ModelError(
                "task-unsupported", f"The card {card.name!r} is for `{card.task}`; this version runs the task `track`."
            )
        from visionkit import tasks

        return tasks.load_tracker(name, **options)


def stream(
    source: str | os.PathLike[str] | bytes, task: Any, *, xyxy: npt.ArrayLike | None = None, **reading: Any
) -> Iterator[tuple[Frame, Any]]:
    """Yield (frame, result) for every frame of `source`; decoding and the task run ahead in threads of their own.

    Args:
        source: a video, an image, a folder or a glob of images.
        task: what `load` returned, or any callable from a list of images, uint8 (H, W, 3) BGR, to a list of results.
        xyxy: for a tracker: float (4,), the object in the first frame, absolute pixels.
        reading: `start_s`, `end_s`, `stride`, `backend`, `max_pixels` (`visionkit.pipeline.Reading`).

    Raises:
        InputError: the source cannot be opened or holds no frame.
        UsageError: a tracker without a box, or a box outside of the first frame.
    """
    with explained():
        from visionkit import pipeline

        stage = _stage(task, xyxy)
        return pipeline.stream(source, stage, reading=pipeline.Reading(**reading))


def run(source: str | os.PathLike[str] | bytes, stages: Any, **options: Any) -> RunResult:
    """Send `source` through `stages` into a folder of results; `options` are those of `visionkit.pipeline.run`."""
    with explained():
        from visionkit import pipeline

        return pipeline.run(source, stages, **options)


def _stage(task: Any, xyxy: npt.ArrayLike | None) -> Any:
    """`task` as a stage of a pipeline."""
    from visionkit import pipeline

    if isinstance(task, pipeline.Stage):
        return task
    if not hasattr(task, "update"):
        call: Callable[..., Any] = task
        return pipeline.TaskStage(call)
    if xyxy is None:
        raise UsageError("no-box", "A tracker needs the object's box in the first frame: pass `xyxy=(x1, y1, x2, y2)`.")
    return pipeline.TrackStage(task, xyxy)
