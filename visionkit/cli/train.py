"""`visionkit train`: make weights of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from visionkit.cli import train_options as option
from visionkit.cli.text import examples
from visionkit.cli.train_classify import classify
from visionkit.cli.train_composites import composites
from visionkit.cli.train_detect import detect
from visionkit.cli.train_running import made_folder, tell
from visionkit.cli.train_segment import segment
from visionkit.cli.train_stn_table import stn_table
from visionkit.errors import InputError

__all__ = ["command"]


@click.group(
    epilog=examples(
        "visionkit train classify --data photos/ --out runs/my_classifier",
        "visionkit train detect --data boxes/ --out runs/my_detector",
        "visionkit train segment --data street/ --out runs/my_segmenter",
        "visionkit train siamese --out runs/my_tracker --steps 2000",
    )
)
def command() -> None:
    """Train a model."""


@command.command(
    epilog=examples(
        "visionkit train siamese --out runs/my_tracker --steps 2000",
        "visionkit train siamese --data photos/ --data clip.mp4 --out runs/my_tracker --seed 1",
        "visionkit track clip.mp4 --box 300,120,80,60 --model runs/my_tracker",
    )
)
@click.option(
    "--data", multiple=True, metavar="PATH", help="Unlabelled images and clips: a file or folder; repeatable."
)
@option.OUT
@option.count("--steps", 6500, "Batches to learn from.")
@option.count("--batch", 32, "Pairs in a batch.")
@click.option("--learning-rate", type=float, default=1.5e-3, show_default=True, help="At its highest.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the weights, the scenes and the pairs.")
@option.count("--workers", 1, "Processes that render pairs.")
def siamese(data: tuple[str, ...], out: str, **settings: Any) -> None:
    """Train the Siamese tracker on rendered scenes, and on unlabelled images and clips where there are any.

    Runs on the Keras backend that KERAS_BACKEND names. DIR becomes a model that --model takes.
    """
    paths = [Path(item) for item in data]
    for path in paths:
        if not path.exists():
            raise InputError(
                "input-missing", f"{path} does not exist. --data takes files and folders of images and clips."
            )
    folder = made_folder(out)
    from visionkit.runtime.quiet import import_keras

    import_keras()
    from visionkit.train.material import read_material
    from visionkit.train.model_folder import write_tracker
    from visionkit.train.siamese import build_siambox, train_siamese

    material = read_material(paths)
    told = f"{len(material.images)} images, {len(material.sightings)} things that move"
    tell(f"Learning from rendered scenes, {told}.")
    steps = settings["steps"]

    def report(row: dict[str, float]) -> None:
        tell(f"step {row['step']}/{steps}  loss {row['loss']:.4f}  {row['pairs_per_s']:.0f} pairs/s")

    network = train_siamese(build_siambox(settings["seed"]), material, out=folder, report=report, **settings)
    write_tracker(network, folder, seed=settings["seed"])
    tell(f"The model lies in {folder}")


command.add_command(classify)
command.add_command(composites)
command.add_command(detect)
command.add_command(segment)
command.add_command(stn_table)
