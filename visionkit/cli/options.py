"""Options that several commands share, and what is checked about them before anything is opened."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

import click

from visionkit.errors import OutputError, UsageError

__all__ = [
    "BOX",
    "CLASSES",
    "LINE",
    "ROW_FORMATS",
    "SIZE",
    "STDOUT",
    "ZONE",
    "check_source",
    "classifier_options",
    "image_size",
    "model_options",
    "need_display",
    "output_options",
    "reading_of",
    "source_options",
    "stdout_stream",
    "writing_of",
]

F = TypeVar("F", bound=Callable[..., Any])
STDOUT = "-"
LINE_FORMATS = ("jsonl", "csv", "mot")
ALL_FORMATS = (*LINE_FORMATS, "coco", "voc", "yolo")


class BoxType(click.ParamType):
    """`X,Y,W,H` in pixels, as float xyxy (4,)."""

    name = "X,Y,W,H"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float, float, float]:
        """The box as (x1, y1, x2, y2). Raises UsageError `bad-box`."""
        if isinstance(value, tuple):
            return value
        parts = [part for part in re.split(r"[,\s]+", str(value).strip()) if part]
        try:
            numbers = [float(part) for part in parts]
        except ValueError:
            raise _bad_box(value, "which are not four numbers") from None
        if len(numbers) != 4:
            raise _bad_box(value, f"{len(numbers)} number{'s' * (len(numbers) != 1)} instead of four")
        if not all(math.isfinite(number) for number in numbers):
            raise _bad_box(value, "with a number that is not finite")
        x, y, width, height = numbers
        if width <= 0 or height <= 0:
            raise _bad_box(value, f"a width of {width:g} and a height of {height:g}")
        return x, y, x + width, y + height


class NumbersType(click.ParamType):
    """Whole numbers of at least 0 with commas between them, as a tuple."""

    name = "N,…"

    def __init__(self, most: int | None = None, least: int = 0) -> None:
        self.most, self.least = most, least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The numbers in the order given."""
        if isinstance(value, tuple):
            return value
        parts = [part for part in re.split(r"[,\s]+", str(value).strip()) if part]
        numbers = tuple(int(part) for part in parts if re.fullmatch(r"\d{1,9}", part))
        if (
            len(numbers) < len(parts)
            or not parts
            or (self.most and len(parts) > self.most)
            or min(numbers) < self.least
        ):
            count = f"up to {self.most} whole numbers" if self.most else "whole numbers"
            self.fail(f"expected {count} of at least {self.least} with commas between them. Received: {value!r}.")
        return numbers


