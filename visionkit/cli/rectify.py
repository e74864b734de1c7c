"""`visionkit rectify`: a region that the camera saw at a slant, as an upright video or image."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from visionkit.cli.options import (
    SIZE,
    check_source,
    model_options,
    need_display,
    output_options,
    source_options,
)
from visionkit.cli.running import CliTelling, run_steps
from visionkit.cli.text import examples
from visionkit.errors import UsageError

if TYPE_CHECKING:
    from visionkit.pipeline import RunResult
    from visionkit.tasks import Rectifier

__all__ = ["command", "load_rectifier", "rectify"]


class CornersType(click.ParamType):
    """`X,Y,X,Y,X,Y,X,Y` in pixels, as four points."""

    name = "X,Y,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[float, float], ...]:
        """The points in the order given. Raises UsageError `bad-corners`."""
        if isinstance(value, tuple):
            return value
        parts = [part for part in re.split(r"[,;\s]+", str(value).strip()) if part]
        try:
            numbers = [float(part) for part in parts]
        except ValueError:
            raise _bad_corners(value, "which are not all numbers") from None
        if len(numbers) != 8:
            raise _bad_corners(value, f"{len(numbers)} number{'s' * (len(numbers) != 1)} instead of eight")
        if not all(map(math.isfinite, numbers)):
            raise _bad_corners(value, "with a number that is not finite")
        return tuple(zip(numbers[::2], numbers[1::2], strict=True))


@click.command(
    epilog=examples(
        "visionkit rectify clip.mp4 --corners 310,120,470,120,760,430,20,430 --size 400,300",
        "visionkit rectify sign.jpg --corners 90,40,400,85,390,300,70,340",
        "visionkit rectify clip.mp4 --model runs/my_classifier --size 256",
        "visionkit rectify frames/ --corners 90,40,400,85,390,300,70,310 --antialias --no-video",
    )
)
@source_options
@click.option(
    "--corners",
    type=CornersType(),
    metavar="X,Y,X,Y,X,Y,X,Y",
    help="The region in the first frame, in pixels: what shall be the crop's top left, top right, bottom right and "
    "bottom left corner.",
)
@click.option(
    "--size",
    type=SIZE,
    metavar="N|H,W",
    help="Of the crop, in pixels.  [default: the region's longer sides; of a model, what its transformer writes]",
)
@click.option("--antialias", is_flag=True, help="Average what a pixel of the crop covers, for crops that shrink a lot.")
@click.option(
    "--border",
    type=click.Choice(["zero", "clamp"]),
    default="zero",
    show_default=True,
    help="What a crop shows outside of the frame: black, or the nearest pixel of its edge.",
)
@model_options
@output_options
def command(source: str, **options: Any) -> int:
    """Straighten a region of SOURCE: an image, a folder or glob of images, or a video.

    The region is given by --corners, clockwise from the crop's top left, or chosen in every frame by the spatial
    transformer of the classifier that --model names.

    Writes a folder with rectified.mp4, every crop at its frame's time (of images rectified/NAME.png), results.jsonl
    with the homography of each frame (3 x 3, from pixels of the crop to pixels of the frame; the centre of pixel i is i
    + 0.5), the source with the region drawn on it (not with --no-video), and run.json. Corners belong to frames of the
    first one's size, and move with a frame that is larger or smaller.
    """
    check_source(source)
    check_rectify_options(options)
    if options["show"]:
        need_display("--show")
    return rectify(source, lambda: load_rectifier(options), options).exit_code


def check_rectify_options(options: dict[str, Any]) -> None:
    """Refuse no region, two regions, and what has no meaning with the one that is given.

    Raises:
        UsageError: as `check_rectify`; `format-unfit`.
    """
    from visionkit.pipeline.step_rectify import check_rectify

    if other := [name for name in options["formats"] if name != "jsonl"]:
        raise UsageError("format-unfit", f"--format {other[0]} is for objects; this command writes jsonl.")
    check_rectify(options)


def rectify(source: str, load: Callable[[], Rectifier], options: dict[str, Any]) -> RunResult:
    """Rectify `source` as the options say, and tell on stderr how it went."""
    from visionkit.pipeline.step_rectify import RectifyStep

    step = RectifyStep(load() if options["corners"] is not None else load, options)
    return run_steps(source, [step], options, task="rectify")


def load_rectifier(options: dict[str, Any]) -> Rectifier:
    """The rectifier that the options name."""
    from visionkit.pipeline.step_rectify import rectifier_of

    return rectifier_of(options, CliTelling())


def _bad_corners(value: object, why: str) -> UsageError:
    return UsageError(
        "bad-corners",
        "--corners expected X,Y,X,Y,X,Y,X,Y in pixels: the region's top left, top right, bottom right and bottom left "
        f"corner (--corners 90,40,400,85,390,300,70,340). Received: {str(value)!r}, {why}.",
    )
