"""`visionkit train segment`: a segmentation network of your own, from a folder of images and masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visionkit.cli.text import examples
from visionkit.cli.train_options import ArgumentType, SizeType, made_folder, tell, tell_problems
from visionkit.errors import InputError

if TYPE_CHECKING:
    from visionkit.train.segment import SegmentPlan

__all__ = ["segment"]


@click.command(
    epilog=examples(
        "visionkit train segment --data photos/ --out runs/my_segmenter",
        "visionkit train segment --data CamVid/ --labels camvid --imgsz 360,480 --crop 240,320 --out runs/camvid",
        "visionkit train segment --data VOC2012/ --labels voc-21 --from lraspp_mobilenet_v3_large --out runs/voc",
        "visionkit eval segment --model runs/my_segmenter --data photos/ --crf --trimap",
    )
)
@click.option(
    "--data", required=True, metavar="DIR", help="images/ beside masks/, CamVid's folders or VOC's; see below."
)
@click.option(
    "--out", required=True, metavar="DIR", help="Folder of the new model; an unfinished training there goes on."
)
@click.option("--labels", metavar="FILE|NAME", help="Class names, one a line; or camvid, voc-21.  [default: numbers]")
@click.option(
    "--void", type=click.IntRange(0, 255), multiple=True, help='Number that means "no class"; 255 always does.'
)
@click.option("--network", metavar="NAME", help="A network of visionkit.nets.  [default: unet, or the card's]")
@click.option("--arg", "args", type=ArgumentType(), multiple=True, help="An argument of the network; repeatable.")
@click.option(
    "--from", "source", metavar="CARD", help="Start from this card's weights, in every layer whose shape is the same."
)
@click.option("--epochs", type=click.IntRange(min=1), default=80, show_default=True, help="Passes over the images.")
@click.option("--batch", type=click.IntRange(min=1), default=4, show_default=True, help="Views in a batch.")
@click.option("--imgsz", "size_hw", type=SizeType(), help="Size of whole images to the network.  [default: up to 256]")
@click.option("--crop", "crop_hw", type=SizeType(), help="Size of the views in training.  [default: --imgsz]")
@click.option("--resize", type=click.Choice(["stretch", "letterbox"]), help="How images get that size.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights, split, order and augmentation.")
@click.option(
    "--learning-rate", type=click.FloatRange(min=0, min_open=True), help="At its highest.  [default: 2e-3; --from 5e-4]"
)
@click.option("--schedule", type=click.Choice(["poly", "cosine"]), default="poly", show_default=True)
@click.option(
    "--patience", type=click.IntRange(min=0), default=0, metavar="N", help="Stop after N epochs without gain."
)
@click.option(
    "--class-weights",
    "weighting",
    type=click.Choice(["sqrt", "median", "none"]),
    default="sqrt",
    show_default=True,
    help="median: the median frequency over a class's own; sqrt: the root of that.",
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
@click.option("--flip/--no-flip", default=True, show_default=True, help="Mirror half of the views.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Threads that change views.")
def segment(data: str, out: str, **given: Any) -> int:
    """Train a segmentation network on images and masks, from scratch or from a card's weights.

    A mask holds a class number in each pixel (grey PNG, or the indices of one with a palette) and has its image's name.
    DIR of --data is images/ beside masks/ (also inside of train/ and val/), or train/ beside trainannot/, or
    JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/. What does not fit together is told by name.

    DIR of --out becomes a model that --model takes, with a report.html. Runs on the Keras backend that KERAS_BACKEND
    names. Ctrl-C saves; the same command goes on.
    """
    if not Path(data).is_dir():
        raise InputError("input-missing", f"{data} is no folder. --data takes a folder of images and masks.")
    folder = made_folder(out)
    from visionkit.runtime.quiet import import_keras

    import_keras()
    from visionkit.pipeline.signals import Interrupts
    from visionkit.train.segment import train_segmenter

    plan = _plan(Path(data), folder, given)
    stop: list[bool] = []

    def report(row: dict[str, Any]) -> None:
        tell(
            f"epoch {row['epoch']}/{plan.options.epochs}  loss {row['loss']:.4f}  accuracy {row['accuracy']:.3f}  "
            f"val loss {row['val_loss']:.4f}  val accuracy {row['val_accuracy']:.3f}  "
            f"val mean IU {row['val_mean_iu']:.3f}  {row['seconds']:.1f} s"
        )

    with Interrupts(lambda: stop.append(True)) as interrupts:
        training = train_segmenter(plan, report=report, tell=tell, should_stop=lambda: bool(stop))
    tell_problems(training.problems)
    if training.result.ended == "interrupted":
        tell(f"visionkit: error[interrupted]: Stopped after step {training.result.step}; the same command goes on.")
        return interrupts.exit_code or 130
    from visionkit.cli.train_segment_finish import finish

    finish(plan, training)
    return 0


def _plan(data: Path, out: Path, given: dict[str, Any]) -> SegmentPlan:
    from visionkit.train.fit import FitOptions
    from visionkit.train.segment import SegmentPlan
    from visionkit.train.segment_augment import SegmentAugmentation

    rate = given.pop("learning_rate") or (5e-4 if given["source"] else 2e-3)
    options = FitOptions(
        epochs=given.pop("epochs"),
        learning_rate=rate,
        seed=given.pop("seed"),
        patience=given.pop("patience"),
        schedule=given.pop("schedule"),
        smoothing=0.0,
    )
    change = SegmentAugmentation(strength=given.pop("augment"), flip=given.pop("flip"))
    return SegmentPlan(data, out, args=dict(given.pop("args")), augmentation=change, options=options, **given)
