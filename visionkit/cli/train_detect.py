"""`visionkit train detect`: a detector of your own, from images and boxes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visionkit.cli.text import examples
from visionkit.cli.train_options import ArgumentType, SizeType, made_folder, tell, tell_problems
from visionkit.errors import InputError

if TYPE_CHECKING:
    from visionkit.train.detect import DetectPlan

__all__ = ["detect"]


@click.command(
    epilog=examples(
        "visionkit train detect --data VOC/ --out runs/my_detector",
        "visionkit train detect --data coco/annotations/instances_train.json --images coco/train/ --out runs/mine",
        "visionkit train detect --data cells/ --arg backbone=small --arg first_stride=8 --imgsz 240,320 --flip both "
        "--turns --out runs/cells",
        "visionkit eval detect --model runs/my_detector --data VOC/ --part test",
    )
)
@click.option("--data", required=True, metavar="PATH", help="A folder of boxes and images, or a COCO file; see below.")
@click.option(
    "--out", required=True, metavar="DIR", help="Folder of the new model; an unfinished training there goes on."
)
@click.option("--images", metavar="DIR", help="Where the images lie, if not where the annotations say.")
@click.option(
    "--layout", type=click.Choice(["voc", "coco", "yolo", "openimages"]), help="Of --data.  [default: what fits]"
)
@click.option("--network", metavar="NAME", help="A network of visionkit.nets.  [default: ssdlite, or the card's]")
@click.option("--arg", "args", type=ArgumentType(), multiple=True, help="An argument of the network; repeatable.")
@click.option(
    "--from",
    "--model",
    "source",
    metavar="CARD",
    help="Start from this card's weights, in every layer whose shape is the same.",
)
@click.option("--epochs", type=click.IntRange(min=1), default=60, show_default=True, help="Rounds of training.")
@click.option(
    "--repeats", type=click.IntRange(min=1), default=1, show_default=True, help="Views of each image in an epoch."
)
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True, help="Views in a batch.")
@click.option("--imgsz", "size_hw", type=SizeType(), help="Size of the network's input.  [default: 320, or the card's]")
@click.option("--resize", type=click.Choice(["stretch", "letterbox"]), help="How images get that size.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights, split, order and augmentation.")
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    help="At its highest.  [default: 1.5e-3; --from 5e-4]",
)
@click.option("--schedule", type=click.Choice(["cosine", "poly"]), default="cosine", show_default=True)
@click.option(
    "--average",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Keep a running mean of the weights, this much of the old one in each step.",
)
@click.option(
    "--patience", type=click.IntRange(min=0), default=0, metavar="N", help="Stop after N epochs without gain."
)
@click.option(
    "--val",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.2,
    show_default=True,
    help="Fraction that chooses the best epoch, where the data is not split itself.",
)
@click.option(
    "--augment", type=click.FloatRange(0, 2), default=1.0, show_default=True, help="How strongly views are changed."
)
@click.option(
    "--flip", type=click.Choice(["none", "horizontal", "both"]), default="horizontal", show_default=True, help="Mirror."
)
@click.option("--turns/--no-turns", default=False, show_default=True, help="Turn views by quarters.")
@click.option(
    "--mosaic", type=click.FloatRange(0, 1), default=0.3, show_default=True, help="Fraction of views of four images."
)
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Threads that change views.")
def detect(data: str, out: str, **given: Any) -> int:
    """Train a detector on images with boxes, from scratch or from a card's weights.

    PATH of --data is a folder of Pascal VOC (Annotations/*.xml, JPEGImages/, ImageSets/Main/*.txt), of YOLO (data.yaml
    or classes.txt, labels/ beside images/), a COCO .json or a folder with annotations/*.json, or an OpenImages .csv.
    The best epoch is chosen on the part `val`; the part `test` is not touched. What is wrong with the data is told by
    name and left out.

    DIR of --out becomes a model that --model takes, with a report.html. Runs on the Keras backend that KERAS_BACKEND
    names, in mixed precision where there is a GPU. Ctrl-C saves; the same command goes on.
    """
    if not Path(data).exists():
        raise InputError("input-missing", f"{data} does not exist. --data takes a folder or a file of annotations.")
    folder = made_folder(out)
    from visionkit.runtime.quiet import import_keras

    import_keras()
    from visionkit.pipeline.signals import Interrupts
    from visionkit.train.detect import train_detector

    plan = _plan(Path(data), folder, given)
    stop: list[bool] = []

    def report(row: dict[str, Any]) -> None:
        tell(
            f"epoch {row['epoch']}/{plan.options.epochs}  loss {row['loss']:.4f}  val loss {row['val_loss']:.4f}  "
            f"val mAP50 {row['val_map50']:.3f}  {row['seconds']:.1f} s"
        )

    with Interrupts(lambda: stop.append(True)) as interrupts:
        training = train_detector(plan, report=report, tell=tell, should_stop=lambda: bool(stop))
    tell_problems(training.problems)
    if training.result.ended == "interrupted":
        tell(f"visionkit: error[interrupted]: Stopped after step {training.result.step}; the same command goes on.")
        return interrupts.exit_code or 130
    from visionkit.cli.train_detect_finish import finish

    finish(plan, training)
    return 0


def _plan(data: Path, out: Path, given: dict[str, Any]) -> DetectPlan:
    from visionkit.train.detect import DetectPlan
    from visionkit.train.detect_augment import DetectAugmentation
    from visionkit.train.fit import FitOptions

    rate = given.pop("learning_rate") or (5e-4 if given["source"] else 1.5e-3)
    options = FitOptions(
        epochs=given.pop("epochs"),
        learning_rate=rate,
        seed=given.pop("seed"),
        patience=given.pop("patience"),
        schedule=given.pop("schedule"),
        average=given.pop("average"),
        smoothing=0.0,
    )
    strength, flip = given.pop("augment"), given.pop("flip")
    change = DetectAugmentation(strength=strength, flip=flip, turns=given.pop("turns"), mosaic=given.pop("mosaic"))
    images = given.pop("images")
    return DetectPlan(
        data,
        out,
        images=None if images is None else Path(images),
        args=dict(given.pop("args")),
        augmentation=change,
        options=options,
        **given,
    )
