"""What `import visionkit` offers: load a model, stream its results, run a source into a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from visionkit.errors import ModelError, UsageError
from visionkit.opencv_check import explained

if TYPE_CHECKING:
    import numpy.typing as npt

    from visionkit.pipeline import RunResult
    from visionkit.pipeline.recipe import Recipe
    from visionkit.structures import Frame

__all__ = ["load", "recipe", "run", "stream"]


def load(name: str | os.PathLike[str], *, task: str | None = None, **options: Any) -> Any:
    """The task of a model card or of a model file, ready for images: a classifier, segmenter, detector or tracker.

    Args:
        name: a card's name (`visionkit models list`), the path of a folder with a `card.toml`, an exported model
            (`visionkit export`), or with `task` any `.keras`, `.tflite`, `.onnx` or SavedModel.
        task: `classify`, `segment`, `detect` or `track`; a card or an exported model says it itself.
        options: of `visionkit.tasks.load_classifier`, `load_segmenter`, `load_detector` or `load_tracker`: `runtime`,
            `precision`, `threads`, `batch` …, settings of the task that differ from the card's, `trust` for a
            SavedModel, which can run code, and what must be told of a model file that does not say what it is:
            `labels`, `preset` … (`visionkit.tasks.load_classify.classifier_from_file`).

    Raises:
        ModelError: there is no such card or file, or its weights are missing or not what the card says.
        RecipeError: the card does not fit its schema.
        UsageError: a model file without `task`.
    """
    with explained():
        from visionkit import tasks

        loaders: dict[str, Callable[..., Any]] = {
            "classify": tasks.load_classifier,
            "segment": tasks.load_segmenter,
            "detect": tasks.load_detector,
            "track": tasks.load_tracker,
        }
        found = _task_of(name, task)
        if found not in loaders or task not in (None, found):
            raise ModelError(
                "task-unsupported",
                f"The model {os.fspath(name)!r} is for `{found}`; {_asked(task)} `{'`, `'.join(loaders)}`.",
            )
        return loaders[found](name, **options)


def _asked(task: str | None) -> str:
    return "this version runs" if task is None else f"asked for `{task}`. This version runs"


def _task_of(name: str | os.PathLike[str], task: str | None) -> str:
    from visionkit.tasks.load_classify import is_model_file
    from visionkit.weights import load_card

    if not is_model_file(name):
        return load_card(name).task
    if task is None:
        raise UsageError("no-task", f"{os.fspath(name)!r} is a model file: pass `task='classify'` or `'detect'`.")
    return task


def stream(
    source: str | os.PathLike[str] | bytes,
    task: Any,
    *,
    xyxy: npt.ArrayLike | None = None,
    smooth_s: float = 0.0,
    associate: bool = False,
    **reading: Any,
) -> Iterator[tuple[Frame, Any]]:
    """Yield (frame, result) for every frame of `source`; decoding and the task run ahead in threads of their own.

    Args:
        source: a video, an image, a folder or a glob of images.
        task: what `load` returned, or any callable from a list of images, uint8 (H, W, 3) BGR, to a list of results.
        xyxy: for a tracker: float (4,), the object in the first frame, absolute pixels.
        smooth_s: for a classifier: time constant in seconds of the average over frames of a video; 0 for none
            (`visionkit classify` takes 0.5).
        associate: for a detector: give an object the same `tracker_id` in all frames.
        reading: `start_s`, `end_s`, `stride`, `backend`, `max_pixels` (`visionkit.pipeline.Reading`).

    Raises:
        InputError: the source cannot be opened or holds no frame.
        UsageError: a tracker without a box, or a box outside of the first frame.
    """
    with explained():
        from visionkit import pipeline

        stage = _stage(task, xyxy, smooth_s, associate)
        return pipeline.stream(source, stage, reading=pipeline.Reading(**reading))


def run(source: str | os.PathLike[str] | bytes, stages: Any, **options: Any) -> RunResult:
    """Send `source` through stages, or a recipe's, into a folder of results.

    Args:
        source: a video, an image, a folder or a glob of images.
        stages: a list of `visionkit.pipeline.Stage`, or what `recipe` returned.
        options: of `visionkit.pipeline.run`; with a recipe `out` and the others of
            `visionkit.pipeline.recipe_run.run_recipe`.
    """
    with explained():
        from visionkit import pipeline
        from visionkit.pipeline.recipe import Recipe
        from visionkit.pipeline.recipe_run import run_recipe

        if isinstance(stages, Recipe):
            return run_recipe(source, stages, **options)
        return pipeline.run(source, stages, **options)


def recipe(
    name: str | os.PathLike[str], settings: Mapping[str, Any] | None = None, *, allow_outside: bool = False
) -> Recipe:
    """The recipe in a TOML file, or the one that came with VisionKit under this name (`visionkit run --list`).

    Args:
        name: path or name.
        settings: other values for options of its stages: `{"detect.conf": 0.4}`.
        allow_outside: let paths in it lead out of its folder.

    Raises:
        RecipeError: there is none, or it does not fit.
        UsageError: a setting names no option of it, or does not fit.
    """
    from visionkit.pipeline.recipe_file import load_recipe

    found = load_recipe(name, allow_outside=allow_outside).changed(settings or {})
    found.check()
    return found


def _stage(task: Any, xyxy: npt.ArrayLike | None, smooth_s: float, associate: bool) -> Any:
    """`task` as a stage of a pipeline."""
    from visionkit import pipeline, tasks

    if isinstance(task, pipeline.Stage):
        return task
    if isinstance(task, tasks.Segmenter):
        return pipeline.SegmentStage(task)
    if isinstance(task, tasks.Detector):
        conf = task.options.conf
        options = tasks.AssociationOptions(conf=conf, low=min(0.1, conf))
        return pipeline.DetectStage(task, associate=tasks.make_associator("auto", options) if associate else None)
    if isinstance(task, tasks.Classifier):
        return pipeline.ClassifyStage(task, smooth_s=smooth_s)
    if not hasattr(task, "update"):
        call: Callable[..., Any] = task
        return pipeline.TaskStage(call)
    if xyxy is None:
        raise UsageError("no-box", "A tracker needs the object's box in the first frame: pass `xyxy=(x1, y1, x2, y2)`.")
    return pipeline.TrackStage(task, xyxy)
