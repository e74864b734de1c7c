"""The end of `visionkit train detect`: the model's folder and its report."""

from __future__ import annotations

import shlex
import sys

import numpy as np

from visionkit.cli.train_options import problem_line, tell
from visionkit.geometry.average_precision import average_precision
from visionkit.io import safe_text
from visionkit.train.detect import DetectPlan, DetectTraining
from visionkit.train.detect_report import DetectReport, picture_of, render_detect_report, worst_images
from visionkit.train.model_folder import write_model

__all__ = ["finish"]


def finish(plan: DetectPlan, training: DetectTraining) -> None:
    """Write the model folder and the report, and tell where they are."""
    best = training.result.best
    if best is None:
        raise RuntimeError("A training ended without an epoch.")
    command = shlex.join(["visionkit", *sys.argv[1:]])
    data = safe_text(plan.data.resolve().name)
    held = f"{len(training.goal.samples)} validation images of {data}, on which the epoch was chosen"
    answers = training.goal.answers(training.learner.joined.predict_on_batch)
    found = training.goal.curves(answers)
    labels = training.table["labels"]
    classes = [
        {
            "name": f"AP50 {safe_text(label)}",
            "data": held,
            "value": round(average_precision(curve), 4),
            "command": "visionkit eval detect",
        }
        for label, curve in zip(labels, found, strict=True)
        if curve.positives and len(labels) <= 20
    ]
    table = {
        "summary": f"Detects {len(labels)} classes, trained with `visionkit train detect`",
        **training.table,
        "metrics": [
            {"name": "mAP50", "data": held, "value": round(best["val_map50"], 4), "command": "visionkit eval detect"},
            *classes,
        ],
        "trained": {
            "command": safe_text(command, 4000),
            "data": f"{len(training.learnt)} images of {data}",
            "seed": plan.options.seed,
            "hours": round(training.result.seconds / 3600, 4),
        },
    }
    write_model(training.learner.network, plan.out, table)
    pictures = [
        picture_of(training.goal.samples[k], training.material(training.goal.samples[k]), answers[k], right, seen)
        for k, right, seen in worst_images(training.goal.samples, answers)
    ]
    report = DetectReport(
        title=f"Training of {plan.out.resolve().name}",
        labels=labels,
        history=training.result.history,
        best=best["epoch"],
        curves=found,
        pictures=pictures,
        settings=_settings(plan, training),
        command=command,
        notes=[problem_line(problem) for problem in training.problems],
    )
    (plan.out / "report.html").write_text(render_detect_report(report), encoding="utf-8")
    stopped = ", stopped early" if training.result.ended == "patience" else ""
    tell(
        f"Best epoch {best['epoch']} of {len(training.result.history)}{stopped}: validation mAP50 "
        f"{best['val_map50']:.3f}. The model and report.html lie in {plan.out}"
    )


def _settings(plan: DetectPlan, training: DetectTraining) -> dict[str, object]:
    table, change = training.table, plan.augmentation
    rule = {key: value for key, value in table["input"].items() if key not in ("mean", "std")}
    boxes = int(np.sum([len(sample) for sample in training.learnt]))
    return {
        "network": f"{table['network']} {table['args'] or ''}",
        "started from": plan.source or "random weights",
        "parameters": f"{training.learner.network.count_params():,}",
        "input": rule,
        "images": f"{len(training.learnt)} with {boxes} boxes to learn from, {len(training.goal.samples)} to choose on",
        "views": f"{plan.repeats} of each image in an epoch, {plan.batch} in a batch",
        "learning rate": f"{plan.options.learning_rate}, {plan.options.schedule}",
        "running mean of the weights": plan.options.average or "none",
        "seed": plan.options.seed,
        "augmentation": f"strength {change.strength:g}, flip {change.flip}, turns {'on' if change.turns else 'off'}, "
        f"mosaic {change.mosaic:g}",
        "ended": training.result.ended,
        "time": f"{training.result.seconds:.0f} s",
    }
