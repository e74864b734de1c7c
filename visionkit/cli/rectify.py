"""`visionkit rectify`: a region that the camera saw at a slant, as an upright video or image."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from visionkit.cli.closing import closing_lines, show
from visionkit.cli.options import (
    SIZE,
    check_source,
    image_size,
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
    from visionkit.pipeline import Item, RectifyStage, RunResult
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
@model_options
@output_options
def command(source: str, **options: Any) -> int:
    """Straighten a region of SOURCE: an image, a folder or glob of images, or a video.

    The region is given by --corners, clockwise from the crop's top left, or chosen in every frame by the spatial
    transformer of the classifier that --model names.

    Writes a folder with rectified.mp4, every crop at its frame's time (of images rectified/NAME.png), results.jsonl
    with the homography of each frame (3 x 3, from pixels of the crop to pixels of the frame; the centre of pixel i is i
    + 0.5), the source with the region drawn on it (not with --no-video), and run.json. Outside of the frame a crop is
    black. Corners belong to frames of the first one's size, and move with a frame that is larger or smaller.
    """
    check_source(source)
    check_rectify_options(options)
    if options["show"]:
        need_display("--show")
    return rectify(source, lambda: load_rectifier(options), options).exit_code


def check_rectify_options(options: dict[str, Any]) -> None:
    """Refuse no region, two regions, and what has no meaning with the one that is given.

    Raises:
        UsageError: `no-region`, `option-unfit`, `format-unfit`, `bad-corners`, `size-too-large`.
    """
    from visionkit.tasks.load_classify import is_model_file

    corners, model = options["corners"], options["model"]
    if (corners is None) == (model is None):
        raise UsageError(
            "no-region" if corners is None else "option-unfit",
            "The region comes from --corners X,Y,X,Y,X,Y,X,Y or from a --model with a spatial transformer: give one of "
            "them.",
        )
    if other := [name for name in options["formats"] if name != "jsonl"]:
        raise UsageError("format-unfit", f"--format {other[0]} is for objects; this command writes jsonl.")
    if model is not None and is_model_file(model):
        raise UsageError("option-unfit", f"--model expected a classifier's card. Received: {model!r}, a model file.")
    if corners is not None:
        for name, usual in (("runtime", "auto"), ("precision", "float32"), ("threads", None)):
            if options[name] != usual:
                raise UsageError("option-unfit", f"--{name} is about a model: --corners needs none. Leave it out.")
        load_rectifier(options)


def rectify(source: str, load: Callable[[], Rectifier], options: dict[str, Any]) -> RunResult:
    """Rectify `source` as the options say, and tell on stderr how it went."""
    from visionkit.pipeline import RectifiedSink, RectifyStage, run

    stage = RectifyStage(load() if options["corners"] is not None else load)
    writing, outside = writing_of(options), _Outside(stage)

    def watch(item: Item) -> bool:
        outside(item)
        return not options["show"] or _show(item, stage)

    result = run(
        source,
        [stage],
        task="rectify",
        reading=reading_of(options),
        writing=writing,
        draw=(lambda item: _draw(item, stage)) if writing.video and writing.rows is None else None,
        watch=watch,
        sinks=[RectifiedSink(stage, codec=options["codec"], end_s=options["end_s"])],
        command=["visionkit", *sys.argv[1:]],
    )
    height, width = stage.size_hw
    for line in [*closing_lines(result, result.counts["rows"], f"crops of {width} x {height}"), *outside.lines()]:
        click.echo(clean(line), err=True)
    return result


def load_rectifier(options: dict[str, Any]) -> Rectifier:
    """The rectifier that the options name."""
    size_hw = image_size(options["size"])
    if options["corners"] is not None:
        from visionkit.tasks import CornerRectifier

        return CornerRectifier(options["corners"], size_hw, antialias=options["antialias"])
    from visionkit.cli.download import DownloadBar, announce
    from visionkit.tasks import load_rectifier as load

    names = ("antialias", "runtime", "precision", "threads")
    how: dict[str, Any] = {name: options[name] for name in names}
    with DownloadBar(str(options["model"])) as bar:
        return load(options["model"], size_hw=size_hw, on_compile=_tell_compiling, notice=announce, progress=bar, **how)


class _Outside:
    """How much of a given region no frame shows, for one line at the end."""

    def __init__(self, stage: RectifyStage) -> None:
        self._stage = stage
        self._share: float | None = None

    def __call__(self, item: Item) -> None:
        from visionkit.tasks import CornerRectifier

        if self._share is None:
            rectifier = self._stage.rectifier
            fixed = isinstance(rectifier, CornerRectifier)
            self._share = rectifier.outside(item.frame.size_hw) if fixed else 0.0  # type: ignore[union-attr]

    def lines(self) -> list[str]:
        """A warning, or nothing."""
        if not self._share:
            return []
        told = f"{100 * self._share:.0f} %" if self._share >= 0.01 else "Less than 1 %"
        return [f"visionkit: warning: {told} of the region lies outside of the first frame and is black."]


def _draw(item: Item, stage: RectifyStage) -> None:
    from visionkit.draw import draw_regions

    if (found := item.results.get(stage.name)) is not None:
        draw_regions(item.frame.image, [found], inset=False, in_place=True)


def _show(item: Item, stage: RectifyStage) -> bool:
    from visionkit.pipeline.rectify import crop_item

    found = item.results.get(stage.name)
    return show(item if found is None else crop_item(item, found.image))


def _tell_compiling() -> None:
    click.echo("Compiling the network and timing the runtimes of this machine: some seconds, once.", err=True)


def _bad_corners(value: object, why: str) -> UsageError:
    return UsageError(
        "bad-corners",
        "--corners expected X,Y,X,Y,X,Y,X,Y in pixels: the region's top left, top right, bottom right and bottom left "
        f"corner (--corners 90,40,400,85,390,300,70,340). Received: {str(value)!r}, {why}.",
    )