class FormatsType(click.ParamType):
    """Names of formats with commas between them, as a tuple."""

    name = "F,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """The names, each once."""
        if isinstance(value, tuple):
            return value
        names = tuple(dict.fromkeys(part for part in re.split(r"[,\s]+", str(value).strip().lower()) if part))
        unknown = [name for name in names if name not in ALL_FORMATS]
        if unknown or not names:
            self.fail(f"expected some of {', '.join(ALL_FORMATS)} with commas between them. Received: {value!r}.")
        return names


class PointsType(click.ParamType):
    """`X1,Y1,X2,Y2,…` in pixels, as a tuple of points."""

    name = "X,Y,…"

    def __init__(self, word: str, least: int, most: int | None = None) -> None:
        self.word, self.least, self.most = word, least, most

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[float, float], ...]:
        """The points in the order given. Raises UsageError `bad-line` or `bad-zone`."""
        if isinstance(value, tuple):
            return value
        parts = [part for part in re.split(r"[,;\s]+", str(value).strip()) if part]
        try:
            numbers = [float(part) for part in parts]
        except ValueError:
            numbers = []
        count = len(numbers) // 2
        if (
            not numbers
            or len(numbers) % 2
            or not all(map(math.isfinite, numbers))
            or count < self.least
            or (self.most is not None and count > self.most)
        ):
            wanted = "two points, X1,Y1,X2,Y2" if self.most == 2 else f"at least {self.least} points, X,Y,X,Y,…"
            raise UsageError(
                f"bad-{self.word}", f"--{self.word} expected {wanted} in pixels. Received: {str(value)!r}."
            )
        return tuple((numbers[2 * place], numbers[2 * place + 1]) for place in range(count))


BOX = BoxType()
LINE, ZONE = PointsType("line", 2, 2), PointsType("zone", 3)
ROW_FORMATS = FormatsType()
CLASSES = NumbersType()
SIZE = NumbersType(most=2, least=1)


def _bad_box(value: object, why: str) -> UsageError:
    return UsageError(
        "bad-box",
        f"--box expected X,Y,W,H in pixels: left edge, top edge, width and height, both sizes above 0 "
        f"(--box 300,120,80,60). Received: {str(value)!r}, {why}.",
    )


def _together(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def source_options(function: F) -> F:
    """SOURCE and how it is read: range, stride, reader, limit."""
    return _together(
        click.argument("source"),
        click.option("--start", "start_s", type=float, metavar="S", help="Begin at this second of the video."),
        click.option("--end", "end_s", type=float, metavar="S", help="End before this second of the video."),
        click.option("--vid-stride", type=click.IntRange(min=1), default=1, metavar="N", help="Take every N-th frame."),
        click.option(
            "--backend",
            type=click.Choice(["auto", "opencv", "pyav"]),
            default="auto",
            show_default=True,
            help="Who decodes videos.",
        ),
        click.option(
            "--max-pixels",
            type=click.IntRange(min=1),
            default=100_000_000,
            metavar="N",
            help="Refuse larger frames before they are decoded.  [default: 100 million]",
        ),
    )(function)


def output_options(function: F) -> F:
    """Where results go and in which form."""
    return _together(
        click.option("--out", metavar="DIR", help="Folder for the results; - writes the rows to stdout, nothing else."),
        click.option("--overwrite", is_flag=True, help="Replace the results of a finished run in DIR."),
        click.option("--save-video/--no-video", "video", default=True, help="Write the annotated video, or not."),
        click.option("--codec", default="auto", show_default=True, help="h264, h265, vp9, av1, mpeg4 or mjpeg."),
        click.option(
            "--format",
            "formats",
            type=ROW_FORMATS,
            default="jsonl",
            show_default=True,
            metavar="F,…",
            help="Of the rows: jsonl, csv, mot; of detections also coco, voc, yolo. A folder always has jsonl.",
        ),
        click.option("--show", is_flag=True, help="Show the frames in a window; q ends the run."),
    )(function)


def model_options(function: F) -> F:
    """Which model, and how it is run."""
    return _together(
        click.option("--model", metavar="NAME", help="A model card's name, the folder of one, or a model file."),
        click.option("--trust-model", is_flag=True, help="Of a model file: it may run code (a SavedModel can)."),
        click.option("--runtime", default="auto", show_default=True, help="auto measures and takes the fastest."),
        click.option(
            "--precision",
            type=click.Choice(["float32", "bfloat16", "float16", "int8"]),
            default="float32",
            show_default=True,
            help="Of the network's arithmetic.",
        ),
        click.option(
            "--threads",
            type=click.IntRange(min=1),
            metavar="N",
            help="Threads for the network.  [default: what is fastest beside the other stages]",
        ),
    )(function)


def classifier_options(function: F) -> F:
    """How a classifier sees images, and what must be told of a model file."""
    return _together(
        click.option("--imgsz", type=SIZE, metavar="N|H,W", help="Size of the network's input.  [default: the card's]"),
        click.option("--labels", metavar="FILE", help="Of a model file: class names, one a line."),
        click.option(
            "--preset",
            type=click.Choice(["torch", "tf", "caffe", "unit", "raw"]),
            help="Of a model file: how levels are changed for it.  [default: raw, 0 to 255]",
        ),
        click.option(
            "--resize",
            type=click.Choice(["stretch", "letterbox", "shortest_side"]),
            help="Of a model file: how images are made to fit.  [default: stretch]",
        ),
    )(function)


def image_size(numbers: tuple[int, ...] | None) -> tuple[int, int] | None:
    """Height and width that `--imgsz` asks for: one number is both."""
    return None if numbers is None else (numbers[0], numbers[-1])


def reading_of(options: dict[str, Any]) -> Any:
    """The `Reading` that the options of `source_options` ask for."""
    from visionkit.pipeline import Reading

    return Reading(
        start_s=options["start_s"],
        end_s=options["end_s"],
        stride=options["vid_stride"],
        backend=options["backend"],
        max_pixels=options["max_pixels"],
    )


def writing_of(options: dict[str, Any], *, boxes: bool = False) -> Any:
    """The `Writing` that the options of `output_options` ask for; `boxes` says that the rows hold detections.

    Raises:
        UsageError: `format-unfit`.
    """
    from visionkit.pipeline import Writing

    to_stdout = options["out"] == STDOUT
    formats = options.get("formats", ("jsonl",))
    if to_stdout and (len(formats) > 1 or formats[0] not in LINE_FORMATS):
        raise UsageError(
            "format-unfit",
            f"--out - writes one format of lines: {', '.join(LINE_FORMATS)}. Received: {','.join(formats)}.",
        )
    if not boxes and (other := [name for name in formats if name not in LINE_FORMATS]):
        raise UsageError(
            "format-unfit",
            f"--format {other[0]} is for detections; this command writes {', '.join(LINE_FORMATS)}.",
        )
    return Writing(
        out=None if to_stdout else options["out"],
        rows=stdout_stream() if to_stdout else None,
        overwrite=options["overwrite"],
        video=options["video"],
        codec=options["codec"],
        formats=formats,
    )


def stdout_stream() -> BinaryIO:
    """Stdout for bytes. Raises OutputError `stdout-closed`."""
    if sys.stdout is None:
        raise OutputError("stdout-closed", "The rows go to stdout, and stdout is closed. Open it, or redirect it.")
    return sys.stdout.buffer


def check_source(source: str) -> None:
    """Refuse live sources, which this version does not read; the address may hold a password and is not repeated.

    Raises:
        UsageError: `source-unsupported`.
    """
    if os.path.lexists(source):
        return
    address = re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", source)
    what = f"a {address.group()} address" if address else "standard input" if source == "-" else None
    if what is None and re.fullmatch(r"-?\d{1,3}", source):
        what = "a camera's number"
    if what is not None:
        raise UsageError(
            "source-unsupported", f"SOURCE is {what}; expected a video file, an image, a folder or a glob of images."
        )


def need_display(option: str) -> None:
    """Refuse an option that opens a window where there is none: OpenCV would abort the process.

    Raises:
        UsageError: `no-display`.
    """
    import cv2

    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UsageError("no-display", f"{option} opens a window, and there is no display (DISPLAY is not set).")
    if re.search(r"GUI:\s+NONE", cv2.getBuildInformation()):
        raise UsageError(
            "no-display",
            f"{option} opens a window, and this OpenCV was built without windows: install opencv-python in place of "
            "opencv-python-headless.",
        )
