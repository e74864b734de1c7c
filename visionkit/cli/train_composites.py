"""`visionkit train composites`: images with masks, from photos of objects on a plain background."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from visionkit.cli import train_options as option
from visionkit.cli.text import examples
from visionkit.cli.train_running import made_folder, tell
from visionkit.errors import InputError, OutputError, UsageError

__all__ = ["composites"]


class ObjectsType(click.ParamType):
    """`NAME=DIR`, as (name, folder)."""

    name = "NAME=DIR"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        """The pair."""
        if isinstance(value, tuple):
            return value[0], value[1]
        name, found, folder = str(value).partition("=")
        if not found or not name.strip() or not folder:
            self.fail(f"expected NAME=DIR, such as hand=photos/. Received: {value!r}.", param, ctx)
        return name.strip(), Path(folder)


@click.command(
    epilog=examples(
        "visionkit train composites --objects hand=hands/ --background office/ --out runs/composites",
        "visionkit train segment --data runs/composites --labels runs/composites/labels.txt --out runs/hands",
    )
)
@click.option(
    "--objects",
    type=ObjectsType(),
    multiple=True,
    required=True,
    help="A class and its photos, plain behind; repeatable.",
)
@click.option(
    "--background", "backgrounds", multiple=True, metavar="PATH", help="Images, a folder, or a clip; repeatable."
)
@click.option(
    "--out", required=True, metavar="DIR", help="Folder to write train/ and val/ into; must not hold them yet."
)
@option.count("--count", 2000, "Pictures to learn from.")
@option.count("--val-count", 200, "Pictures to choose on.")
@click.option(
    "--imgsz", "size_hw", type=option.SizeType(), default=(240, 320), show_default="240,320", help="Their size."
)
@click.option(
    "--skin", metavar="NAME", help="The class that is bare skin: rendered heads with its skin are added to it."
)
@click.option(
    "--plain",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Fraction of pictures that are the photos as they were taken.",
)
@click.option(
    "--vary",
    type=click.FloatRange(1, 2),
    default=1.0,
    show_default=True,
    help="How widely tones of skin vary; above 1 also light, smears and what is printed.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of everything that is drawn at random.")
def composites(objects: tuple[tuple[str, Path], ...], backgrounds: tuple[str, ...], out: str, **given: Any) -> None:
    """Cut objects out of photos and paste them upon other pictures: images and masks to train a segmenter with.

    The photos of a class show one object each before something plain; photos of the last 15 % of each folder are used
    in val/ only. Beside the objects there are rendered things which belong to no class. A clip of a fixed camera gives
    the median of its frames, in which what moves is gone. The same seed gives the same files.
    """
    if given["skin"] is not None and given["skin"] not in [name for name, _ in objects]:
        raise UsageError("unknown-class", f"--skin {given['skin']} is none of the classes of --objects.")
    for path in [*(folder for _, folder in objects), *map(Path, backgrounds)]:
        if not path.exists():
            raise InputError("input-missing", f"{path} does not exist.")
    folder = made_folder(out)
    if any((folder / part).exists() for part in ("train", "val")):
        raise OutputError("output-exists", f"{folder} holds train/ or val/ already. Choose another --out.")
    from visionkit.train.composite_material import read_backgrounds, read_cutouts
    from visionkit.train.composites import write_composites

    kinds = [read_cutouts(name, photos) for name, photos in objects]
    for kind in kinds:
        skipped = f", {kind.skipped} photos show nothing that stands out" if kind.skipped else ""
        tell(f"{kind.name}: {len(kind.train)} objects to learn from, {len(kind.val)} to choose on{skipped}")
    counts = {"train": given["count"], "val": given["val_count"]}
    pictures = read_backgrounds([Path(path) for path in backgrounds])
    how = {name: given[name] for name in ("size_hw", "seed", "skin", "plain", "vary")}
    write_composites(kinds, pictures, folder, counts=counts, **how)
    tell(f"{counts['train']} + {counts['val']} images with masks and labels.txt lie in {folder}")
