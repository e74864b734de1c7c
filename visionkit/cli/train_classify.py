"""`visionkit train classify`: a classifier of your own, from a folder of class folders."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visionkit.cli.text import examples
from visionkit.cli.train_options import ArgumentType, SizeType, made_folder, problem_line, tell, tell_problems
from visionkit.errors import InputError, UsageError

if TYPE_CHECKING:
    from visionkit.train.classify import ClassifyPlan, ClassifyTraining

__all__ = ["classify"]

MISTAKES = 24  # in the report


@click.command(
    epilog=examples(
        "visionkit train classify --data photos/ --out runs/my_classifier",
        "visionkit train classify --data photos/ --out runs/tuned --from mobilenet_v3_small --epochs 20",
        "visionkit eval classify --model runs/my_classifier --data more_photos/",
        "visionkit classify clip.mp4 --model runs/my_classifier",
    )
)
@click.option("--data", required=True, metavar="DIR", help="One folder of images a class; or train/, val/ of such.")
@click.option(
    "--out", required=True, metavar="DIR", help="Folder of the new model; an unfinished training there goes on."
)
@click.option("--network", metavar="NAME", help="A network of visionkit.nets, from scratch.  [default: resnet, small]")
@click.option("--arg", "args", type=ArgumentType(), multiple=True, help="An argument of the network; repeatable.")
@click.option(
    "--from", "source", metavar="CARD", help="Start from the weights of this card; only its last layer is new."
)
@click.option("--freeze", is_flag=True, help="With --from: let only the new last layer learn.")
@click.option("--epochs", type=click.IntRange(min=1), default=60, show_default=True, help="Passes over the images.")
@click.option("--batch", type=click.IntRange(min=1), default=32, show_default=True, help="Images in a batch.")
@click.option("--imgsz", "size_hw", type=SizeType(), help="Size the network sees.  [default: 96, or the card's]")
@click.option(
    "--resize",
    type=click.Choice(["stretch", "letterbox", "shortest_side"]),
    help="How images get that size.  [default: shortest_side, the central part]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights, split, order and augmentation.")
@click.option(
    "--learning-rate", type=click.FloatRange(min=0, min_open=True), help="At its highest.  [default: 2e-3; --from 5e-4]"
)
@click.option(
    "--patience", type=click.IntRange(min=0), default=0, metavar="N", help="Stop after N epochs without gain."
)
@click.option(
    "--val",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.2,
    show_default=True,
    help="Fraction of each class that chooses the best epoch.",
)
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
@click.option(
    "--augment", type=click.FloatRange(0, 2), default=1.0, show_default=True, help="How strongly images are changed."
)
@click.option(
    "--flip/--no-flip", default=False, help="Mirror half of the images; not for digits, letters, signs, hands."
)
@click.option(
    "--distort",
    type=click.IntRange(min=0),
    metavar="SEED",
    help="Turn, scale and shift all images at random, those to choose the epoch on by this seed.",
)
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Threads that change images.")
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
    from visionkit.pipeline.signals import Interrupts
    from visionkit.train.classify import train_classifier

    plan = _plan(Path(data), folder, given)
    stop: list[bool] = []

    def report(row: dict[str, Any]) -> None:
        tell(
            f"epoch {row['epoch']}/{plan.options.epochs}  loss {row['loss']:.4f}  accuracy {row['accuracy']:.3f}  "
            f"val loss {row['val_loss']:.4f}  val accuracy {row['val_accuracy']:.3f}  {row['seconds']:.1f} s"
        )

    with Interrupts(lambda: stop.append(True)) as interrupts:
        training = train_classifier(plan, report=report, tell=tell, should_stop=lambda: bool(stop))
    tell_problems(training.problems)
    if training.result.ended == "interrupted":
        tell(f"visionkit: error[interrupted]: Stopped after step {training.result.step}; the same command goes on.")
        return interrupts.exit_code or 130
    _finish(plan, training)
    return 0


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
    from visionkit.train.fit import FitOptions

    rate = given["learning_rate"] or (5e-4 if given["source"] else 2e-3)
    return ClassifyPlan(
        data,
        out,
        network=given["network"] or "resnet",
        args=dict(given["args"]),
        source=given["source"],
        freeze=given["freeze"],
        size_hw=given["size_hw"],
        resize=given["resize"],
        val=given["val"],
        test=given["test"],
        split=None if given["split"] is None else Path(given["split"]),
        split_by=given["split_by"],
        batch=given["batch"],
        workers=given["workers"],
        distort=None if given["distort"] is None else Distortion(given["distort"]),
        augmentation=Augmentation(strength=given["augment"], flip=given["flip"]),
        options=FitOptions(epochs=given["epochs"], learning_rate=rate, seed=given["seed"], patience=given["patience"]),
    )


def _finish(plan: ClassifyPlan, training: ClassifyTraining) -> None:
    """Write the model folder and the report, and tell where they are."""
    from visionkit.io import safe_text
    from visionkit.train.model_folder import write_model

    result, best = training.result, training.result.best
    if best is None:
        raise RuntimeError("A training ended without an epoch.")
    command = shlex.join(["visionkit", *sys.argv[1:]])
    data = safe_text(plan.data.resolve().name)
    table = {
        "summary": f"A classifier of {len(training.folders.classes)} classes, trained with `visionkit train classify`",
        **training.table,
        "metrics": [
            {
                "name": "top-1 accuracy",
                "data": f"{len(training.held)} validation images of {data}, on which the epoch was chosen",
                "value": best["val_accuracy"],
                "command": f"visionkit eval classify --split split.json --part val{_distorted(plan)}",
            }
        ],
        "trained": {
            "command": safe_text(command, 4000),
            "data": f"{len(training.split.train)} images of {data}",
            "seed": plan.options.seed,
            "hours": round(result.seconds / 3600, 4),
        },
    }
    write_model(training.network, plan.out, table)
    _write_report(plan, training, command)
    stopped = ", stopped early" if result.ended == "patience" else ""
    tell(
        f"Best epoch {best['epoch']} of {len(result.history)}{stopped}: validation accuracy "
        f"{best['val_accuracy']:.3f}. The model and report.html lie in {plan.out}"
    )
    if training.split.test:
        tell(
            f"Held back and unseen: {len(training.split.test)} images. Measure them: visionkit eval classify "
            f"--model {shlex.quote(str(plan.out))} --data {shlex.quote(str(plan.data))} "
            f"--split {shlex.quote(str(plan.out / 'split.json'))} --part test{_distorted(plan)}"
        )


def _distorted(plan: ClassifyPlan) -> str:
    return "" if plan.distort is None else f" --distort {plan.distort.seed}"


def _write_report(plan: ClassifyPlan, training: ClassifyTraining, command: str) -> None:
    import numpy as np

    from visionkit.evaluate.classify_metrics import confusion_matrix, precision_recall, softmax, worst_mistakes
    from visionkit.train.class_images import load_image
    from visionkit.train.report import Mistake, TrainingReport, render_report

    labels = training.folders.classes
    truth = np.array([sample.class_id for sample in training.held], np.int64)
    probs = softmax(training.logits)
    answers = probs.argmax(axis=1)
    confusion = confusion_matrix(answers, truth, len(labels))
    mistakes = [
        Mistake(
            name=training.held[row].name,
            truth=labels[truth[row]],
            answer=labels[answers[row]],
            confidence=float(probs[row, answers[row]]),
            image=load_image(training.folders, training.held[row], plan.distort)[0],
        )
        for row in worst_mistakes(probs, truth, MISTAKES)
    ]
    precision, recall = precision_recall(confusion)
    html = render_report(
        TrainingReport(
            title=f"Training of {plan.out.resolve().name}",
            labels=labels,
            history=training.result.history,
            best=(training.result.best or {})["epoch"],
            confusion=confusion,
            precision=precision,
            recall=recall,
            mistakes=mistakes,
            settings=_settings(plan, training),
            command=command,
            notes=[problem_line(problem) for problem in training.problems],
        )
    )
    (plan.out / "report.html").write_text(html, encoding="utf-8")


def _settings(plan: ClassifyPlan, training: ClassifyTraining) -> dict[str, object]:
    split, table = training.split, training.table
    rule = {key: value for key, value in table["input"].items() if key not in ("mean", "std")}
    return {
        "network": f"{table['network']} {table['args'] or ''}",
        "started from": plan.source or "random weights",
        "parameters": f"{training.network.count_params():,}",
        "input": rule,
        "images": f"{len(split.train)} to learn from, {len(split.val)} to choose on, {len(split.test)} held back",
        "batch": plan.batch,
        "learning rate": plan.options.learning_rate,
        "seed": plan.options.seed,
        "augmentation": f"strength {plan.augmentation.strength:g}, flip {'on' if plan.augmentation.flip else 'off'}",
        **({} if plan.distort is None else {"distorted by seed": plan.distort.seed}),
        "ended": training.result.ended,
        "time": f"{training.result.seconds:.0f} s",
    }
