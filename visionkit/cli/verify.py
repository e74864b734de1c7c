"""`visionkit verify`: an exported model checked again, and compared with another one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visionkit.cli.options import BOX
from visionkit.cli.text import emit, emit_json, examples, table
from visionkit.errors import ModelError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from visionkit.evaluate.agreement import Agreement
    from visionkit.export.divergence import LayerDifference
    from visionkit.export.verify import ProbeRow
    from visionkit.weights.artifact import Artifact

__all__ = ["command"]

WORDS = {
    "top1": "the same class",
    "boxes": "the same boxes",
    "pixels": "of the pixels of the same class",
    "iou": "overlap of the boxes",
}


@click.command(
    epilog=examples(
        "visionkit verify sign_digits.tflite",
        "visionkit verify sign_digits.tflite --against sign_digits --source photos/",
        "visionkit verify int8.tflite --against float.tflite --source clip.mp4 --min-agreement 0.98",
    )
)
@click.argument("artifact")
@click.option("--against", metavar="MODEL", help="Another model of the same task: a card's name or a file.")
@click.option("--source", metavar="SOURCE", help="Frames to compare the two on: a video, an image, a folder, a glob.")
@click.option(
    "--frames",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Compare so many, spread over the source.",
)
@click.option("--box", "xyxy", type=BOX, help="Of trackers: the object in the first frame: left, top, width, height.")
@click.option(
    "--min-agreement",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Fail with exit code 5 where the two agree less.",
)
@click.option("--layers", type=click.IntRange(min=0), default=0, metavar="N", help="Show the N worst layers as well.")
@click.option("--trust-model", is_flag=True, help="The files may run code (a SavedModel can).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(artifact: str, against: str | None, source: str | None, as_json: bool, **options: Any) -> None:
    """Check ARTIFACT, a file that export or quantize wrote, on this machine.

    It is run without VisionKit, by its plain runtime in a process of its own, on the probes that it carries, and must
    answer what it answered when it was made. With --against, it is compared with another model: their answers on real
    frames (without --source, on the probes' images), and, between .tflite files or with its card, layer by layer, the
    first layer from which they part.
    """
    from visionkit.export.verify import check_probes, read_described

    if against is None and (source is not None or options["min_agreement"] is not None):
        raise UsageError("against-needed", "--source and --min-agreement compare two models: name one with --against.")
    found = read_described(artifact)
    if against is not None:
        _check_task(found, against)
        if found.card.task == "track" and None in (source, options["xyxy"]):
            raise UsageError("no-box", "Trackers are compared on a video: give --source and the object's --box in it.")
    _check_trust(found, options["trust_model"])
    probes = check_probes(found)
    same = None if against is None else _agreement(found, against, source, options)
    layers, why = ({}, "") if against is None else _layers(found, against)
    if as_json:
        emit_json({**_as_json(found, probes, same, layers), "layers_unknown": why or None})
    else:
        for line in _lines(found, probes, same, against, layers, options["layers"]):
            emit(line)
        if why:
            emit()
            emit(f"layers: not compared: {why}")
    _judge(found, probes, same, options["min_agreement"])


def _check_trust(artifact: Artifact, trust: bool) -> None:
    from visionkit.runtime.files import ModelFile

    ModelFile(artifact.path).check_trust(trust)


def _check_task(artifact: Artifact, against: str) -> None:
    """Raises UsageError `against-unfit` where the other one is known to be of another task."""
    from visionkit.weights import load_card
    from visionkit.weights.artifact import read_artifact

    other = read_artifact(against)
    if other is None and _is_file(against):
        return
    task = load_card(against).task if other is None else other.card.task
    if task != artifact.card.task:
        raise UsageError(
            "against-unfit",
            f"{artifact.path.name} is a model to {artifact.card.task}, and '{against}' is one to {task}: compare "
            "models of one task.",
        )


def _agreement(artifact: Artifact, against: str, source: str | None, options: dict[str, Any]) -> Agreement:
    """How far the two models agree on frames of the source, or on the artifact's own images."""
    from visionkit.api import load
    from visionkit.evaluate.agreement import agreement, agreement_of_tracks

    def opened(path: str | Path) -> Any:
        how = {"trust": options["trust_model"]} if (Path(path) / "saved_model.pb").is_file() else {}
        return load(path, task=artifact.card.task if _is_file(path) else None, **how)

    first, second = opened(artifact.path), opened(against)
    frames = _images(artifact) if source is None else _frames(source, options["frames"])
    if artifact.card.task != "track":
        return agreement(first, second, frames)
    return agreement_of_tracks(first, second, frames, options["xyxy"])


def _is_file(name: str | Path) -> bool:
    from visionkit.tasks.load_classify import is_model_file

    return is_model_file(name)


def _images(artifact: Artifact) -> list[npt.NDArray[np.uint8]]:
    import numpy as np

    stored = artifact.probes()
    return [np.ascontiguousarray(v[..., ::-1]) for name, v in stored.items() if name.startswith("image_")]


def _frames(source: str, count: int) -> list[npt.NDArray[np.uint8]]:
    """So many frames at most, evenly spread; never more than twice as many are held."""
    from visionkit.io import open_source

    kept: list[npt.NDArray[np.uint8]] = []
    step = 1
    with open_source(source) as opened:
        for place, frame in enumerate(opened):
            if place % step:
                continue
            kept.append(frame.image)
            if len(kept) == 2 * count:
                kept, step = kept[::2], step * 2
    return kept[: 2 * count : 2] if len(kept) > count else kept


def _layers(artifact: Artifact, against: str) -> tuple[dict[str, list[LayerDifference]], str]:
    """Of each network, where layers can be told; and why, where they cannot."""
    from visionkit.export.verify import layer_differences
    from visionkit.weights import load_card
    from visionkit.weights.artifact import read_artifact

    other = read_artifact(against)
    if other is None and _is_file(against):
        return {}, f"{against} does not say what it is"
    try:
        return layer_differences(artifact, other or load_card(against)), ""
    except ModelError as error:
        if error.slug != "layers-unknown":
            raise
        return {}, error.message


def _lines(
    artifact: Artifact,
    probes: Sequence[ProbeRow],
    same: Agreement | None,
    against: str | None,
    layers: dict[str, list[LayerDifference]],
    shown: int,
) -> list[str]:
    from visionkit.export.divergence import first_diverging

    lines = [f"{artifact.path}: {artifact.format}, {artifact.kind}, {artifact.card.task}", ""]
    rows = [["SIGNATURE", "OUTPUT", "PROBES", "APART", "AT MOST", ""]]
    rows += [
        [row.signature, row.output, str(row.probes), f"{row.apart:.2g}", f"{row.tolerance:.2g}", _verdict(row.ok)]
        for row in probes
    ]
    lines += table(rows)
    if same is not None:
        word = WORDS[same.measure]
        lines += ["", f"against {against}: {same.score:.2%} {word}, {len(same.frames)} frames"]
        others = {name: same.mean(name) for name in _names(same) if name != same.measure}
        lines += [f"  {name.replace('_', ' ')}: {value:.4g}" for name, value in others.items() if not math.isnan(value)]
        worst = ", ".join(f"{row.index} ({row.score:.2f})" for row in same.worst(5))
        lines += [f"  the frames that differ most: {worst}"] if worst else []
    for signature, found in layers.items():
        first = first_diverging(found)
        told = f"no layer of {len(found)} differs by more than its arithmetic" if first is None else _told(first)
        lines += ["", f"{signature}: {told}"]
        lines += [f"  {_told(row)}" for row in sorted(found, key=lambda row: -row.error)[:shown]]
    return lines


def _told(row: LayerDifference) -> str:
    return f"{row.layer} ({row.operation.lower()}) differs by {row.error:.2g} of its size, at most {row.largest:.3g}"


def _verdict(ok: bool) -> str:
    return "ok" if ok else "DIFFERS"


def _names(same: Agreement) -> list[str]:
    return list(dict.fromkeys(name for row in same.frames for name in row.measures))


def _as_json(
    artifact: Artifact,
    probes: Sequence[ProbeRow],
    same: Agreement | None,
    layers: dict[str, list[LayerDifference]],
) -> dict[str, Any]:
    from visionkit.export.divergence import first_diverging

    firsts = {signature: first_diverging(rows) for signature, rows in layers.items()}
    return {
        "artifact": str(artifact.path),
        "format": artifact.format,
        "kind": artifact.kind,
        "task": artifact.card.task,
        "sha256": artifact.sha256,
        "probes": [
            {"signature": r.signature, "output": r.output, "apart": r.apart, "tolerance": r.tolerance, "ok": r.ok}
            for r in probes
        ],
        "agreement": None if same is None else same.as_table(),
        "layers": {
            signature: {
                "first_diverging": None if (first := firsts[signature]) is None else first.layer,
                "rows": [
                    {"layer": r.layer, "operation": r.operation, "error": r.error, "largest": r.largest} for r in rows
                ],
            }
            for signature, rows in layers.items()
        },
    }


def _judge(artifact: Artifact, probes: Sequence[ProbeRow], same: Agreement | None, least: float | None) -> None:
    """Raises ModelError `verify-failed` where a probe or the agreement is not as it should be."""
    if bad := [row for row in probes if not row.ok]:
        told = ", ".join(f"{row.signature}/{row.output} by {row.apart:.2g}" for row in bad)
        raise ModelError(
            "verify-failed",
            f"{artifact.path.name} does not answer its probes as when it was made: {told}. Export it again on this "
            "machine, or check its runtime's version.",
        )
    if same is not None and least is not None and not same.score >= least:
        raise ModelError(
            "verify-failed", f"The models agree to {same.score:.2%}; --min-agreement asks for at least {least:.2%}."
        )
