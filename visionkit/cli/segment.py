"""`visionkit segment`: the class of every pixel of images or of a video."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from visionkit.cli.closing import closing_lines, show
from visionkit.cli.options import (
    SIZE,
    STDOUT,
    check_source,
    model_options,
    need_display,
    output_options,
    reading_of,
    source_options,
    writing_of,
)
from visionkit.cli.text import clean, examples
from visionkit.errors import UsageError

if TYPE_CHECKING:
    from visionkit.pipeline import Item, RunResult, SegmentStage
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
FILE_OPTIONS = ("labels", "preset", "resize", "trust_model")


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
        click.option("--trust-model", is_flag=True, help="Of a model file: it may run code (a SavedModel can)."),
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
        "--crf", is_flag=True, help="Refine by a dense CRF: edges of classes move onto edges of colour."
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
    two million pixels at a smaller one. Its parameters have two names: the paper's, and pydensecrf's. On video each
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
        UsageError: `crf-needed`, `tta-needed`, `option-unfit`, `folder-needed`.
    """
    given = [name for name in (*_crf_names(), "crf_iterations", "crf_video") if options[name] is not None]
    if given and not options["crf"]:
        raise UsageError("crf-needed", f"--{given[0].replace('_', '-')} is about the CRF: give --crf with it.")
    if options["scales"] is not None and not options["tta"]:
        raise UsageError("tta-needed", "--scales is about looking several times: give --tta with it.")
    if options["native"] and options["imgsz"] is not None:
        raise UsageError("option-unfit", "--native and --imgsz both say the size of the input. Leave one out.")
    if options["imgsz"] is not None and min(options["imgsz"]) < 32:
        raise UsageError("size-too-small", f"--imgsz must be at least 32. Received: {options['imgsz']}.")
    side = (options["tile"] or 1024) // 32 * 32
    if options["overlap"] is not None and options["overlap"] > side - 32:
        raise UsageError(
            "overlap-too-large",
            f"--overlap must leave a tile of {side} pixels 32 of its own. Received: {options['overlap']}.",
        )
    if options["save_uncertain"] and options["out"] == STDOUT:
        raise UsageError("folder-needed", "--save-uncertain writes images, and --out - only rows. Name a folder.")


def segment(source: str, load: Callable[[], Segmenter], options: dict[str, Any]) -> RunResult:
    """Run a segmenter over `source` as the options say, and tell on stderr how it went."""
    from visionkit.pipeline import MaskSink, SegmentStage, UncertainSink, run

    entropy = bool(options["uncertainty"] or options["save_uncertain"])
    stage = SegmentStage(load, entropy=entropy, warm=options["crf_video"] is not False)
    sinks: list[Any] = [MaskSink(stage)]
    if options["save_uncertain"]:
        sinks.append(UncertainSink(options["save_uncertain"]))
    seen_in: Counter[str] = Counter()
    writing = writing_of(options)

    def watch(item: Item) -> bool:
        seen_in.update(_present(item, stage))
        return not options["show"] or show(item)

    seen = options["show"] or (writing.video and writing.rows is None)
    result = run(
        source,
        [stage],
        task="segment",
        reading=reading_of(options),
        writing=writing,
        draw=(lambda item: _draw(item, stage, uncertainty=options["uncertainty"])) if seen else None,
        watch=watch,
        sinks=sinks,
        command=["visionkit", *sys.argv[1:]],
    )
    told = ", ".join(f"{name} in {count}" for name, count in seen_in.most_common(3))
    for line in closing_lines(result, result.counts["rows"], f"most often {told or 'nothing'}"):
        click.echo(clean(line), err=True)
    return result


def load_model(options: dict[str, Any]) -> Segmenter:
    """The segmenter that the options name."""
    from visionkit.cli.download import DownloadBar, announce
    from visionkit.tasks import load_segmenter
    from visionkit.tasks.load_classify import is_model_file
    from visionkit.tasks.load_segment import default_segmenter

    name = options["model"] or default_segmenter()
    told = {key: options[key] for key in FILE_OPTIONS if options[key]}
    if told and not is_model_file(name):
        word = next(iter(told)).replace("_", "-")
        raise UsageError("option-unfit", f"--{word} is about a model file, and {name} is a card, which says it.")
    how: dict[str, Any] = {key: options[key] for key in ("runtime", "precision", "threads")}
    how["instances"] = 1 if options["threads"] else None
    how |= {key: options[key] for key in ("tile", "overlap", "scales") if options[key] is not None}
    if options["native"]:
        how["native"] = True
    if options["imgsz"] is not None:
        how |= {"short_side": options["imgsz"][0]} if len(options["imgsz"]) == 1 else {"size_hw": options["imgsz"]}
    if options["crf"]:
        how["crf"] = {key: options[key] for key in _crf_names() if options[key] is not None}
        if options["crf_iterations"] is not None:
            how["crf"]["iterations"] = options["crf_iterations"]
    how |= {"trust" if key == "trust_model" else key: value for key, value in told.items()}
    with DownloadBar(str(name)) as bar:
        segmenter = load_segmenter(
            name, tta=options["tta"], on_compile=_tell_compiling, notice=announce, progress=bar, **how
        )
    if segmenter.refiner is not None:
        segmenter.refiner.on_compile = _tell_compiling_crf
    return segmenter


def _crf_names() -> list[str]:
    return [name for name, *_ in CRF_NUMBERS]


def _tell_compiling() -> None:
    click.echo("Compiling the network and timing the runtimes of this machine: some seconds, once a size.", err=True)


def _tell_compiling_crf() -> None:
    click.echo("Compiling the CRF for this machine: some seconds, once.", err=True)


def _draw(item: Item, stage: SegmentStage, *, uncertainty: bool) -> None:
    from visionkit.draw import draw_segmentation, draw_uncertainty

    if uncertainty and "entropy" in item.results:
        draw_uncertainty(item.frame.image, item.results["entropy"], in_place=True)
    elif stage.name in item.results:
        found = item.results[stage.name]
        draw_segmentation(item.frame.image, found, stage.class_names, palette=stage.palette, in_place=True)


def _present(item: Item, stage: SegmentStage) -> list[str]:
    """Names of the classes of a frame other than background, for the closing line."""
    from visionkit.draw.segment import BACKGROUND_NAMES
    from visionkit.io.results import result_fields

    found = item.results.get(stage.name)
    if found is None:
        return ["failed"]
    areas = result_fields(found, stage.class_names)["area"]
    return [name for name in areas if name.strip().casefold() not in BACKGROUND_NAMES]
