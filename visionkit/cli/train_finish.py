"""What the ends of all trainings have in common: the model's folder, its report and the last line."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from visionkit.cli.train_running import problem_line, tell
from visionkit.io import safe_text
from visionkit.train.model_folder import write_model

if TYPE_CHECKING:
    from visionkit.train.classify import ClassifyPlan, ClassifyTraining
    from visionkit.train.detect import DetectPlan, DetectTraining
    from visionkit.train.segment import SegmentPlan, SegmentTraining

    Plan = ClassifyPlan | DetectPlan | SegmentPlan
    Training = ClassifyTraining | DetectTraining | SegmentTraining

__all__ = ["best_row", "held_images", "report_facts", "tell_best", "write_trained"]


def best_row(training: Training) -> dict[str, Any]:
    """The numbers of the epoch whose weights were kept."""
    if training.result.best is None:
        raise RuntimeError("A training ended without an epoch.")
    return training.result.best


def held_images(plan: Plan, count: int) -> str:
    """What a metric of the card was measured on."""
    return f"{count} validation images of {_data(plan)}, on which the epoch was chosen"


def write_trained(
    plan: Plan, training: Training, *, summary: str, metrics: Sequence[Mapping[str, Any]], learnt: int
) -> None:
    """Write the model's folder: the card tells what was learnt from, `learnt` images, and how."""
    table = {
        "summary": summary,
        **training.table,
        "metrics": metrics,
        "trained": {
            "command": safe_text(_command(), 4000),
            "data": f"{learnt} images of {_data(plan)}",
            "seed": plan.options.seed,
            "hours": round(training.result.seconds / 3600, 4),
        },
    }
    write_model(training.network, plan.out, table)


def report_facts(plan: Plan, training: Training, own: Mapping[str, object]) -> dict[str, Any]:
    """What every report shows, as keyword arguments of it; `own` settings stand among those of all trainings."""
    table = training.table
    settings = {
        "network": f"{table['network']} {table['args'] or ''}",
        "started from": plan.source or "random weights",
        "parameters": f"{training.network.count_params():,}",
        "input": {key: value for key, value in table["input"].items() if key not in ("mean", "std")},
        **own,
        "ended": training.result.ended,
        "time": f"{training.result.seconds:.0f} s",
    }
    return {
        "title": f"Training of {plan.out.resolve().name}",
        "labels": table["labels"],
        "history": training.result.history,
        "best": best_row(training)["epoch"],
        "settings": settings,
        "command": _command(),
        "notes": [problem_line(problem) for problem in training.problems],
    }


def tell_best(plan: Plan, training: Training, score: str) -> None:
    """Tell which epoch was the best, with its score, and where the model lies."""
    result = training.result
    stopped = ", stopped early" if result.ended == "patience" else ""
    tell(
        f"Best epoch {best_row(training)['epoch']} of {len(result.history)}{stopped}: validation {score}. "
        f"The model and report.html lie in {plan.out}"
    )


def _data(plan: Plan) -> str:
    return safe_text(plan.data.resolve().name)


def _command() -> str:
    return shlex.join(["visionkit", *sys.argv[1:]])
