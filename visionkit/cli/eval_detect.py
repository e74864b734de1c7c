"""`visionkit eval detect`: a detector on images and boxes, or its stored rows against them."""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visionkit.cli.options import model_options
from visionkit.cli.text import clean, emit, emit_json, examples, table
from visionkit.errors import InputError, ModelError, OutputError, UsageError

if TYPE_CHECKING:
    from visionkit.evaluate.detect import DetectEvaluation
    from visionkit.train.class_folders import Problem
    from visionkit.train.detection_folders import DetectionFolders, DetectionSample

__all__ = ["detect"]

TOLD = 5  # problems that are told one by one
PARTS = ("train", "val", "test")


@click.command(
    epilog=examples(
        "visionkit eval detect --model runs/mine --data VOC/ --part test",
        "visionkit eval detect --model runs/mine --data coco/instances_val.json --images coco/val/ --report mine.html",
        "visionkit eval detect --results runs/detect/photos/results.jsonl --data VOC/ --json",
    )
)
@click.option("--data", required=True, metavar="PATH", help="Images and boxes, as `visionkit train detect` takes them.")
@model_options
@click.option("--results", metavar="FILE", help="Measure the rows of a results.jsonl instead of a model.")
@click.option("--images", metavar="DIR", help="Where the images lie, if not where the annotations say.")
@click.option(
    "--layout", type=click.Choice(["voc", "coco", "yolo", "openimages"]), help="Of --data.  [default: what fits]"
)
@click.option("--part", type=click.Choice(PARTS), help="Of the data.  [default: val, or all]")
@click.option(
    "--conf",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="Least confidence of answers that count.",
)
@click.option("--iou", type=click.FloatRange(0, 1), help="Overlap above which the weaker answer goes.")
@click.option("--coco/--no-coco", default=None, help="COCO's twelve numbers.  [default: where a library is installed]")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Measure every k-th image, N in all.")
@click.option("--report", metavar="FILE", help="Write a page with charts and the worst images.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def detect(data: str, report: str | None, as_json: bool, **given: Any) -> int:
    """AP of each class at overlaps of 0.5 and 0.75, mAP, COCO's twelve numbers, through the task that users call.

    An answer hits the object that it overlaps most, if no surer answer has; a second one is false. Objects marked
    difficult, and crowds, count neither way. Classes go by name: the data must have no others than the model. What
    cannot be used is told and not counted; the exit code is then 4.
    """
    if (given["model"] is None) == (given["results"] is None):
        raise UsageError("model-needed", "Give --model (a card's name or folder) or --results (a results.jsonl).")
    labels, name, folders, samples = _read(Path(data), given)
    if given["results"] is not None:
        result, model = _stored(samples, labels, given), {"name": name}
    else:
        result, model = _measured(samples, labels, given)
    problems: list[Problem] = [*_of_part(folders, samples), *result.problems]
    if report is not None:
        _write(Path(report), result, f"{name} on {Path(data).resolve().name}")
    if as_json:
        emit_json(_as_json(result, model, problems))
    else:
        for line in _lines(result, model):
            emit(line)
    for problem in problems[:TOLD]:
        click.echo(clean(f"visionkit: warning: {problem.name}: {problem.reason}"), err=True)
    if len(problems) > TOLD:
        click.echo(f"visionkit: warning: {len(problems) - TOLD} more; --json lists all", err=True)
    return 4 if problems else 0


def _read(data: Path, given: dict[str, Any]) -> tuple[tuple[str, ...], str, DetectionFolders, list[DetectionSample]]:
    """Labels, what is measured, the data, and the samples of the part."""
    from visionkit.train.detection_folders import read_detection_folders

    labels: tuple[str, ...] | None = None
    name = Path(given["results"]).name if given["results"] is not None else given["model"]
    if given["results"] is None:
        from visionkit.weights import load_card

        card = load_card(given["model"])
        if card.task != "detect" or not card.labels:
            raise ModelError("model-unfit", f"{card.name} is no detector with labels; it cannot be measured on boxes.")
        labels, name = card.labels, card.name
    images = None if given["images"] is None else Path(given["images"])
    found = read_detection_folders(data, images=images, layout=given["layout"])
    if labels is not None:
        if not set(found.classes) & set(labels):
            raise ModelError(
                "model-unfit",
                f"{name} has the classes {_listed(labels)}, the data {_listed(found.classes)}: none is the same.",
            )
        found = read_detection_folders(data, images=images, layout=found.layout, classes=labels)
    return labels or found.classes, name, found, _samples(found, given["part"], given["limit"])


def _of_part(folders: DetectionFolders, samples: list[DetectionSample]) -> list[Problem]:
    """What is wrong with the data, without what concerns images of other parts."""
    others = {Path(sample.name).stem for sample in folders.samples} - {Path(sample.name).stem for sample in samples}
    return [problem for problem in folders.problems if Path(problem.name).stem not in others]


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")


def _samples(folders: DetectionFolders, part: str | None, limit: int | None) -> list[DetectionSample]:
    if part is None:
        part = "val" if folders.select("val") else None
    chosen = list(folders.samples) if part is None else folders.select(part)
    if not chosen:
        raise InputError("no-boxes", f"The part {part!r} of {folders.root} holds no image with annotations.")
    if limit is None or limit >= len(chosen):
        return chosen
    return [chosen[k * len(chosen) // limit] for k in range(limit)]


def _measured(
    samples: list[DetectionSample], labels: tuple[str, ...], given: dict[str, Any]
) -> tuple[DetectEvaluation, dict[str, str]]:
    from visionkit.evaluate.detect import evaluate_detector
    from visionkit.tasks.load_detect import load_detector

    def compiling() -> None:
        click.echo("Compiling the network and timing the runtimes of this machine: some seconds, once.", err=True)

    options = {} if given["iou"] is None else {"iou": given["iou"]}
    detector = load_detector(
        given["model"],
        runtime=given["runtime"],
        precision=given["precision"],
        threads=given["threads"],
        trust=given["trust_model"],
        on_compile=compiling,
        conf=given["conf"],
        **options,
    )
    result = evaluate_detector(
        detector, samples, labels, conf=given["conf"], coco=given["coco"], progress=_progress(len(samples))
    )
    return result, detector.describe()


def _stored(samples: list[DetectionSample], labels: tuple[str, ...], given: dict[str, Any]) -> DetectEvaluation:
    from visionkit.evaluate.detect import detections_of_rows, evaluate_answers
    from visionkit.io import read_results

    kept, answers, problems = detections_of_rows(read_results(Path(given["results"])), samples, labels)
    answers = [one[one.confidence >= given["conf"]] for one in answers]
    return evaluate_answers(kept, answers, labels, coco=given["coco"], problems=problems)


def _progress(total: int) -> Any:
    if not sys.stderr.isatty():
        return None

    def told(done: int) -> None:
        click.echo(f"\r{done}/{total}" + ("\n" if done == total else ""), err=True, nl=False)

    return told


def _write(path: Path, result: DetectEvaluation, title: str) -> None:
    from visionkit.evaluate.detect_charts import render_detect_evaluation

    html = render_detect_evaluation(result, title, shlex.join(["visionkit", *sys.argv[1:]]))
    try:
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise OutputError("output-unwritable", f"{path} cannot be written: {error.strerror}.") from error


def _as_json(result: DetectEvaluation, model: dict[str, str], problems: list[Problem]) -> dict[str, Any]:
    scores, strict = result.scores, result.strict
    classes = [
        {
            "class_name": name,
            "objects": scores.curves[k].positives,
            "answers": len(scores.curves[k].confidence),
            "ap50": _or_none(scores.ap[k]),
            "ap50_11_point": _or_none(scores.ap_11_point[k]),
            "ap75": _or_none(strict.ap[k]),
        }
        for k, name in enumerate(result.labels)
    ]
    return {
        "model": model,
        "images": len(result.samples),
        "map50": _or_none(scores.mean_ap),
        "map50_11_point": _or_none(scores.mean_ap_11_point),
        "map75": _or_none(strict.mean_ap),
        "classes": classes,
        "coco": result.coco,
        "seconds": _or_none(result.seconds),
        "problems": [{"kind": p.kind, "name": p.name, "reason": p.reason} for p in problems],
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)


def _lines(result: DetectEvaluation, model: dict[str, str]) -> list[str]:
    scores, strict = result.scores, result.strict
    speed = "" if math.isnan(result.seconds) else f", {1000 * result.seconds:.0f} ms an image"
    lines = [
        f"{model.get('name', '?')}: {len(result.samples)} images{speed}"
        + (f" ({model['runtime']})" if "runtime" in model else ""),
        "",
        *table(
            [
                ["CLASS", "OBJECTS", "AP50", "AP50 11-POINT", "AP75"],
                *(
                    [
                        name,
                        str(scores.curves[k].positives),
                        _percent(scores.ap[k]),
                        _percent(scores.ap_11_point[k]),
                        _percent(strict.ap[k]),
                    ]
                    for k, name in enumerate(result.labels)
                    if scores.curves[k].positives or len(scores.curves[k].confidence)
                ),
                [
                    "mean",
                    "",
                    _percent(scores.mean_ap),
                    _percent(scores.mean_ap_11_point),
                    _percent(strict.mean_ap),
                ],
            ]
        ),
    ]
    if result.coco is not None:
        numbers = (f"{name} {'–' if value is None else f'{value:.3f}'}" for name, value in result.coco.items())
        lines += ["", "COCO: " + "  ".join(numbers)]
    return lines


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1%}"
