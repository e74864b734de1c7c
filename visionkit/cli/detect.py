"""`visionkit detect`: which objects are in images or in a video, and where."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from visionkit.cli.closing import closing_lines, show
from visionkit.cli.options import (
    LINE,
    SIZE,
    STDOUT,
    ZONE,
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
    from visionkit.pipeline import DetectStage, Item, RunResult
    from visionkit.tasks import Associator, CountPlan, Detector

__all__ = ["command", "count_options", "detect", "detector_options", "load_model", "plan_of"]

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
        click.option("--trust-model", is_flag=True, help="Of a model file: it may run code (a SavedModel can)."),
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
        UsageError: `track-needed`, `line-too-short`, `zone-too-small`, `tracker-missing`, `format-unfit`.
    """
    plan_of(options)
    if options["lines"] and not options["track"]:
        raise UsageError("track-needed", "--line counts objects, not boxes: give --track with it.")
    if options["tracker"] and not options["track"]:
        raise UsageError("track-needed", "--tracker is about numbers over time: give --track with it.")
    if options["track"]:
        associator(options)
    writing_of({**options, "out": options["out"] if options["out"] == STDOUT else None}, boxes=True)


def detect(source: str, load: Callable[[], Detector], options: dict[str, Any], *, task: str = "detect") -> RunResult:
    """Run a detector over `source` as the options say, and tell on stderr how it went."""
    from visionkit.draw import DetectionDrawer
    from visionkit.pipeline import DetectStage, run

    plan = plan_of(options)
    stage = DetectStage(
        load, associate=associator(options) if options["track"] else None, count=plan, batch=options["batch"]
    )
    drawer = DetectionDrawer(lines=plan.lines, zones=plan.zones)
    seen_in: Counter[str] = Counter()
    writing = writing_of(options, boxes=True)

    def watch(item: Item) -> bool:
        seen_in.update(_present(item, stage))
        return not options["show"] or show(item)

    seen = options["show"] or (writing.video and writing.rows is None)
    result = run(
        source,
        [stage],
        task=task,
        reading=reading_of(options),
        writing=writing,
        draw=(lambda item: _draw(item, stage, drawer)) if seen else None,
        watch=watch,
        command=["visionkit", *sys.argv[1:]],
    )
    told = ", ".join(f"{name} in {count}" for name, count in seen_in.most_common(3))
    for line in [*closing_lines(result, result.counts["rows"], f"most often {told or 'nothing'}"), *_counted(stage)]:
        click.echo(clean(line), err=True)
    return result


def load_model(options: dict[str, Any]) -> Detector:
    """The detector that the options name."""
    from visionkit.cli.download import DownloadBar, announce
    from visionkit.tasks import load_detector
    from visionkit.tasks.load_classify import is_model_file
    from visionkit.tasks.load_detect import default_detector

    name = options["model"] or default_detector()
    how: dict[str, Any] = {key: options[key] for key in ("runtime", "precision", "threads")}
    how |= {key: options[key] for key in ("conf", "iou", "classes", "max_det") if options[key] is not None}
    if is_model_file(name):
        _refuse(options, ("imgsz", "weights", "iou"), "a model file has its own")
        if options["batch"] != 1:
            raise UsageError("option-unfit", "--batch does not go with this model: a model file takes one image.")
        how |= {key: options[key] for key in ("labels", "preset") if options[key] is not None}
        return load_detector(name, trust=options["trust_model"], **how)
    _refuse(options, ("labels", "preset"), "a model card says it")
    how |= {"instances": 1 if options["threads"] else None, "batch": options["batch"], "weights": options["weights"]}
    with DownloadBar(str(name)) as bar:
        return load_detector(
            name,
            size_hw=image_size(options["imgsz"]),
            on_compile=_tell_compiling,
            notice=announce,
            progress=bar,
            **how,
        )


def plan_of(options: dict[str, Any]) -> CountPlan:
    """The lines and zones that the options name."""
    from visionkit.tasks import CountPlan

    return CountPlan(tuple(options["lines"]), tuple(options["zones"]), options["line_anchor"], options["zone_anchor"])


def associator(options: dict[str, Any]) -> Associator:
    """What gives numbers, as the options say.

    Raises:
        UsageError: `tracker-missing`.
    """
    from visionkit.tasks import AssociationOptions, make_associator

    conf = 0.25 if options["conf"] is None else options["conf"]
    kind: Any = options["tracker"] or "auto"
    try:
        return make_associator(kind, AssociationOptions(conf=conf, low=min(0.1, conf)))
    except ImportError:
        raise UsageError(
            "tracker-missing",
            f"--tracker {kind} needs the package `trackers`: pip install 'visionkit[mot]', or leave --tracker out.",
        ) from None


def _refuse(options: dict[str, Any], names: tuple[str, ...], why: str) -> None:
    for name in names:
        if options[name] is not None:
            raise UsageError("option-unfit", f"--{name} does not go with this model: {why}. Leave it out.")


def _tell_compiling() -> None:
    click.echo("Compiling the network and timing the runtimes of this machine: some seconds, once a size.", err=True)


def _draw(item: Item, stage: DetectStage, drawer: Any) -> None:
    if stage.name in item.results:
        drawer(item.frame.image, item.results[stage.name], stage.class_names, item.results.get("counts"))


def _present(item: Item, stage: DetectStage) -> list[str]:
    """Names of the classes found in a frame, for the closing line."""
    from visionkit.io.results import class_name

    found = item.results.get(stage.name)
    if found is None:
        return ["failed"]
    return [class_name(class_id, stage.class_names) for class_id in sorted(set(found.class_id.tolist()))]


def _counted(stage: DetectStage) -> list[str]:
    """Lines about what was counted."""
    return [] if stage.counts is None else count_lines(stage.counts.summary(stage.class_names))


def count_lines(summary: dict[str, Any]) -> list[str]:
    """What was counted, a line each."""
    lines = [
        f"Line {_told(one['line'])}: "
        + ", ".join(f"{one[way]} {way}{_by(one[f'{way}_by_class'])}" for way in ("in", "out"))
        for one in summary["lines"]
    ]
    lines += [
        f"Zone {_told(one['zone'])}: {one['objects']} objects{_by(one['objects_by_class'])}, "
        f"at most {one['most_at_once']} at once"
        for one in summary["zones"]
    ]
    return lines


def _told(numbers: list[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


def _by(counts: dict[str, int]) -> str:
    return f" ({', '.join(f'{count} {name}' for name, count in counts.items())})" if counts else ""
