"""The end of `visionkit train segment`: the model's folder and its report."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.cli.train_finish import best_row, held_images, report_facts, tell_best, write_trained
from visionkit.geometry.label_maps import class_iou, confusion_counts, mean_of_there
from visionkit.train.mask_folders import VOID
from visionkit.train.segment import SegmentPlan, SegmentTraining
from visionkit.train.segment_report import Picture, SegmentReport, render_segment_report

__all__ = ["finish"]

PICTURES = 12  # in the report
ANSWERS = npt.NDArray[np.uint8]


def finish(plan: SegmentPlan, training: SegmentTraining) -> None:
    """Write the model folder and the report, and tell where they are."""
    best, labels = best_row(training), training.table["labels"]
    held = held_images(plan, len(training.goal.samples))
    write_trained(
        plan,
        training,
        summary=f"Segments {len(labels)} classes, trained with `visionkit train segment`",
        metrics=[
            {"name": "mean IU", "data": held, "value": best["val_mean_iu"], "command": "visionkit eval segment"},
            {"name": "pixel accuracy", "data": held, "value": best["val_accuracy"]},
        ],
        learnt=len(training.learnt),
    )
    counts, pictures = _answers(training, len(labels))
    report = SegmentReport(
        **report_facts(plan, training, _settings(plan, training)), confusion=counts, pictures=pictures
    )
    (plan.out / "report.html").write_text(render_segment_report(report), encoding="utf-8")
    tell_best(plan, training, f"mean IU {best['val_mean_iu']:.3f}")


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
    change = plan.augmentation
    return {
        "views": f"{plan.crop_hw or training.table['input']['size_hw']}",
        "images": f"{len(training.learnt)} to learn from, {len(training.goal.samples)} to choose on",
        "batch": plan.batch,
        "learning rate": f"{plan.options.learning_rate}, {plan.options.schedule}",
        "class weights": plan.weighting,
        "seed": plan.options.seed,
        "augmentation": f"strength {change.strength:g}, flip {'on' if change.flip else 'off'}",
    }
