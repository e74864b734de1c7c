"""The end of `visionkit train classify`: the model's folder and its report."""

from __future__ import annotations

import shlex

import numpy as np

from visionkit.cli.train_finish import best_row, held_images, report_facts, tell_best, write_trained
from visionkit.cli.train_running import tell
from visionkit.evaluate.classify_metrics import confusion_matrix, precision_recall, softmax, worst_mistakes
from visionkit.train.class_images import load_image
from visionkit.train.classify import ClassifyPlan, ClassifyTraining
from visionkit.train.report import Mistake, TrainingReport, render_report

__all__ = ["finish"]

MISTAKES = 24  # in the report


def finish(plan: ClassifyPlan, training: ClassifyTraining) -> None:
    """Write the model folder and the report, and tell where they are."""
    accuracy, split = best_row(training)["val_accuracy"], training.split
    distorted = "" if plan.distort is None else f" --distort {plan.distort.seed}"
    metric = {
        "name": "top-1 accuracy",
        "data": held_images(plan, len(training.held)),
        "value": accuracy,
        "command": f"visionkit eval classify --split split.json --part val{distorted}",
    }
    summary = f"A classifier of {len(training.folders.classes)} classes, trained with `visionkit train classify`"
    write_trained(plan, training, summary=summary, metrics=[metric], learnt=len(split.train))
    (plan.out / "report.html").write_text(render_report(_report(plan, training)), encoding="utf-8")
    tell_best(plan, training, f"accuracy {accuracy:.3f}")
    if split.test:
        tell(
            f"Held back and unseen: {len(split.test)} images. Measure them: visionkit eval classify "
            f"--model {shlex.quote(str(plan.out))} --data {shlex.quote(str(plan.data))} "
            f"--split {shlex.quote(str(plan.out / 'split.json'))} --part test{distorted}"
        )


def _report(plan: ClassifyPlan, training: ClassifyTraining) -> TrainingReport:
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
    return TrainingReport(
        **report_facts(plan, training, _settings(plan, training)),
        confusion=confusion,
        precision=precision,
        recall=recall,
        mistakes=mistakes,
    )


def _settings(plan: ClassifyPlan, training: ClassifyTraining) -> dict[str, object]:
    split, change = training.split, plan.augmentation
    return {
        "images": f"{len(split.train)} to learn from, {len(split.val)} to choose on, {len(split.test)} held back",
        "batch": plan.batch,
        "learning rate": plan.options.learning_rate,
        "seed": plan.options.seed,
        "augmentation": f"strength {change.strength:g}, flip {'on' if change.flip else 'off'}",
        **({} if plan.distort is None else {"distorted by seed": plan.distort.seed}),
    }
