"""`visionkit train detect`: a detector of your own, from images and boxes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visionkit.cli import train_options as option
from visionkit.cli.text import examples
from visionkit.cli.train_running import made_folder, run_training
from visionkit.errors import InputError

if TYPE_CHECKING:
    from visionkit.train.detect import DetectPlan

__all__ = ["detect"]

EPOCH = "loss {loss:.4f}  val loss {val_loss:.4f}  val mAP50 {val_map50:.3f}"


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
@option.OUT
@click.option("--images", metavar="DIR", help="Where the images lie, if not where the annotations say.")
@click.option(
    "--layout", type=click.Choice(["voc", "coco", "yolo", "openimages"]), help="Of --data.  [default: what fits]"
)
@click.option("--network", metavar="NAME", help="A network of visionkit.nets.  [default: ssdlite, or the card's]")
@option.ARGUMENTS
@click.option(
    "--from",
    "--model",
    "source",
    metavar="CARD",
    help="Start from this card's weights, in every layer whose shape is the same.",
)
@option.count("--epochs", 60, "Rounds of training.")
@option.count("--repeats", 1, "Views of each image in an epoch.")
@option.count("--batch", 8, "Views in a batch.")
@click.option(
    "--imgsz", "size_hw", type=option.SizeType(), help="Size of the network's input.  [default: 320, or the card's]"
)
@option.RESIZE
@option.SEED
@option.rate("1.5e-3")
@click.option("--schedule", type=click.Choice(["cosine", "poly"]), default="cosine", show_default=True)
@click.option(
    "--average",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Keep a running mean of the weights, this much of the old one in each step.",
)
@option.PATIENCE
@option.val("Fraction that chooses the best epoch, where the data is not split itself.")
@option.augment("views")
@click.option(
    "--flip", type=click.Choice(["none", "horizontal", "both"]), default="horizontal", show_default=True, help="Mirror."
)
@click.option("--turns/--no-turns", default=False, show_default=True, help="Turn views by quarters.")
@click.option(
    "--mosaic", type=click.FloatRange(0, 1), default=0.3, show_default=True, help="Fraction of views of four images."
)
@option.count("--workers", 1, "Threads that change views.")
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
    from visionkit.cli.train_detect_finish import finish
    from visionkit.train.detect import train_detector

    return run_training(train_detector, _plan(Path(data), folder, given), EPOCH, finish)


def _plan(data: Path, out: Path, given: dict[str, Any]) -> DetectPlan:
    from visionkit.train.detect import DetectPlan
    from visionkit.train.detect_augment import DetectAugmentation

    options = option.fit_options(given, 1.5e-3, smoothing=0.0)
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
