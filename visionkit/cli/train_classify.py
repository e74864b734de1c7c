"""`visionkit train classify`: a classifier of your own, from a folder of class folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visionkit.cli import train_options as option
from visionkit.cli.text import examples
from visionkit.cli.train_running import made_folder, run_training
from visionkit.errors import InputError, UsageError

if TYPE_CHECKING:
    from visionkit.train.classify import ClassifyPlan

__all__ = ["classify"]

EPOCH = "loss {loss:.4f}  accuracy {accuracy:.3f}  val loss {val_loss:.4f}  val accuracy {val_accuracy:.3f}"


@click.command(
    epilog=examples(
        "visionkit train classify --data photos/ --out runs/my_classifier",
        "visionkit train classify --data photos/ --out runs/tuned --from mobilenet_v3_small --epochs 20",
        "visionkit eval classify --model runs/my_classifier --data more_photos/",
        "visionkit classify clip.mp4 --model runs/my_classifier",
    )
)
@click.option("--data", required=True, metavar="DIR", help="One folder of images a class; or train/, val/ of such.")
@option.OUT
@click.option("--network", metavar="NAME", help="A network of visionkit.nets, from scratch.  [default: resnet, small]")
@option.ARGUMENTS
@click.option(
    "--from", "source", metavar="CARD", help="Start from the weights of this card; only its last layer is new."
)
@click.option("--freeze", is_flag=True, help="With --from: let only the new last layer learn.")
@option.count("--epochs", 60, "Passes over the images.")
@option.count("--batch", 32, "Images in a batch.")
@click.option("--imgsz", "size_hw", type=option.SizeType(), help="Size the network sees.  [default: 96, or the card's]")
@click.option(
    "--resize",
    type=click.Choice(["stretch", "letterbox", "shortest_side"]),
    help="How images get that size.  [default: shortest_side, the central part]",
)
@option.SEED
@option.rate("2e-3")
@option.PATIENCE
@option.val("Fraction of each class that chooses the best epoch.")
@click.option(
    "--test",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Fraction held back altogether, for `visionkit eval classify --split … --part test`.",
)
@click.option("--split", metavar="FILE", help="Use this split.json in the place of --val and --test.")
@click.option(
    "--split-by",
    type=click.Choice(["random", "blocks"]),
    default="random",
    show_default=True,
    help="blocks: what has neighbouring file names, in any class, stays together.",
)
@option.augment("images")
@click.option(
    "--flip/--no-flip", default=False, help="Mirror half of the images; not for digits, letters, signs, hands."
)
@click.option(
    "--distort",
    type=click.IntRange(min=0),
    metavar="SEED",
    help="Turn, scale and shift all images at random, those to choose the epoch on by this seed.",
)
@option.count("--workers", 1, "Threads that change images.")
def classify(data: str, out: str, **given: Any) -> int:
    """Train a classifier on a folder of class folders, from scratch or from a card's weights.

    DIR becomes a model that --model takes, with a report.html. Runs on the Keras backend that KERAS_BACKEND names; on a
    GPU in mixed precision. Ctrl-C saves; the same command goes on.
    """
    _check(given)
    if not Path(data).is_dir():
        raise InputError(
            "input-missing", f"{data} is no folder. --data takes a folder with one folder of images a class."
        )
    folder = made_folder(out)
    from visionkit.runtime.quiet import import_keras

    import_keras()
    from visionkit.cli.train_classify_finish import finish
    from visionkit.train.classify import train_classifier

    return run_training(train_classifier, _plan(Path(data), folder, given), EPOCH, finish)


def _check(given: dict[str, Any]) -> None:
    if given["source"] and given["network"]:
        raise UsageError("options-clash", "--from brings its own network; give it or --network, not both.")
    if given["freeze"] and not given["source"]:
        raise UsageError("options-clash", "--freeze keeps the weights that --from brings; give --from as well.")
    if given["val"] + given["test"] >= 1:
        raise UsageError("options-clash", "--val and --test together leave nothing to learn from; lower them.")


def _plan(data: Path, out: Path, given: dict[str, Any]) -> ClassifyPlan:
    from visionkit.train.augment import Augmentation
    from visionkit.train.classify import ClassifyPlan
    from visionkit.train.distort import Distortion

    options = option.fit_options(given, 2e-3)
    change = Augmentation(strength=given.pop("augment"), flip=given.pop("flip"))
    split, distort = given.pop("split"), given.pop("distort")
    return ClassifyPlan(
        data,
        out,
        network=given.pop("network") or "resnet",
        args=dict(given.pop("args")),
        split=None if split is None else Path(split),
        distort=None if distort is None else Distortion(distort),
        augmentation=change,
        options=options,
        **given,
    )
