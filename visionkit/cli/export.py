"""`visionkit export`: a card's whole model as a file for others, tried before it gets its name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visionkit.cli.options import SIZE, image_size
from visionkit.cli.text import emit, emit_json, examples, file_size, table

if TYPE_CHECKING:
    from visionkit.weights.artifact import Artifact

__all__ = ["command"]

SUFFIXES = {"savedmodel": "_savedmodel", "litert": ".tflite", "keras": ".keras", "onnx": ".onnx", "openvino": ".xml"}


@click.command(
    epilog=examples(
        "visionkit export sign_digits --format litert",
        "visionkit export mobilenet_v3_large --format savedmodel --out served/1",
        "visionkit export skin --format savedmodel --crf",
    )
)
@click.argument("model")
@click.option(
    "--format", "kind", type=click.Choice(list(SUFFIXES)), required=True, help="What to write; litert is a .tflite."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Where to.  [default: MODEL.tflite and so on]",
)
@click.option("--imgsz", type=SIZE, metavar="N|H,W", help="Size of the network's input.  [default: the card's]")
@click.option(
    "--batch", type=click.IntRange(1, 1024), default=1, metavar="N", help="Images in one call, where that is fixed."
)
@click.option("--crf", is_flag=True, help="Of a segmenter: refine by a dense CRF inside the file (savedmodel).")
@click.option(
    "--allow-select-tf-ops",
    is_flag=True,
    help="Of litert: take TensorFlow's operations where there is no builtin; such a file needs them linked in.",
)
@click.option("--weights", type=click.Path(path_type=Path), metavar="FILE", help="In the place of the card's own.")
@click.option(
    "--probe",
    "probes",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="IMAGE",
    help="Try the file on this; may be given again.  [default: two rendered ones]",
)
@click.option("--overwrite", is_flag=True, help="Replace what is there, once the new one is complete.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(model: str, **options: Any) -> None:
    """Write the whole of MODEL, a card, from pixels to results, as one file or folder.

    Its signature serving_default takes images, uint8 RGB, and gives final results, resizing (in a SavedModel),
    normalisation, decoding and suppression included; raw gives the network's own. Labels, input rule, thresholds and
    probes travel in it. Before it gets its name it is run without VisionKit, by its plain runtime in a process of its
    own, and must say about the probes what the model says in Keras.

    Of a tracker, litert and savedmodel have the signatures exemplar, which sees the object, and search, which sees each
    frame; onnx and openvino hold one graph, and take no trackers.
    """
    from visionkit.export import export_model

    artifact = export_model(
        model,
        options["out"] or Path.cwd() / f"{Path(model).name}{SUFFIXES[options['kind']]}",
        format=options["kind"],
        size_hw=image_size(options["imgsz"]),
        batch=options["batch"],
        crf=_crf(options["crf"]),
        allow_select_tf_ops=options["allow_select_tf_ops"],
        weights=options["weights"],
        overwrite=options["overwrite"],
        probes=options["probes"],
        notice=_announce,
    )
    if options["as_json"]:
        emit_json({"path": str(artifact.path), "format": artifact.format, "bytes": size_of(artifact), **artifact.made})
        return
    for line in _lines(artifact):
        emit(line)


def size_of(artifact: Artifact) -> int:
    """Bytes of all that belongs to it."""
    if artifact.path.is_dir():
        return sum(file.stat().st_size for file in artifact.path.rglob("*") if file.is_file())
    beside = artifact.path.with_suffix(".bin")
    return artifact.path.stat().st_size + (beside.stat().st_size if artifact.format == "openvino" else 0)


def _lines(artifact: Artifact) -> list[str]:
    made = artifact.made
    lines = [f"{artifact.path}: {artifact.format}, {file_size(size_of(artifact))}"]
    if made["signatures"]:
        lines += table(
            [["SIGNATURE", "TAKES"], *([name, ", ".join(takes)] for name, takes in made["signatures"].items())]
        )
    for name, outputs in made["checked"].items():
        found = ", ".join(f"{output if name else 'output'} within {apart:.1g}" for output, apart in outputs.items())
        lines.append(f"checked {name or 'network'}: {found} of Keras")
    lines.append(f"by {made['runtime']} alone, on {_count(artifact)}")
    if "size" in made:
        lines.append(f"note: {made['size']}")
    if foreign := made.get("select_tf_ops"):
        told = ", ".join(foreign)
        lines.append(f"not run as it is: {told} need an interpreter with TensorFlow's kernels; its graph was, before")
    return lines


def _count(artifact: Artifact) -> str:
    count = sum(name.startswith("image_") for name in artifact.probe_names)
    return f"{count} image{'' if count == 1 else 's'}"


def _crf(wanted: bool) -> Any:
    if not wanted:
        return None
    from visionkit.crf import CRFParams

    return CRFParams()


def _announce(offer: str) -> None:
    from visionkit.cli.download import announce

    announce(offer)
