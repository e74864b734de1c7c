"""`visionkit segment`: the class of every pixel of images or of a video."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from visionkit.cli.options import (
    SIZE,
    STDOUT,
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
    from visionkit.tasks import Segmenter

__all__ = ["command", "load_model", "segment"]

F = TypeVar("F", bound=Callable[..., Any])

# The CRF's parameters in both vocabularies: (option, its name in the paper, in pydensecrf, help)
CRF_NUMBERS = (
    ("theta_alpha", "--theta-alpha", "--sxy", 80.0, "Width of its bilateral kernel in pixels."),
    ("theta_beta", "--theta-beta", "--srgb", 13.0, "Width of its bilateral kernel in grey levels."),
    ("theta_gamma", "--theta-gamma", "--gaussian-sxy", 3.0, "Width of its Gaussian kernel in pixels."),
    ("bilateral_weight", "--bilateral-weight", "--compat", 10.0, "Weight of its bilateral kernel."),
    ("gaussian_weight", "--gaussian-weight", "--gaussian-compat", 3.0, "Weight of its Gaussian kernel."),
)


class ScalesType(click.ParamType):
    """Numbers from 0.1 to 8 with commas between them, as a tuple."""

    name = "X,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """The numbers in the order given."""
        if isinstance(value, tuple):
            return value
        parts = [part for part in re.split(r"[,\s]+", str(value).strip()) if part]
        try:
            numbers = tuple(float(part) for part in parts)
        except ValueError:
            numbers = ()
        if not numbers or not all(0.1 <= number <= 8 for number in numbers):
            self.fail(f"expected numbers from 0.1 to 8 with commas between them. Received: {value!r}.")
        return numbers


SCALES = ScalesType()


def size_options(function: F) -> F:
    """At which size images are looked at, how often, and in which parts."""
    for option in (
        click.option("--scales", type=SCALES, metavar="X,…", help="With --tta: the sizes.  [default: 0.75,1,1.25]"),
        click.option("--tta", is_flag=True, help="Look at each image mirrored and at several sizes; slow."),
        click.option("--overlap", type=click.IntRange(min=0), metavar="N", help="Of tiles.  [default: a quarter]"),
        click.option(
            "--tile",
            type=click.IntRange(min=32),
            metavar="N",
            help="Run larger inputs in tiles of N x N pixels.  [default: above a million pixels, of 1024]",
        ),
        click.option("--native", is_flag=True, help="Look at images at their own size, in tiles where they are large."),
        click.option(
            "--imgsz", type=SIZE, metavar="N|H,W", help="Shorter side, or size, of the input.  [default: the card's]"
        ),
    ):
        function = option(function)
    return function


def file_options(function: F) -> F:
    """What a model file does not say of itself."""
    for option in (
        click.option(
            "--resize",
            type=click.Choice(["stretch", "letterbox"]),
            help="Of a model file: how images are made to fit.  [default: stretch]",
        ),
        click.option(
            "--preset",
            type=click.Choice(["torch", "tf", "caffe", "unit", "raw"]),
            help="Of a model file: how levels are changed for it.  [default: raw, 0 to 255]",
        ),
        click.option("--labels", metavar="FILE", help="Of a model file: class names, one a line."),
    ):
        function = option(function)
    return function


def crf_options(function: F) -> F:
    """Whether a dense CRF refines the answer, and its parameters."""
    for _, paper, pydensecrf, usual, told in reversed(CRF_NUMBERS):
        kind = click.FloatRange(min=0, min_open="theta" in paper)
        told = f"{told}  [default: {usual:g}]"
        function = click.option(paper, pydensecrf, type=kind, metavar="X", help=told)(function)
    function = click.option(
        "--crf-iterations", type=click.IntRange(0, 1000), metavar="N", help="Of the CRF.  [default: 5]"
    )(function)
    function = click.option(
        "--crf-video/--no-crf-video",
        default=None,
        help="On video, start the CRF from the frame before, carried along by the motion: faster, with less flicker.  "
        "[default: on]",
    )(function)
    return click.option(
        "--crf/--no-crf",
        default=None,
        help="Refine by a dense CRF: edges of classes move onto edges of colour.  [default: as the model was exported]",
    )(function)


@click.command(
    epilog=examples(
        "visionkit segment street.jpg",
        "visionkit segment clip.mp4 --model deeplabv3_resnet50 --crf",
        "visionkit segment aerial.png --native --tile 512 --overlap 128",
        "visionkit segment clip.mp4 --save-uncertain 20 --uncertainty",
        "visionkit segment 'photos/*.jpg' --no-video --out - | head -3",
    )
)
@source_options
@model_options
@file_options
@size_options
@crf_options
@click.option("--uncertainty", is_flag=True, help="Draw how undecided the network is, in the place of the classes.")
@click.option(
    "--save-uncertain",
    type=click.IntRange(min=1),
    metavar="N",
    help="Save the N frames with the highest mean entropy, apart in time, for labelling.",
)
@output_options
def command(source: str, **options: Any) -> int:
    """Segment SOURCE: an image, a folder or glob of images, or a video.

    Writes a folder with results.jsonl (one row an image or frame: the mask's file and each class's share of the
    pixels), masks/000012.png (indexed PNG: each pixel is its class id), the images or the video with the classes drawn
    on them, and run.json.

    Entropy is that of the network at its own resolution, before any CRF, as a share of the most that so many classes
    can have; with --uncertainty or --save-uncertain its mean is in the rows. The CRF works at the image's size, above
    two million pixels at a smaller one. Its parameters have two names: the paper's, and pydensecrf's. A model that was
    exported with a CRF refines by it without --crf; the options change it, and --no-crf leaves it out. On video each
    frame starts from the one before it and takes two fifths of the iterations; cuts, gaps and damaged frames start
    anew.

    Of a video, run.json tells the flicker: the mean share of pixels whose class is not the one that the motion brought
    there from the frame before.
    """
    check_source(source)
    if options["show"]:
        need_display("--show")
    check_segment_options(options)
    return segment(source, lambda: load_model(options), options).exit_code


def check_segment_options(options: dict[str, Any]) -> None:
    """Refuse what has no meaning without another option.

    Raises:
        UsageError: as `check_segment`; `folder-needed`.
    """
    from visionkit.pipeline.step_segment import check_segment

    check_segment(options)
    if options["save_uncertain"] and options["out"] == STDOUT:
        raise UsageError("folder-needed", "--save-uncertain writes images, and --out - only rows. Name a folder.")


def segment(source: str, load: Callable[[], Segmenter], options: dict[str, Any]) -> RunResult:
    """Run a segmenter over `source` as the options say, and tell on stderr how it went."""
    from visionkit.pipeline.step_segment import SegmentStep

    return run_steps(source, [SegmentStep(load, options)], options, task="segment")


def load_model(options: dict[str, Any]) -> Segmenter:
    """The segmenter that the options name."""
    from visionkit.pipeline.step_segment import segmenter_of

    return segmenter_of(options, CliTelling())
