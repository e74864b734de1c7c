"""A recipe run over a source from Python: `visionkit.run("clip.mp4", visionkit.recipe("cells"), out="runs/cells")`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from visionkit.pipeline.recipe_stages import OUTPUT, SOURCE, Building
from visionkit.pipeline.runner import Reading, RunResult, Writing, run
from visionkit.pipeline.steps import draw_steps, ends_of

if TYPE_CHECKING:
    from visionkit.pipeline.recipe import Recipe
    from visionkit.pipeline.steps import Telling

__all__ = ["reading_by", "run_recipe", "writing_by"]


def run_recipe(
    source: str | os.PathLike[str] | bytes,
    recipe: Recipe,
    *,
    out: str | os.PathLike[str] | None = None,
    reading: Reading | None = None,
    writing: Writing | None = None,
    trust: bool = False,
    telling: Telling | None = None,
    **options: Any,
) -> RunResult:
    """Send `source` through the stages of a recipe into a folder of results.

    Args:
        source: a video, an image, a folder or a glob of images.
        recipe: as `load_recipe` reads it.
        out: the folder; None takes the recipe's, else `runs/<recipe>/<source>`.
        reading, writing: in the place of the recipe's `[source]` and `[output]`.
        trust: let model files run code (a SavedModel can).
        telling: is told of models that are fetched and compiled.
        options: `overwrite`, `video`, `codec`, `formats` and `rows` in the place of the recipe's (`Writing`); the
            others as `visionkit.pipeline.run`.

    Raises:
        VisionkitError: as `visionkit.pipeline.run`; RecipeError where stages or options do not fit.
    """
    fields = {field.name for field in dataclasses.fields(Writing)}
    changed = {key: options.pop(key) for key in list(options) if key in fields}
    if out is not None:
        changed["out"] = out
    writing = dataclasses.replace(writing or writing_by(recipe.output), **changed)
    reading = reading or reading_by(recipe.source)
    drawn = writing.video and writing.rows is None
    building = Building(encoding=drawn, trust=trust, codec=writing.codec, end_s=reading.end_s)
    if telling is not None:
        building.telling = telling
    steps = recipe.steps(building)
    ends = {"draw": draw_steps(steps) if drawn else None, "recipe": recipe.facts(), "reads": recipe.reads()}
    return run(source, **ends_of(steps), **{"task": recipe.name, **ends, **options}, reading=reading, writing=writing)


def reading_by(table: Mapping[str, Any]) -> Reading:
    """The `Reading` of a recipe's `[source]`."""
    found = {key: table.get(key, option.usual) for key, option in SOURCE.items()}
    names = {"start": "start_s", "end": "end_s", "vid_stride": "stride"}
    return Reading(**{names.get(key, key): value for key, value in found.items()})


def writing_by(table: Mapping[str, Any]) -> Writing:
    """The `Writing` of a recipe's `[output]`."""
    found = {key: table.get(key, option.usual) for key, option in OUTPUT.items()}
    return Writing(**{"formats" if key == "format" else key: value for key, value in found.items()})
