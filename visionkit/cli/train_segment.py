"""`visionkit train segment`: a segmentation network of your own, from a folder of images and masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visionkit.cli import train_options as option
from visionkit.cli.text import examples
from visionkit.cli.train_running import made_folder, run_training
from visionkit.errors import InputError

if TYPE_CHECKING:
    from visionkit.train.segment import SegmentPlan

__all__ = ["segment"]

EPOCH = (
    "loss {loss:.4f}  accuracy {accuracy:.3f}  val loss {val_loss:.4f}  val accuracy {val_accuracy:.3f}  "
    "val mean IU {val_mean_iu:.3f}"
)


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
@option.OUT
@click.option("--labels", metavar="FILE|NAME", help="Class names, one a line; or camvid, voc-21.  [default: numbers]")
@click.option(
    "--void", type=click.IntRange(0, 255), multiple=True, help='Number that means "no class"; 255 always does.'
)
@click.option("--network", metavar="NAME", help="A network of visionkit.nets.  [default: unet, or the card's]")
@option.ARGUMENTS
@click.option(
    "--from", "source", metavar="CARD", help="Start from this card's weights, in every layer whose shape is the same."
)
@option.count("--epochs", 80, "Passes over the images.")
@option.count("--batch", 4, "Views in a batch.")
@click.option(
    "--imgsz", "size_hw", type=option.SizeType(), help="Size of whole images to the network.  [default: up to 256]"
)
@click.option("--crop", "crop_hw", type=option.SizeType(), help="Size of the views in training.  [default: --imgsz]")
@option.RESIZE
@option.SEED
@option.rate("2e-3")
@click.option("--schedule", type=click.Choice(["poly", "cosine"]), default="poly", show_default=True)
@option.PATIENCE
@click.option(
    "--class-weights",
    "weighting",
    type=click.Choice(["sqrt", "median", "none"]),
    default="sqrt",
    show_default=True,
    help="median: the median frequency over a class's own; sqrt: the root of that.",
)
@option.val("Fraction that chooses the best epoch, where the data is not split itself.")
@option.augment("views")
@click.option("--flip/--no-flip", default=True, show_default=True, help="Mirror half of the views.")
@option.count("--workers", 1, "Threads that change views.")
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
    from visionkit.cli.train_segment_finish import finish
    from visionkit.train.segment import train_segmenter

    return run_training(train_segmenter, _plan(Path(data), folder, given), EPOCH, finish)


def _plan(data: Path, out: Path, given: dict[str, Any]) -> SegmentPlan:
    from visionkit.train.segment import SegmentPlan
    from visionkit.train.segment_augment import SegmentAugmentation

    options = option.fit_options(given, 2e-3, smoothing=0.0)
    change = SegmentAugmentation(strength=given.pop("augment"), flip=given.pop("flip"))
    return SegmentPlan(data, out, args=dict(given.pop("args")), augmentation=change, options=options, **given)
