"""`visionkit inspect`: what a model is made of, or what a video, an image or a folder really holds."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

import click

from visionkit.cli.text import examples
from visionkit.errors import UsageError

__all__ = ["command", "is_model"]

MODEL_SUFFIXES = (".keras", ".tflite", ".onnx", ".h5", ".hdf5", ".pth", ".pt")
OF_MODELS = (
    "imgsz", "activations", "filters", "explain", "class_name", "method", "layer", "preset", "out", "overwrite",
    "trust_model",
)  # fmt: skip


@click.command(
    epilog=examples(
        "visionkit inspect clip.mp4",
        "visionkit inspect --count --json clip.mp4",
        "visionkit inspect resnet50 --imgsz 480,640",
        "visionkit inspect mobilenet_v3_small --json",
        "visionkit inspect fcn8s_vgg16 --imgsz 375,500",
        "visionkit inspect sign_digits --filters filters.png",
        "visionkit inspect sign_digits --explain frames/000.jpg --class 4 --out why.png",
    )
)
@click.argument("target", metavar="MODEL|MEDIA", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--count", is_flag=True, help="MEDIA: decode everything; true number of frames, their times, damage.")
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=100_000_000,
    metavar="N",
    help="Refuse larger frames and images.  [default: 100 million]",
)
@click.option(
    "--imgsz",
    multiple=True,
    metavar="N|H,W",
    help="MODEL: reckon with images of this size; NAME=H,W for one of several inputs.",
)
@click.option("--activations", metavar="IMAGE|FOLDER", help="MODEL: dead and saturated units over these images.")
@click.option("--filters", metavar="PNG", help="MODEL: draw the first convolution's filters into this file.")
@click.option("--explain", metavar="IMAGE", help="MODEL: draw where the evidence for a class lies.")
@click.option("--class", "class_name", metavar="NAME|ID", help="Class to explain; [HEAD:]NAME.  [default: the best]")
@click.option(
    "--method",
    type=click.Choice(["gradcam", "guided"]),
    help="gradcam: coarse, about the class; guided: down to pixels, more about the image.  [default: gradcam]",
)
@click.option("--layer", metavar="NAME", help="Whose map gradcam weighs.  [default: the last map]")
@click.option(
    "--preset",
    type=click.Choice(["torch", "tf", "caffe", "unit", "raw"]),
    help="How levels reach a network that has no card.  [default: raw, 0 to 255]",
)
@click.option("--out", metavar="PNG", help="Where --explain draws.  [default: IMAGE-explained.png, in this folder]")
@click.option("--overwrite", is_flag=True, help="Replace pictures that are there.")
@click.option("--trust-model", is_flag=True, help="A SavedModel may run code: load it, for the whole table.")
def command(target: str, as_json: bool, count: bool, max_pixels: int, **options: Any) -> int:
    """Tell what MODEL is made of, or what MEDIA really holds.

    MODEL is the name or folder of a card, the name of a network, a .keras, a .tflite or a SavedModel: one line for
    each layer with its output size, parameters, multiply-adds, receptive field, stride, padding and centre. Before
    them stands, of a file that VisionKit exported (.onnx and OpenVINO's .xml, too), what it says of itself. MEDIA is a
    video, an image, a folder or a glob of images; its declared numbers may be wrong, --count tells the true ones (exit
    code 4: it met damage).
    """
    if is_model(target):
        if count:
            raise UsageError("option-unfit", f"--count is for videos and images; {target!r} is a model.")
        from visionkit.cli.inspect_model import inspect_model
        from visionkit.cli.inspect_request import Request

        return inspect_model(Request(target, as_json=as_json, max_pixels=max_pixels, **options))
    if given := [name for name in OF_MODELS if options[name]]:
        option = {"class_name": "--class"}.get(given[0], "--" + given[0].replace("_", "-"))
        raise UsageError("option-unfit", f"{option} is for models; {target!r} is none: {_known(target)}")
    from visionkit.cli.inspect_media import inspect_media

    return inspect_media(target, count=count, as_json=as_json, max_pixels=max_pixels)


def is_model(target: str) -> bool:
    """Whether `target` means a model: by its suffix, by what its folder holds, or as a card's name.

    Raises:
        UsageError: `unknown-target`; it is a word that names neither a card nor a network nor a file.
    """
    from visionkit.cli.inspect_request import network_names
    from visionkit.weights.artifact import has_description
    from visionkit.weights.registry import card_names

    path = Path(target)
    if path.suffix.lower() == ".xml" and has_description(path):  # others are annotations, maps, anything
        return True
    if path.name == "card.toml" or path.suffix.lower() in MODEL_SUFFIXES:
        return True
    if os.path.lexists(target):
        if (path / "saved_model.pb").is_file():
            return True
        # the name of a card is the card, as everywhere: ./NAME is the folder
        return (path / "card.toml").is_file() or (target in card_names() and not path.is_file())
    if target in card_names() or target in network_names():
        return True
    if target.isidentifier():
        raise UsageError("unknown-target", f"{target!r} is neither a file nor a folder, nor a model: {_known(target)}")
    return False


def _known(target: str) -> str:
    from visionkit.cli.inspect_request import network_names
    from visionkit.weights.registry import card_names

    near = difflib.get_close_matches(Path(target).name, [*card_names(), *network_names()], n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}`visionkit models list` tells the models' names."
