"""`visionkit run`: the stages of a recipe over images or videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from visionkit.cli.options import STDOUT, check_source, need_display, output_options, source_options, writing_of
from visionkit.cli.running import CliTelling, run_steps
from visionkit.cli.text import clean, emit, examples, table, tell
from visionkit.errors import UsageError, VisionkitError

if TYPE_CHECKING:
    from visionkit.pipeline.recipe import Recipe

__all__ = ["command", "run_recipe"]

# Options of the command that a recipe may say as well: (name here, table, key there)
SHARED = (
    ("start_s", "source", "start"),
    ("end_s", "source", "end"),
    ("vid_stride", "source", "vid_stride"),
    ("backend", "source", "backend"),
    ("max_pixels", "source", "max_pixels"),
    ("out", "output", "out"),
    ("video", "output", "video"),
    ("codec", "output", "codec"),
    ("formats", "output", "format"),
)
BOXES_ONLY = ("coco", "voc", "yolo")


def _without_source(function: Any) -> Any:
    """`source_options` with any number of SOURCEs behind RECIPE."""
    decorated = source_options(function)
    parameters = decorated.__click_params__
    parameters[:] = [one for one in parameters if one.name != "source"]
    for argument in (click.argument("sources", nargs=-1), click.argument("recipe", required=False)):
        decorated = argument(decorated)
    return decorated


@click.command(
    epilog=examples(
        "visionkit run --list",
        "visionkit run straighten-and-read photos/",
        "visionkit run cells 'slides/*.jpg' --set detect.conf=0.5 --format csv,coco",
        "visionkit run mine.toml monday.mp4 tuesday.mp4 --out runs/week --no-video",
        "visionkit run mine.toml clip.mp4 --set detect.classes=car,bus --set detect.model=runs/my_detector",
    )
)
@_without_source
@click.option("--list", "listed", is_flag=True, help="Tell the recipes that came with VisionKit.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="STAGE.KEY=VALUE",
    help="Another value for an option of a stage, named by its kind or number. May be given several times.",
)
@click.option("--allow-outside", is_flag=True, help="Let paths in the recipe lead out of its folder.")
@click.option("--trust-model", is_flag=True, help="Model files that the recipe names may run code (a SavedModel can).")
@output_options
def command(recipe: str | None, sources: tuple[str, ...], **options: Any) -> int:
    """Send each SOURCE through the stages of RECIPE: a TOML file, the name of one of --list, or - for stdin.

    Every SOURCE, an image, a folder or glob of images, or a video, is a run with a folder of its own; of several, --out
    names the folder that holds them. Rows have what every stage found; run.json tells the recipe and its sha256.

    Options given here go before the recipe's. pipelines/README.md tells how a recipe is written.
    """
    from visionkit.pipeline.recipe_file import load_recipe

    if options["listed"]:
        return _list()
    if recipe is None or not sources:
        raise UsageError("usage", "Give a recipe and a source: visionkit run RECIPE SOURCE. --list tells recipes.")
    for source in sources:
        check_source(source)
    if options["show"]:
        need_display("--show")
    found = load_recipe(recipe, allow_outside=options["allow_outside"]).changed(_settings(options["settings"]))
    found.check()
    options = _with_recipe(options, found)
    _check_outputs(found, options, len(sources))
    return _run_each(found, sources, options)


def run_recipe(recipe: Recipe, source: str, options: dict[str, Any]) -> int:
    """Run a recipe over one source, and tell on stderr how it went; returns the exit code."""
    from visionkit.pipeline.recipe_stages import Building

    encoding = options["video"] and options["out"] != STDOUT
    building = Building(
        telling=CliTelling(),
        encoding=encoding,
        trust=options["trust_model"],
        codec=options["codec"],
        end_s=options["end_s"],
    )
    ends: dict[str, Any] = {"recipe": recipe.facts(), "reads": recipe.reads()}
    return run_steps(source, recipe.steps(building), options, task=recipe.name, **ends).exit_code


def _run_each(recipe: Recipe, sources: Sequence[str], options: dict[str, Any]) -> int:
    """One run a source; of several a source that fails is told and the others go on. The first code that is not 0."""
    if len(sources) == 1:
        return run_recipe(recipe, sources[0], options)
    codes = []
    taken: set[str] = set()
    for source in sources:
        here = dict(options)
        if options["out"] not in (None, STDOUT):
            here["out"] = str(Path(options["out"]) / _folder(source, taken))
        click.echo(clean(f"{source}:"), err=True)
        try:
            codes.append(run_recipe(recipe, source, here))
        except VisionkitError as error:
            codes.append(tell(error.slug, error.message, error.exit_code))
        if codes[-1] in (130, 143):  # whoever stops a run means all of them
            break
    return next((code for code in codes if code), 0)


def _folder(source: str, taken: set[str]) -> str:
    """A folder's name for a source; one that was taken gets a number."""
    from visionkit.io.text import safe_text

    tame = "".join(c if c.isalnum() or c in "._-" else "-" for c in safe_text(Path(source).name)).strip(".-")[:80]
    name, number = tame or "source", 1
    while name in taken:
        number += 1
        name = f"{tame or 'source'}-{number}"
    taken.add(name)
    return name


def _with_recipe(options: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """The options, those that were not typed with the recipe's word where it has one."""
    ctx = click.get_current_context()
    found = dict(options)
    for name, part, key in SHARED:
        told = getattr(recipe, part)
        if key in told and ctx.get_parameter_source(name) in (None, ParameterSource.DEFAULT):
            found[name] = told[key]
    return found


def _check_outputs(recipe: Recipe, options: dict[str, Any], count: int) -> None:
    """Refuse formats and outputs that do not go with the stages or with several sources.

    Raises:
        UsageError: `format-unfit`, `folder-needed`.
    """
    kinds = {stage.use for stage in recipe.stages}
    boxes = bool(kinds & {"detect", "regions"})
    formats = options["formats"]
    unfit = [one for one in formats if one in BOXES_ONLY or (one != "jsonl" and "rectify" in kinds)]
    if unfit and not boxes:
        raise UsageError("format-unfit", f"--format {unfit[0]} is for objects, which no stage of this recipe finds.")
    writing_of({**options, "out": STDOUT if options["out"] == STDOUT else None}, boxes=boxes)
    if options["out"] != STDOUT:
        return
    if count > 1 and formats != ("jsonl",):
        raise UsageError("format-unfit", "--out - of several sources writes jsonl, whose rows name their source.")
    if any(stage.options.get("save_uncertain") for stage in recipe.stages):
        raise UsageError("folder-needed", "`save_uncertain` writes images, and --out - only rows. Name a folder.")


def _settings(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise UsageError("setting-unknown", f"--set expected STAGE.KEY=VALUE. Received: {one!r}.")
        found[name.strip()] = value.strip()
    return found


def _list() -> int:
    from visionkit.pipeline.recipe_file import list_recipes

    rows = [("recipe", "stages", "what it does")]
    for recipe in list_recipes():
        rows.append((recipe.name, ", ".join(stage.use for stage in recipe.stages), recipe.summary))
    for line in table(rows):
        emit(line)
    return 0
