"""`visionkit classify`: what is in images or in a video."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from visionkit.cli import classify_dense as dense
from visionkit.cli.options import (
    CLASSES,
    check_source,
    classifier_options,
    model_options,
    need_display,
    output_options,
    source_options,
)
from visionkit.cli.running import CliTelling, run_steps
from visionkit.cli.text import examples

if TYPE_CHECKING:
    from visionkit.pipeline import RunResult
    from visionkit.tasks import Classifier

__all__ = ["command", "load_model"]


@click.command(
    epilog=examples(
        "visionkit classify photo.jpg",
        "visionkit classify 'photos/*.jpg' --topk 3 --no-video --out - | head -3",
        "visionkit classify clip.mp4 --model resnet50 --batch 8 --smooth 1",
        "visionkit classify clip.mp4 --dense --stride 16 --heat zebra",
        "visionkit classify photos/ --model runs/my_classifier --show-transform",
        "visionkit classify clip.mp4 --model mine.tflite --labels names.txt --preset unit",
    )
)
@source_options
@model_options
@classifier_options
@click.option("--topk", type=click.IntRange(min=1), default=5, show_default=True, help="Classes of each image.")
@click.option("--conf", type=click.FloatRange(0, 1), default=0.0, help="Only classes of this probability or more.")
@click.option("--classes", type=CLASSES, metavar="ID,…", help="Only these class ids.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Images in one pass.")
@click.option(
    "--smooth",
    "smooth_s",
    type=click.FloatRange(0, 3600),
    metavar="SECONDS",
    help="Of a video: time constant of the average over frames; 0 for none.  [default: 0.5]",
)
@dense.dense_options
@click.option(
    "--show-transform",
    is_flag=True,
    help="Of a network with a spatial transformer: draw the region that it looks at, and write it in the rows.",
)
@output_options
def command(source: str, **options: Any) -> int:
    """Classify SOURCE: an image, a folder or glob of images, or a video.

    Writes a folder with results.jsonl (one row an image or frame: the most likely classes, with probabilities), the
    images or the video with the classes drawn on them, and run.json. On a video the probabilities are averaged over
    time; images stand for themselves.

    With --dense the network is run over the whole frame and answers for every window of it; heatmaps/000012.png has one
    pixel a window, 255 times the probability of one class, and the classes of a frame are the means over its windows.
    Frames are run with a shorter side of at most 720 pixels, or of --imgsz.
    """
    check_source(source)
    if options["show"]:
        need_display("--show")
    dense.check_dense_options(options)
    if options["dense"]:
        return dense.classify_dense(source, lambda: dense.load_model(options), options).exit_code
    return classify(source, lambda: load_model(options), options).exit_code


def classify(source: str, load: Callable[[], Classifier], options: dict[str, Any]) -> RunResult:
    """Run a classifier over `source` as the options say, and tell on stderr how it went."""
    from visionkit.pipeline.step_classify import ClassifyStep

    return run_steps(source, [ClassifyStep(load, options)], options, task="classify")


def load_model(options: dict[str, Any]) -> Classifier:
    """The classifier that the options name."""
    from visionkit.pipeline.step_classify import classifier_of

    return classifier_of(options, CliTelling())
