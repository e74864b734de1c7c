"""`visionkit eval segment`: a segmenter on images and masks, without and with a dense CRF."""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visionkit.cli.options import model_options
from visionkit.cli.text import clean, emit, emit_json, examples, table
from visionkit.cli.train_options import ArgumentType
from visionkit.errors import InputError, ModelError, OutputError, UsageError

if TYPE_CHECKING:
    from visionkit.crf import CRFParams
    from visionkit.evaluate.segment import Measured, SegmentEvaluation
    from visionkit.train.mask_folders import LabelSet, MaskFolders, MaskSample
    from visionkit.weights import Card

__all__ = ["segment"]

TOLD = 5  # pairs that cannot be used, told one by one


@click.command(
    epilog=examples(
        "visionkit eval segment --model runs/mine --data photos/",
        "visionkit eval segment --model runs/camvid --data CamVid/ --labels camvid --crf --trimap --report camvid.html",
        "visionkit eval segment --model runs/mine --data photos/ --crf --crf-arg theta_beta=6 --json",
    )
)
@click.option("--data", required=True, metavar="DIR", help="Images and masks, as `visionkit train segment` takes them.")
@model_options
@click.option("--part", type=click.Choice(["train", "val", "test"]), help="Of the data.  [default: val, or all]")
@click.option("--labels", metavar="FILE|NAME", help="Meaning of the masks' numbers: camvid says what is void there.")
@click.option(
    "--void", type=click.IntRange(0, 255), multiple=True, help='Number that means "no class"; 255 always does.'
)
@click.option("--crf", is_flag=True, help="Measure behind a dense CRF too.")
@click.option("--crf-iterations", type=click.IntRange(min=1), default=10, show_default=True, help="Of the CRF.")
@click.option("--crf-arg", "crf_args", type=ArgumentType(), multiple=True, help="A parameter of CRFParams; repeatable.")
@click.option("--trimap", is_flag=True, help="Mean IU in bands around the edges, and the boundary F-score.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Measure every k-th pair, N in all.")
@click.option("--report", metavar="FILE", help="Write a page with charts: the CRF's gain, IU by band width.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def segment(data: str, report: str | None, as_json: bool, **given: Any) -> int:
    """Pixel accuracy, mean accuracy, mean IU and frequency-weighted IU, through the task that users call.

    Pixels of void do not count. A class without true pixels is left out of the mean accuracy, and of the mean IU unless
    it was answered somewhere (then its IU is 0). Pairs that do not fit are told and not counted; the exit code is then
    4. Answers are made and measured at each image's own size.
    """
    if given["model"] is None:
        raise UsageError("model-needed", "--model names what to measure: a card's name or a folder with a card.toml.")
    if given["crf_args"] and not given["crf"]:
        raise UsageError("options-clash", "--crf-arg changes the CRF of --crf; give --crf as well.")
    from visionkit.evaluate.segment import crf_steps, evaluate_segmenter
    from visionkit.train.mask_folders import read_mask_folders
    from visionkit.train.mask_images import SegmentMaterial
    from visionkit.weights import load_card

    card = load_card(given["model"])
    params = _params(given) if given["crf"] else None
    folders = read_mask_folders(Path(data))
    labels = _labels(card, given)
    samples = _samples(folders, given["part"], given["limit"])
    segmenter = _load(given)
    result = evaluate_segmenter(
        segmenter.probs,
        SegmentMaterial(folders, labels, cache_bytes=0),
        samples,
        refine=None if params is None else crf_steps(params, given["threads"]),
        iterations=0 if params is None else params.iterations,
        edges=given["trimap"],
        progress=_progress(len(samples)),
    )
    if report is not None:
        _write(Path(report), result, labels.names, f"{card.name} on {Path(data).resolve().name}")
    if as_json:
        emit_json(_as_json(result, labels.names, segmenter.describe()))
    else:
        for line in _lines(result, labels.names, segmenter.describe()):
            emit(line)
    problems = [*folders.problems, *result.problems]
    for problem in problems[:TOLD]:
        click.echo(clean(f"visionkit: warning: {problem.name}: {problem.reason}"), err=True)
    if len(problems) > TOLD:
        click.echo(f"visionkit: warning: {len(problems) - TOLD} more cannot be used", err=True)
    return 4 if problems else 0


def _params(given: dict[str, Any]) -> CRFParams:
    from visionkit.crf import CRFParams

    arguments = {key: tuple(v) if isinstance(v, list) else v for key, v in given["crf_args"]}
    try:
        return CRFParams(**{"iterations": given["crf_iterations"], **arguments})
    except (TypeError, ValueError) as error:
        raise UsageError("crf-arguments", f"The CRF does not take {arguments}: {error}") from error


def _labels(card: Card, given: dict[str, Any]) -> LabelSet:
    """The model's names, and what is void in the masks."""
    from visionkit.train.mask_folders import LabelSet, read_labels

    if card.task != "segment" or not card.labels:
        raise ModelError("model-unfit", f"{card.name} is no segmenter with labels; it cannot be measured on masks.")
    void = frozenset(given["void"])
    if given["labels"] is None:
        return LabelSet(card.labels, void)
    names = read_labels(given["labels"])
    if names.names != card.labels:
        raise ModelError(
            "model-unfit",
            f"{card.name} has the classes {', '.join(card.labels[:8])}{', …' if len(card.labels) > 8 else ''}, which "
            f"are not those of {given['labels']}.",
        )
    return LabelSet(names.names, names.void | void)


def _samples(folders: MaskFolders, part: str | None, limit: int | None) -> list[MaskSample]:
    chosen = list(folders.samples) if part is None and not folders.parts else folders.select(part or "val")
    if not chosen:
        raise InputError("no-masks", f"The part {part or 'val'!r} holds no pair of {folders.root}.")
    if limit is None or limit >= len(chosen):
        return chosen
    return [chosen[k * len(chosen) // limit] for k in range(limit)]


def _load(given: dict[str, Any]) -> Any:
    from visionkit.tasks.load_segment import load_segmenter

    def compiling() -> None:
        click.echo("Compiling the network and timing the runtimes of this machine: some seconds, once.", err=True)

    return load_segmenter(
        given["model"],
        runtime=given["runtime"],
        precision=given["precision"],
        threads=given["threads"],
        trust=given["trust_model"],
        on_compile=compiling,
    )


def _progress(total: int) -> Any:
    if not sys.stderr.isatty():
        return None

    def told(done: int) -> None:
        click.echo(f"\r{done}/{total}" + ("\n" if done == total else ""), err=True, nl=False)

    return told


def _write(path: Path, result: SegmentEvaluation, labels: tuple[str, ...], title: str) -> None:
    from visionkit.evaluate.segment_charts import render_evaluation

    html = render_evaluation(result, labels, title, shlex.join(["visionkit", *sys.argv[1:]]))
    try:
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise OutputError("output-unwritable", f"{path} cannot be written: {error.strerror}.") from error


def _as_json(result: SegmentEvaluation, labels: tuple[str, ...], model: dict[str, str]) -> dict[str, Any]:
    out: dict[str, Any] = {
        "model": model,
        "images": len(result.samples),
        "network": _measured_json(result.answers[0], labels, result.widths),
        "seconds": [None if math.isnan(value) else round(value, 4) for value in result.seconds],
        "unusable": [{"name": problem.name, "reason": problem.reason} for problem in result.problems],
    }
    if len(result.answers) > 1:
        out["crf"] = _measured_json(result.answers[-1], labels, result.widths)
        out["mean_iu_by_iteration"] = [round(one.scores.mean_iu, 6) for one in result.answers]
    return out


def _measured_json(measured: Measured, labels: tuple[str, ...], widths: tuple[float, ...]) -> dict[str, Any]:
    from visionkit.evaluate.segment_metrics import or_none

    out = measured.scores.as_table(labels)
    if widths:
        bands = zip(widths, measured.band_iou, strict=True)
        out["trimap"] = [{"width": width, "mean_iu": or_none(iou)} for width, iou in bands]
        out["boundary_f"] = or_none(measured.boundary_f)
    return out


def _lines(result: SegmentEvaluation, labels: tuple[str, ...], model: dict[str, str]) -> list[str]:
    kinds = {"NETWORK": result.answers[0]}
    if len(result.answers) > 1:
        kinds |= {f"CRF {len(result.answers) - 1}": result.answers[-1]}
    scores = {name: measured.scores for name, measured in kinds.items()}
    times = [f"{1000 * s:.0f} ms {what}" for s, what in zip(result.seconds, ("network", "CRF"), strict=True) if s == s]
    speed = f", {', '.join(times)} an image" if times else ""
    lines = [
        f"{model.get('name', '?')}: {len(result.samples)} images{speed} ({model.get('runtime', '?')})",
        "",
        *table(
            [
                ["", *kinds],
                ["pixel accuracy", *(_percent(s.pixel_accuracy) for s in scores.values())],
                ["mean accuracy", *(_percent(s.mean_accuracy) for s in scores.values())],
                ["mean IU", *(_percent(s.mean_iu) for s in scores.values())],
                ["frequency-weighted IU", *(_percent(s.weighted_iu) for s in scores.values())],
                *(
                    [["boundary F-score", *(_percent(one.boundary_f) for one in kinds.values())]]
                    if result.widths
                    else []
                ),
            ]
        ),
        "",
        *table(
            [
                ["CLASS", "PIXELS", "ACCURACY", *(f"IU {name}" for name in kinds)],
                *(_class_row(k, label, list(scores.values())) for k, label in enumerate(labels)),
            ]
        ),
    ]
    if len(result.answers) > 1:
        gains = [["ITERATION", *(str(k) for k in range(len(result.answers)))]]
        lines += ["", *table([*gains, ["mean IU", *(_percent(one.scores.mean_iu) for one in result.answers)]])]
    if result.widths:
        bands = [["PIXELS FROM AN EDGE", *(f"{width:g}" for width in result.widths)]]
        bands += [[f"mean IU {name}", *(_percent(v) for v in one.band_iou)] for name, one in kinds.items()]
        lines += ["", *table(bands)]
    return lines


def _class_row(k: int, label: str, scores: list[Any]) -> list[str]:
    first = scores[0]
    return [
        label,
        str(int(first.confusion[k].sum())),
        _percent(first.accuracy[k]),
        *(_percent(s.iu[k]) for s in scores),
    ]


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"
