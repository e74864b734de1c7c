"""`visionkit track`: follow one object through a video."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from visionkit.cli.closing import WINDOW
from visionkit.cli.options import (
    BOX,
    STDOUT,
    check_source,
    model_options,
    need_display,
    output_options,
    reading_of,
    source_options,
    writing_of,
)
from visionkit.cli.running import CliTelling, run_steps
from visionkit.cli.text import examples
from visionkit.errors import InputError, UsageError

if TYPE_CHECKING:
    from visionkit.pipeline import RunResult, Tracker

__all__ = ["command", "follow", "load_model"]


@click.command(
    epilog=examples(
        "visionkit track clip.mp4 --box 300,120,80,60",
        "visionkit track clip.mp4 --box 300,120,80,60 --start 2.5 --out runs/car --overwrite",
        "visionkit track frames/ --box 300,120,80,60 --no-video --out - | head -3",
    )
)
@source_options
@click.option("--box", "xyxy", type=BOX, help="The object in the first frame: left, top, width, height in pixels.")
@click.option("--select", is_flag=True, help="Draw the box on the first frame in a window.")
@model_options
@output_options
def command(source: str, xyxy: tuple[float, ...] | None, select: bool, **options: Any) -> int:
    """Follow one object through SOURCE, a video or a folder or glob of images in the order of their names.

    Without --box and --select every object that a detector finds is followed: --model then names a detector, and
    `visionkit detect --track` has more options.

    Writes a folder with results.jsonl (one row a frame: box, confidence, and whether the object is tracked,
    uncertain, lost or reacquired), the annotated video, and run.json.
    """
    check_source(source)
    _check_box_options(xyxy, select)
    if options["show"]:
        need_display("--show")
    return _track(source, xyxy, select, options)


def _check_box_options(xyxy: tuple[float, ...] | None, select: bool) -> None:
    if xyxy is not None and select:
        raise UsageError("box-and-select", "--box and --select both say where the object is: give one of them.")
    if select:
        need_display("--select")


def _track(source: str, xyxy: tuple[float, ...] | None, select: bool, options: dict[str, Any]) -> int:
    if xyxy is None and not select:
        return _every_detection(source, options)
    reading, writing = reading_of(options), writing_of(options)
    if xyxy is None:
        xyxy = _select_box(source, reading)
    how = {"reading": reading, "writing": writing, "show": options["show"]}
    return follow(source, xyxy, lambda: load_model(options), **how).exit_code


def _every_detection(source: str, options: dict[str, Any]) -> int:
    """`visionkit detect --track` with its defaults."""
    from visionkit.cli import detect

    with detect.command.make_context("detect", ["--track", "--", source]) as ctx:
        usual = {name: value for name, value in ctx.params.items() if name != "source"}
    chosen = {**usual, **options}
    return detect.detect(source, lambda: detect.load_model(chosen), chosen, task="track").exit_code


def follow(
    source: str, xyxy: tuple[float, ...], load: Callable[[], Tracker], *, show: bool = False, **how: Any
) -> RunResult:
    """Run a tracker over `source`, drawing what it finds, and tell on stderr how it went.

    `how` goes to `visionkit.pipeline.run`; `show` opens a window.
    """
    from visionkit.pipeline import Reading, Writing
    from visionkit.pipeline.step_track import TrackStep

    ends = {"reading": Reading(), "writing": Writing()}
    return run_steps(source, [TrackStep(load, xyxy)], {"show": show}, **{"task": "track", **ends, **how})


def load_model(options: dict[str, Any]) -> Tracker:
    """The tracker that the model options name."""
    from visionkit.pipeline.step_track import tracker_of

    encoding = options.get("video", True) and options.get("out") != STDOUT
    return tracker_of(options, CliTelling(), encoding=encoding)


def _select_box(source: str, reading: Any) -> tuple[float, ...]:
    import cv2

    with reading.open(source) as opened:
        first = next(iter(opened), None)
    if first is None:
        raise InputError("no-frames", f"{opened.info.name}: there is no frame in the range that was asked for.")
    click.echo("Draw a box around the object, then press Enter; c gives up.", err=True)
    x, y, width, height = cv2.selectROI(WINDOW, first.image, showCrosshair=False)
    cv2.destroyWindow(WINDOW)
    if not width or not height:
        raise UsageError("box-needed", "No box was drawn: draw one with the mouse, or give --box X,Y,W,H.")
    return float(x), float(y), float(x + width), float(y + height)
