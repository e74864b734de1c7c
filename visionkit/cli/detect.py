"""`visionkit detect`: which objects are in images or in a video, and where."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from visionkit.cli.options import (
    LINE,
    SIZE,
    STDOUT,
    ZONE,
    check_source,
    model_options,
    need_display,
    output_options,
    source_options,
    writing_of,
)
from visionkit.cli.running import CliTelling, run_steps
from visionkit.cli.text import examples

if TYPE_CHECKING:
    from visionkit.pipeline import RunResult
    from visionkit.tasks import Detector

__all__ = ["command", "count_options", "detect", "detector_options", "load_model"]

F = TypeVar("F", bound=Callable[..., Any])

TRACKERS = ("auto", "own", "bytetrack", "sort", "ocsort")
ANCHORS = ("corners", "center", "bottom")


class NamesType(click.ParamType):
    """Names or numbers with commas between them, as a tuple."""

    name = "NAME|ID,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """The words in the order given; names may hold spaces."""
        if isinstance(value, tuple):
            return value
        words = tuple(word for word in (part.strip() for part in re.split(r",", str(value))) if word)
        if not words:
            self.fail(f"expected names or ids of classes with commas between them. Received: {value!r}.")
        return words


def detector_options(function: F) -> F:
    """What of a detector's answer is kept, and how it is run."""
    for option in (
        click.option(
            "--preset",
            type=click.Choice(["torch", "tf", "caffe", "unit", "raw"]),
            help="Of a model file: how levels are changed for it.  [default: raw, 0 to 255]",
        ),
        click.option("--labels", metavar="FILE", help="Of a model file: class names, one a line."),
        click.option("--imgsz", type=SIZE, metavar="N|H,W", help="Size of the network's input.  [default: the card's]"),
        click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Images in one pass."),
        click.option("--max-det", type=click.IntRange(min=1), default=None, metavar="N", help="Boxes of an image."),
        click.option("--classes", type=NamesType(), metavar="NAME|ID,…", help="Only these classes, by name or by id."),
        click.option(
            "--iou", type=click.FloatRange(0, 1), metavar="X", help="Overlap above which the weaker box goes."
        ),
        click.option(
            "--conf", type=click.FloatRange(0, 1), metavar="X", help="Least confidence of a box.  [default: 0.25]"
        ),
        click.option("--weights", metavar="FILE", help="Weights in the place of the card's own."),
    ):
        function = option(function)
    return function


def count_options(function: F) -> F:
    """Where objects are counted."""
    for option in (
        click.option(
            "--zone-anchor",
            type=click.Choice(ANCHORS),
            default="bottom",
            show_default=True,
            help="What of a box must be in a zone.",
        ),
        click.option(
            "--line-anchor",
            type=click.Choice(ANCHORS),
            default="corners",
            show_default=True,
            help="What of a box must be across a line.",
        ),
        click.option(
            "--zone",
            "zones",
            type=ZONE,
            multiple=True,
            metavar="X,Y,X,Y,X,Y,…",
            help="Count what is inside of this polygon. May be given several times.",
        ),
        click.option(
            "--line",
            "lines",
            type=LINE,
            multiple=True,
            metavar="X1,Y1,X2,Y2",
            help="Count what crosses this line, `in` towards its left hand. May be given several times.",
        ),
    ):
        function = option(function)
    return function


@click.command(
    epilog=examples(
        "visionkit detect street.jpg",
        "visionkit detect clip.mp4 --classes car,bus --conf 0.4",
        "visionkit detect clip.mp4 --track --line 0,300,768,300 --zone 100,200,500,200,500,400,100,400",
        "visionkit detect 'photos/*.jpg' --format coco,voc,yolo --out runs/labels",
        "visionkit detect clip.mp4 --no-video --format csv --out - | head -3",
    )
)
@source_options
@model_options
@detector_options
@click.option("--track", is_flag=True, help="Give an object the same number in all frames, and draw its path.")
@click.option(
    "--tracker",
    type=click.Choice(TRACKERS),
    default=None,
    help="With --track: auto takes bytetrack of the package `trackers` where it is installed, else our own.",
)
@count_options
@output_options
def command(source: str, **options: Any) -> int:
    """Find objects in SOURCE: an image, a folder or glob of images, or a video.

    Writes a folder with results.jsonl (one row an image or frame: boxes in pixels with confidence, class and, with
    --track, number; masks as COCO run lengths where the model gives them), the images or the video with the boxes drawn
    on them, and run.json.

    --line counts objects, so it needs --track; of a --zone the number inside is in every row, and with --track how many
    different objects were there. `visionkit count` counts again from stored rows, at other lines and zones.
    """
    check_source(source)
    if options["show"]:
        need_display("--show")
    check_detect_options(options)
    return detect(source, lambda: load_model(options), options).exit_code


def check_detect_options(options: dict[str, Any]) -> None:
    """Refuse what has no meaning without another option, and shapes that cannot be counted at.

    Raises:
        UsageError: as `check_detect`; `format-unfit`.
    """
    from visionkit.pipeline.step_detect import check_detect

    check_detect(options)
    writing_of({**options, "out": options["out"] if options["out"] == STDOUT else None}, boxes=True)


def detect(source: str, load: Callable[[], Detector], options: dict[str, Any], *, task: str = "detect") -> RunResult:
    """Run a detector over `source` as the options say, and tell on stderr how it went."""
    from visionkit.pipeline.step_detect import DetectStep

    return run_steps(source, [DetectStep(load, options)], options, task=task)


def load_model(options: dict[str, Any]) -> Detector:
    """The detector that the options name."""
    from visionkit.pipeline.step_detect import detector_of

    return detector_of(options, CliTelling())
