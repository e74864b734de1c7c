"""The end of `visionkit train detect`: the model's folder and its report."""

from __future__ import annotations

from visionkit.cli.train_finish import best_row, held_images, report_facts, tell_best, write_trained
from visionkit.geometry.average_precision import average_precision
from visionkit.io import safe_text
from visionkit.train.detect import DetectPlan, DetectTraining
from visionkit.train.detect_report import DetectReport, picture_of, render_detect_report, worst_images

__all__ = ["finish"]

CLASSES = 20  # at most, whose AP the card tells


def finish(plan: DetectPlan, training: DetectTraining) -> None:
    """Write the model folder and the report, and tell where they are."""
    goal, labels = training.goal, training.table["labels"]
    answers = goal.answers(training.learner.joined.predict_on_batch)
    found = goal.curves(answers)
    best, held = best_row(training)["val_map50"], held_images(plan, len(goal.samples))
    scores = [("mAP50", best)] + [
        (f"AP50 {safe_text(label)}", average_precision(curve))
        for label, curve in zip(labels, found, strict=True)
        if curve.positives and len(labels) <= CLASSES
    ]
    write_trained(
        plan,
        training,
        summary=f"Detects {len(labels)} classes, trained with `visionkit train detect`",
        metrics=[
            {"name": name, "data": held, "value": round(score, 4), "command": "visionkit eval detect"}
            for name, score in scores
        ],
        learnt=len(training.learnt),
    )
    pictures = [
        picture_of(goal.samples[k], training.material(goal.samples[k]), answers[k], right, seen)
        for k, right, seen in worst_images(goal.samples, answers)
    ]
    report = DetectReport(**report_facts(plan, training, _settings(plan, training)), curves=found, pictures=pictures)
    (plan.out / "report.html").write_text(render_detect_report(report), encoding="utf-8")
    tell_best(plan, training, f"mAP50 {best:.3f}")


def _settings(plan: DetectPlan, training: DetectTraining) -> dict[str, object]:
    change, boxes = plan.augmentation, sum(map(len, training.learnt))
    return {
        "images": f"{len(training.learnt)} with {boxes} boxes to learn from, {len(training.goal.samples)} to choose on",
        "views": f"{plan.repeats} of each image in an epoch, {plan.batch} in a batch",
        "learning rate": f"{plan.options.learning_rate}, {plan.options.schedule}",
        "running mean of the weights": plan.options.average or "none",
        "seed": plan.options.seed,
        "augmentation": f"strength {change.strength:g}, flip {change.flip}, turns {'on' if change.turns else 'off'}, "
        f"mosaic {change.mosaic:g}",
    }
