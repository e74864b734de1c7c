"""`visionkit eval classify`: a classifier on labelled images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visionkit.cli.options import model_options
from visionkit.cli.text import clean, emit, emit_json, examples, table
from visionkit.errors import InputError, UsageError

if TYPE_CHECKING:
    from visionkit.evaluate.classify import ClassifyEvaluation

__all__ = ["classify"]

CONFUSED = 5  # pairs of classes that are listed
DAMAGED = 5  # files that are told one by one


@click.command(
    epilog=examples(
        "visionkit eval classify --model sign_digits --data photos/",
        "visionkit eval classify --model runs/mine --data photos/ --split runs/mine/split.json --part test",
        "visionkit eval classify --model runs/mine --data photos/ --json",
    )
)
@click.option(
    "--data", required=True, metavar="DIR", help="One folder of images a class, named like the model's labels."
)
@model_options
@click.option("--split", metavar="FILE", help="A split.json that training wrote: measure one part of it.")
@click.option("--part", type=click.Choice(["train", "val", "test"]), help="Of the split.  [default: test]")
@click.option(
    "--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Images given to the network at once."
)
@click.option(
    "--distort",
    type=click.IntRange(min=0),
    metavar="SEED",
    help="Turn, scale and shift the images at random, by this seed, as training with --distort does.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def classify(data: str, split: str | None, part: str | None, batch: int, as_json: bool, **options: Any) -> int:
    """Accuracy, per class and as a whole, confusion, calibration and speed, through the task that users call.

    top-1 has a 95 % bootstrap interval (Wilson's where all are right). Damaged files are told and not counted; the exit
    code is then 4. Speed is that of resizing, network and sorting, without reading files.
    """
    from visionkit.train.class_folders import read_class_folders
    from visionkit.train.distort import Distortion
    from visionkit.train.split import read_split

    if options["model"] is None:
        raise UsageError("model-needed", "--model names what to measure: a card's name or a folder with a card.toml.")
    labels = _labels(options["model"])
    folders = read_class_folders(Path(data), labels)
    samples = list(folders.samples)
    if split is not None:
        samples = read_split(Path(split), samples).select(part or "test", samples)
    elif part is not None:
        samples = [sample for sample in samples if folders.parts.get(sample.name) == part]
    if not samples:
        raise InputError("no-images", f"The part {part or 'test'!r} holds no image of {data}.")
    from visionkit.evaluate.classify import evaluate_classifier

    seed = options.pop("distort")
    distort = None if seed is None else Distortion(seed)
    task = _load(options, batch)
    result = evaluate_classifier(task, folders, samples, batch=batch, distort=distort)
    if as_json:
        emit_json(_as_json(result, labels, task.describe()))
    else:
        for line in _lines(result, labels, task.describe()):
            emit(line)
    return _tell_damaged(result)


def _labels(model: str) -> tuple[str, ...]:
    from visionkit.errors import ModelError
    from visionkit.weights import load_card

    card = load_card(model)
    if card.task != "classify" or not card.labels:
        raise ModelError("model-unfit", f"{card.name} is no classifier with labels; it cannot be measured on folders.")
    return card.labels


def _load(options: dict[str, Any], batch: int) -> Any:
    from visionkit.pipeline import network_threads
    from visionkit.tasks import load_classifier

    def compiling() -> None:
        click.echo("Compiling the network and timing the runtimes of this machine: some seconds, once.", err=True)

    return load_classifier(
        options["model"],
        runtime=options["runtime"],
        precision=options["precision"],
        threads=options["threads"] or network_threads(encoding=False),
        batch=batch,
        trust=options["trust_model"],
        on_compile=compiling,
    )


def _as_json(result: ClassifyEvaluation, labels: tuple[str, ...], model: dict[str, str]) -> dict[str, Any]:
    rate = None if math.isnan(result.images_per_s) else round(result.images_per_s, 1)
    damaged = [{"name": problem.name, "reason": problem.reason} for problem in result.problems]
    return {"model": model, **result.scores.as_table(labels), "images_per_s": rate, "damaged": damaged}


def _lines(result: ClassifyEvaluation, labels: tuple[str, ...], model: dict[str, str]) -> list[str]:
    from visionkit.evaluate.classify_metrics import most_confused

    scores = result.scores
    low, high = scores.interval
    rate = "" if math.isnan(result.images_per_s) else f", {result.images_per_s:.0f} images/s"
    wrong = scores.count - int(scores.confusion.trace())
    lines = [
        f"{model.get('name', '?')}: {scores.count} images, {wrong} wrong{rate} ({model.get('runtime', '?')})",
        f"top-1 {scores.top1:.2%} (95 % interval {low:.2%} to {high:.2%}), top-5 {scores.top5:.2%}, "
        f"calibration error {scores.calibration:.3f}",
        "",
    ]
    rows = [["CLASS", "IMAGES", "RECALL", "PRECISION"]]
    rows += [
        [name, str(int(scores.confusion[k].sum())), _percent(scores.recall[k]), _percent(scores.precision[k])]
        for k, name in enumerate(labels)
        if scores.confusion[k].any() or scores.confusion[:, k].any()
    ]
    lines += table(rows)
    worst = most_confused(scores.confusion, CONFUSED)
    lines += [""] * bool(worst)
    lines += [f"{labels[truth]} taken for {labels[answer]}: {count}" for truth, answer, count in worst]
    return lines


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"


def _tell_damaged(result: ClassifyEvaluation) -> int:
    """Tell what could not be read; the exit code."""
    for problem in result.problems[:DAMAGED]:
        click.echo(clean(f"visionkit: warning: {problem.reason}"), err=True)
    if len(result.problems) > DAMAGED:
        click.echo(
            f"visionkit: warning: {len(result.problems) - DAMAGED} more cannot be read; --json lists all", err=True
        )
    return 4 if result.problems else 0
