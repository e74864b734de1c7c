"""`visionkit train stn-table`: the first table of the paper on spatial transformers, trained over again."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visionkit.cli import train_options as option
from visionkit.cli.text import emit, examples, table
from visionkit.cli.train_running import made_folder, tell
from visionkit.errors import InputError, OutputError, UsageError

if TYPE_CHECKING:
    from visionkit.train.digit_files import Digits

__all__ = ["stn_table"]

# As in visionkit.train.stn_table, which needs Keras
ROWS = ("fcn", "cnn", "st-fcn", "st-cnn")
TRANSFORMS = ("affine", "projective", "tps")
DISTORTIONS = ("R", "RTS", "P", "E")


class Several(click.ParamType):
    """Some of `known`, commas between them; without `known`, numbers from 0."""

    def __init__(self, known: tuple[str, ...] = ()) -> None:
        self.known = known
        self.name = ",".join(known) or "N,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """What was chosen, each once."""
        if isinstance(value, tuple):
            return value
        parts = list(dict.fromkeys(part.strip() for part in str(value).split(",")))
        if not self.known:
            if not all(part.isascii() and part.isdigit() and len(part) < 9 for part in parts):
                self.fail(f"expected numbers from 0, such as 0,1,2. Received: {value!r}.", param, ctx)
            return tuple(dict.fromkeys(int(part) for part in parts))
        wrong = [part for part in parts if part not in self.known]
        if wrong:
            self.fail(f"expected some of {','.join(self.known)}. Received: {value!r}.", param, ctx)
        return tuple(parts)


@click.command(
    "stn-table",
    epilog=examples(
        "visionkit train stn-table --data mnist/ --out runs/stn_table",
        "visionkit train stn-table --data mnist/ --transforms affine --epochs 20 --parameters 100000 --out runs/stn",
        "visionkit train stn-table --rows fcn,st-fcn --distortions RTS --seeds 0 --epochs 30 --out runs/stn_small",
    ),
)
@click.option("--data", metavar="DIR", help="Folder with MNIST's files.  [default: scikit-learn's 1,797 digits]")
@click.option("--out", required=True, metavar="DIR", help="Folder of the results.")
@click.option("--rows", type=Several(ROWS), default=",".join(ROWS), show_default=True, help="Networks.")
@click.option(
    "--transforms", type=Several(TRANSFORMS), default=",".join(TRANSFORMS), show_default=True, help="Of the st- rows."
)
@click.option(
    "--distortions",
    type=Several(DISTORTIONS),
    default=",".join(DISTORTIONS),
    show_default=True,
    help="Turned; turned, shifted, scaled; seen askew; bent.",
)
@click.option("--seeds", type=Several(), default="0,1,2", show_default=True, help="One training of each cell a seed.")
@option.count("--epochs", 60, "Passes over the digits.")
@click.option(
    "--parameters",
    type=click.IntRange(min=1000, max=10_000_000),
    default=400_000,
    show_default=True,
    help="At most, of each network; its width follows.",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    default=2e-3,
    show_default=True,
    help="At its highest.",
)
@click.option(
    "--minutes", type=click.FloatRange(min=0), help="Stop after so long, tell of what there is; --resume goes on."
)
@click.option("--resume", is_flag=True, help="Go on in DIR: train only what has no result there.")
def stn_table(data: str | None, out: str, minutes: float | None, resume: bool, **given: Any) -> int:
    """Train the networks of Jaderberg et al., NIPS 2015, Table 1, on distorted digits.

    DIR gets table.json, table.md and report.html, with the paper's numbers and which of its orders hold, and of each
    training a result, the weights and the history. Runs on the Keras backend that KERAS_BACKEND names. Ctrl-C saves.
    """
    if data is not None and not Path(data).is_dir():
        raise InputError("input-missing", f"{data} is no folder. --data takes a folder with MNIST's files.")
    folder = made_folder(out)
    if not resume and any(folder.glob("*_*_[0-9]*")):
        raise UsageError(
            "options-clash", f"{folder} holds trainings already. Give --resume to go on with them, or another --out."
        )
    from visionkit.train.digit_files import read_digits

    digits = read_digits(None if data is None else Path(data))
    from visionkit.runtime.quiet import import_keras, silent_loggers

    import_keras()
    from visionkit.pipeline.signals import Interrupts
    from visionkit.train.stn_table import TablePlan, run_cells, table_cells

    plan = TablePlan(**given)
    tell(f"{digits.name}: {len(digits.parts['train'][1])} digits to learn from; {len(table_cells(plan))} trainings")
    last = None if minutes is None else time.monotonic() + 60 * minutes
    stop: list[bool] = []
    # TensorFlow warns of tracing many functions; each training needs its own
    with Interrupts(lambda: stop.append(True)) as interrupts, silent_loggers():
        done = run_cells(
            plan,
            digits,
            folder,
            report=_report,
            should_stop=lambda: bool(stop) or (last is not None and time.monotonic() >= last),
        )
    _write(folder, digits)
    if done:
        return 0
    if not stop:
        tell("The minutes are over; the same command with --resume goes on.")
        return 0
    tell("visionkit: error[interrupted]: Stopped; the same command with --resume goes on.")
    return interrupts.exit_code or 130


def _report(result: dict[str, Any]) -> None:
    how = "" if result["transform"] == "none" else f" {result['transform']}"
    tell(
        f"{result['row']}{how} {result['distortion']} seed {result['seed']}: {result['error']:.2f} % wrong  "
        f"({result['seconds']:.0f} s, {result['processor_seconds']:.0f} s of processor time)"
    )


def _write(folder: Path, digits: Digits) -> None:
    """Write the three files of what lies in the folder, and tell the table."""
    from visionkit.io import safe_text, write_json
    from visionkit.train.stn_table import read_cells
    from visionkit.train.stn_table_page import collect, markdown, orderings, render, rows, sentences, summary

    results = read_cells(folder)
    if not results:
        return
    cells = collect(results)
    parts = {part: len(labels) for part, (_, labels) in digits.parts.items()}
    counts = [result["count"] for result in results]
    facts = {
        "data": f"{digits.name}: {parts['train']} digits to learn from, {parts['val']} to choose the epoch on, "
        f"{parts['test']} held back, distorted as {results[0]['pictures']} pictures",
        "trainings": f"{len(results)} of {results[0]['epochs']} epochs, batches of {results[0]['batch']}",
        "parameters": f"{min(counts):,} to {max(counts):,}",
        "time": f"{sum(result['seconds'] for result in results) / 60:.0f} minutes of training, "
        f"{sum(result['processor_seconds'] for result in results) / 60:.0f} minutes of processor time",
    }
    command = safe_text(shlex.join(["visionkit", *sys.argv[1:]]), 4000)
    page = render(cells, facts, command, digits.parts["test"][0])
    try:
        (folder / "table.md").write_text(markdown(cells, facts), encoding="utf-8")
        (folder / "report.html").write_text(page, encoding="utf-8")
    except OSError as error:
        raise OutputError("output-unwritable", f"{folder} takes no files: {error.strerror}.") from error
    write_json(folder / "table.json", {**summary(results, facts), "command": command})
    for line in table([["error in % (paper's)", *DISTORTIONS], *rows(cells)]):
        emit(line)
    for sentence in sentences(orderings(cells)):
        emit(sentence)
