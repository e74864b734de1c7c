"""`visionkit classify`: what is in images or in a video."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from visionkit.cli import classify_dense as dense
from visionkit.cli.closing import closing_lines, show
from visionkit.cli.options import (
    CLASSES,
    check_source,
    classifier_options,
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
    from visionkit.pipeline import Item, RunResult
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
    from visionkit.pipeline import SMOOTH_S, ClassifyStage, run

    smooth_s = SMOOTH_S if options["smooth_s"] is None else options["smooth_s"]
    stage = ClassifyStage(load, batch=options["batch"], smooth_s=smooth_s)
    best: Counter[str] = Counter()
    writing = writing_of(options)

    def watch(item: Item) -> bool:
        best.update(_best(item, stage.class_names))
        return not options["show"] or show(item)

    seen = options["show"] or (writing.video and writing.rows is None)
    result = run(
        source,
        [stage],
        task="classify",
        reading=reading_of(options),
        writing=writing,
        draw=(lambda item: _draw(item, stage)) if seen else None,
        watch=watch,
        command=["visionkit", *sys.argv[1:]],
    )
    for line in summary(result, best):
        click.echo(clean(line), err=True)
    return result


def load_model(options: dict[str, Any]) -> Classifier:
    """The classifier that the options name."""
    from visionkit.cli.download import DownloadBar, announce
    from visionkit.tasks import load_classifier
    from visionkit.tasks.load_classify import DEFAULT_CLASSIFIER, is_model_file

    name = options["model"] or DEFAULT_CLASSIFIER
    how: dict[str, Any] = {key: options[key] for key in ("runtime", "precision", "batch", "topk", "conf", "classes")}
    how |= {"threads": options["threads"], "instances": 1 if options["threads"] else None}
    if is_model_file(name):
        _refuse(options, ("imgsz",), "a model file has its own size")
        if options["show_transform"]:
            raise UsageError(
                "option-unfit", "--show-transform needs a model card; a file does not tell its transformer."
            )
        how |= {key: options[key] for key in ("labels", "preset", "resize") if options[key] is not None}
        return load_classifier(name, trust=options["trust_model"], **how)
    _refuse(options, ("labels", "preset", "resize"), "a model card says it")
    how |= {"size_hw": image_size(options["imgsz"]), "transform": options["show_transform"]}
    with DownloadBar(str(name)) as bar:
        return load_classifier(name, on_compile=_tell_compiling, notice=announce, progress=bar, **how)


def _tell_compiling() -> None:
    click.echo("Compiling the network and timing the runtimes of this machine: some seconds, once.", err=True)


def _draw(item: Item, stage: Any) -> None:
    from visionkit.draw import draw_classes, draw_regions

    if regions := item.results.get("transform"):
        draw_regions(item.frame.image, regions, in_place=True)
    if stage.name in item.results:
        draw_classes(item.frame.image, item.results[stage.name], stage.class_names, in_place=True)


def _best(item: Item, names: Any) -> list[str]:
    """The likeliest class of a frame, for the closing lines; of each head where there are several."""
    from visionkit.io.results import result_fields

    if "classify" not in item.results:
        return ["failed"]
    fields = result_fields(item.results["classify"], names)
    if "heads" in fields:
        return [f"{head}: {rows[0]['class_name']}" for head, rows in fields["heads"].items() if rows]
    return [row["class_name"] for row in fields.get("classes", [])[:1]] or ["none"]


def _refuse(options: dict[str, Any], names: tuple[str, ...], why: str) -> None:
    """Refuse options that have no meaning for this kind of model."""
    for name in names:
        if options[name] is not None:
            raise UsageError("option-unfit", f"--{name} does not go with this model: {why}. Leave it out.")


def summary(result: RunResult, best: Counter[str]) -> list[str]:
    """The closing lines of a run."""
    frames = result.counts["rows"]
    told = ", ".join(f"{name} in {count}" for name, count in best.most_common(3))
    return closing_lines(result, frames, f"likeliest {told or 'nothing'}")
