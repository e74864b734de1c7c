"""`visionkit classify --dense`: the same classes at every place of an image, as a heat map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from visionkit.cli.options import STDOUT
from visionkit.cli.running import CliTelling, run_steps
from visionkit.errors import UsageError

if TYPE_CHECKING:
    from visionkit.pipeline import RunResult
    from visionkit.tasks.dense import DenseClassifier

__all__ = ["check_dense_options", "classify_dense", "dense_options", "load_model"]

F = TypeVar("F", bound=Callable[..., Any])


def dense_options(function: F) -> F:
    """Whether every window of a frame is classified, and how."""
    for option in (
        click.option("--heat", metavar="CLASS", help="With --dense: the class to show, by name or id.  [default: top]"),
        click.option("--exact", is_flag=True, help="With --dense: run every window as a crop; slow, and never off."),
        click.option(
            "--stride",
            type=click.IntRange(min=1),
            metavar="N",
            help="With --dense: pixels between windows.  [default: the network's]",
        ),
        click.option("--dense", is_flag=True, help="Classify every window of a frame, and write a heat map of it."),
    ):
        function = option(function)
    return function


def check_dense_options(options: Mapping[str, Any]) -> None:
    """Refuse what has no meaning with, or without, `--dense`.

    Raises:
        UsageError: `dense-needed`, `option-unfit`.
    """
    if not options["dense"]:
        for name in ("stride", "exact", "heat"):
            if options[name]:
                raise UsageError("dense-needed", f"--{name} is about windows of a frame: give --dense with it.")
        return
    unfit = {
        "smooth": (options["smooth_s"], "maps are not averaged over time"),
        "batch": (options["batch"] != 1, "one frame is many windows"),
        "resize": (options["resize"], "frames keep their aspect; --imgsz is their shorter side"),
        "show-transform": (options["show_transform"], "windows are not transformed"),
        "imgsz H,W": (len(options["imgsz"] or ()) > 1, "frames keep their aspect; --imgsz is their shorter side"),
    }
    for name, (given, why) in unfit.items():
        if given:
            raise UsageError("option-unfit", f"--{name} does not go with --dense: {why}. Leave it out.")


def classify_dense(source: str, load: Callable[[], DenseClassifier], options: dict[str, Any]) -> RunResult:
    """Run a dense classifier over `source` as the options say, and tell on stderr what its maps are and how it went."""
    from visionkit.pipeline.step_dense import DenseStep

    return run_steps(source, [DenseStep(load, options, CliTelling())], options, task="classify")


def load_model(options: dict[str, Any]) -> DenseClassifier:
    """The dense classifier that the options name."""
    from visionkit.pipeline.step_dense import dense_classifier_of

    encoding = options["video"] and options["out"] != STDOUT
    return dense_classifier_of(options, CliTelling(), encoding=encoding)
