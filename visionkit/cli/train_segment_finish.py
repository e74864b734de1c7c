"""The end of `visionkit train segment`: the model's folder and its report."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.cli.train_options import problem_line, tell
from visionkit.geometry.label_maps import class_iou, confusion_counts, mean_of_there
from visionkit.io import safe_text
from visionkit.train.mask_folders import VOID
from visionkit.train.model_folder import write_model
from visionkit.train.segment import SegmentPlan, SegmentTraining
from visionkit.train.segment_report import Picture, SegmentReport, render_segment_report

__all__ = ["finish"]

PICTURES = 12  # in the report
ANSWERS = npt.NDArray[np.uint8]


def finish(plan: SegmentPlan, training: SegmentTraining) -> None:
    """Write the model folder and the report, and tell where they are."""
    best = training.result.best
    if best is None:
        raise RuntimeError("A training ended without an epoch.")
    command = shlex.join(["visionkit", *sys.argv[1:]])
    data = safe_text(plan.data.resolve().name)
    held = f"{len(training.goal.samples)} validation images of {data}, on which the epoch was chosen"
    table = {
        "summary": f"Segments {len(training.table['labels'])} classes, trained with `visionkit train segment`",
        **training.table,
        "metrics": [
            {"name": "mean IU", "data": held, "value": best["val_mean_iu"], "command": "visionkit eval segment"},
            {"name": "pixel accuracy", "data": held, "value": best["val_accuracy"]},
        ],
        "trained": {
            "command": safe_text(command, 4000),
            "data": f"{len(training.learnt)} images of {data}",
            "seed": plan.options.seed,
            "hours": round(training.result.seconds / 3600, 4),
        },
    }
    write_model(training.network, plan.out, table)
    (plan.out / "report.html").write_text(render_segment_report(_report(plan, training, command)), encoding="utf-8")
    stopped = ", stopped early" if training.result.ended == "patience" else ""
    tell(
        f"Best epoch {best['epoch']} of {len(training.result.history)}{stopped}: validation mean IU "
        f"{best['val_mean_iu']:.3f}. The model and report.html lie in {plan.out}"
    )


def _report(plan: SegmentPlan, training: SegmentTraining, command: str) -> SegmentReport:
    labels = training.table["labels"]
    counts, ranked = _answers(training, len(labels))
    return SegmentReport(
        title=f"Training of {plan.out.resolve().name}",
        labels=labels,
        history=training.result.history,
        best=(training.result.best or {})["epoch"],
        confusion=counts,
        pictures=ranked,
        settings=_settings(plan, training),
        command=command,
        notes=[problem_line(problem) for problem in training.problems],
    )


def _answers(training: SegmentTraining, classes: int) -> tuple[npt.NDArray[np.int64], list[Picture]]:
    """Counts over all validation images, and pictures of some, the worst first."""
    total = np.zeros((classes, classes), np.int64)
    scored = []
    for sample in training.goal.samples:
        logits, truth = training.goal.logits(sample)
        answer = logits.argmax(axis=-1).astype(np.uint8)
        counts = confusion_counts(truth, answer, classes, ignore=VOID)
        total += counts
        scored.append((mean_of_there(class_iou(counts)), sample, truth, answer))
    order = sorted(range(len(scored)), key=lambda k: (np.nan_to_num(scored[k][0]), k))
    chosen = [order[k] for k in np.unique(np.linspace(0, len(order) - 1, PICTURES).astype(int))]
    return total, [_picture(training, *scored[k]) for k in chosen]


def _picture(training: SegmentTraining, mean: float, sample: Any, truth: ANSWERS, answer: ANSWERS) -> Picture:
    shown = training.goal.rule.pixels(training.material(sample)[0])
    return Picture(f"{sample.name}, mean IU {mean:.1%}", shown, truth, answer)


def _settings(plan: SegmentPlan, training: SegmentTraining) -> dict[str, object]:
    table = training.table
    rule = {key: value for key, value in table["input"].items() if key not in ("mean", "std")}
    return {
        "network": f"{table['network']} {table['args'] or ''}",
        "started from": plan.source or "random weights",
        "parameters": f"{training.network.count_params():,}",
        "input": rule,
        "views": f"{plan.crop_hw or table['input']['size_hw']}",
        "images": f"{len(training.learnt)} to learn from, {len(training.goal.samples)} to choose on",
        "batch": plan.batch,
        "learning rate": f"{plan.options.learning_rate}, {plan.options.schedule}",
        "class weights": plan.weighting,
        "seed": plan.options.seed,
        "augmentation": f"strength {plan.augmentation.strength:g}, flip {'on' if plan.augmentation.flip else 'off'}",
        "ended": training.result.ended,
        "time": f"{training.result.seconds:.0f} s",
    }
