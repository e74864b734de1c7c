"""What the commands that train do alike: the folder, lines of progress, Ctrl-C, problems of the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visionkit.cli.text import clean
from visionkit.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from visionkit.train.class_folders import Problem

__all__ = ["made_folder", "problem_line", "run_training", "tell"]

TOLD = 5  # problems of a kind that are told one by one


def run_training(train: Callable[..., Any], plan: Any, epoch: str, finish: Callable[[Any, Any], None]) -> int:
    """Train as planned, tell of it on stderr, and finish what was not interrupted; the command's exit code.

    Args:
        train: `train_classifier` or another of its form.
        epoch: what is told of an epoch, the columns of the loop's row in braces.
        finish: given the plan and the training, writes the model's folder and its report.
    """
    from visionkit.pipeline.signals import Interrupts

    stop: list[bool] = []

    def report(row: dict[str, Any]) -> None:
        tell(f"epoch {row['epoch']}/{plan.options.epochs}  {epoch.format_map(row)}  {row['seconds']:.1f} s")

    with Interrupts(lambda: stop.append(True)) as interrupts:
        training = train(plan, report=report, tell=tell, should_stop=lambda: bool(stop))
    _tell_problems(training.problems)
    if training.result.ended == "interrupted":
        tell(f"visionkit: error[interrupted]: Stopped after step {training.result.step}; the same command goes on.")
        return interrupts.exit_code or 130
    finish(plan, training)
    return 0


def tell(line: str) -> None:
    """One line of progress on stderr."""
    click.echo(clean(line), err=True)


def made_folder(out: str) -> Path:
    """The folder of a training, made where it is not there."""
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError("output-unwritable", f"{folder} cannot be made: {error.strerror}.") from error
    return folder


def _tell_problems(problems: Iterable[Problem]) -> None:
    """Warn of what is wrong with the data, the first of each kind by name."""
    kinds: Counter[str] = Counter()
    for problem in problems:
        kinds[problem.kind] += 1
        if kinds[problem.kind] <= TOLD:
            tell(f"visionkit: warning: {problem_line(problem)}")
    for kind, count in kinds.items():
        if count > TOLD:
            tell(f"visionkit: warning: {count - TOLD} more: {kind}; report.html lists them")


def problem_line(problem: Problem) -> str:
    """What is wrong, beginning with the name of the file or folder."""
    told = problem.reason
    return told if told.startswith(problem.name) else f"{problem.name} {told}"
