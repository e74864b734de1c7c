"""`visionkit quantize`: smaller, faster variants of a model, judged on the user's own data."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visionkit.cli.options import BOX
from visionkit.cli.text import clean, emit, emit_json, examples, table

if TYPE_CHECKING:
    from visionkit.compress.judging import Judged
    from visionkit.compress.verdict import Ruling, VariantFacts

__all__ = ["command"]

TOLD = 5  # problems that are told one by one
WORDS = {"ship": "passes", "unsure": "cannot tell", "dont": "don't"}
PATH = click.Path(path_type=Path)


class KindsType(click.ParamType):
    """Names of kinds with commas between them, as a tuple; which there are is asked when they are built."""

    name = "KIND,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """The names, each once."""
        if isinstance(value, tuple):
            return value
        return tuple(dict.fromkeys(part.strip() for part in str(value).lower().split(",") if part.strip()))


def _list_kinds(ctx: click.Context, param: click.Parameter, kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Tells what there is and ends, whatever else is missing on the command line."""
    if kinds == ("list",) and not ctx.resilient_parsing:
        from visionkit.compress.variants import KINDS

        for line in table([["KIND", "WHAT IT IS"], *([kind.name, kind.says] for kind in KINDS.values())]):
            emit(line)
        ctx.exit()
    return kinds


@click.command(
    epilog=examples(
        "visionkit quantize sign_digits --data photos/ --split runs/mine/split.json",
        "visionkit quantize runs/cells --data VOC/ --kinds float16,int8 --max-drop 2 --unlabelled clip.mp4",
        "visionkit quantize runs/mine --data photos/ --rescue --latency-ms 5 --out runs/small",
        "visionkit quantize siambox_light --data OTB/ --unlabelled clip.mp4 --box 300,120,80,60",
    )
)
@click.argument("model")
@click.option(
    "--data",
    type=PATH,
    required=True,
    metavar="PATH",
    help="Labelled images or sequences, as `visionkit eval` takes them.",
)
@click.option(
    "--kinds",
    type=KindsType(),
    default="float16,dynamic,int8,int8-io",
    show_default=True,
    is_eager=True,
    callback=_list_kinds,
    metavar="KIND,…",
    help="What to build: float16, dynamic, int8, int8-io, qat …; `--kinds list` tells them all.",
)
@click.option(
    "--max-drop", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Points of the metric to lose."
)
@click.option(
    "--max-class-drop",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="Points that one class may lose.",
)
@click.option("--latency-ms", type=click.FloatRange(min=0, min_open=True), metavar="N", help="An image, at most.")
@click.option(
    "--min-agreement",
    type=click.FloatRange(0, 1),
    default=0.9,
    show_default=True,
    help="With float on --unlabelled.",
)
@click.option(
    "--calibration",
    metavar="SOURCE",
    help="Folder, video, glob or .npy of inputs to measure ranges on.  [default: images of the data not measured]",
)
@click.option("--trust-calibration", is_flag=True, help="Faults found in it do not count.")
@click.option(
    "--samples", type=click.IntRange(min=1), default=128, show_default=True, help="Images to calibrate on, at most."
)
@click.option("--unlabelled", metavar="CLIP", help="A video or images on which to compare answers with float's.")
@click.option("--box", type=BOX, help="Of trackers: the object in the first frame of CLIP: left, top, width, height.")
@click.option("--rescue", is_flag=True, help="Keep the worst layers in float until int8 is within bounds.")
@click.option(
    "--rank",
    type=click.IntRange(min=0),
    default=24,
    show_default=True,
    metavar="N",
    help="Layers to quantize alone, to rank them by the damage they do.",
)
@click.option("--split", type=PATH, metavar="FILE", help="Of class folders: a split.json that training wrote.")
@click.option("--part", type=click.Choice(["train", "val", "test"]), help="Of the data.  [default: test, val, or all]")
@click.option("--images", type=PATH, metavar="DIR", help="Of boxes: where the images lie.")
@click.option("--layout", type=click.Choice(["voc", "coco", "yolo", "openimages"]), help="Of boxes.")
@click.option("--labels", metavar="FILE|NAME", help="Of masks: meaning of their numbers, as `visionkit eval segment`.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Measure every k-th image, N in all; of sequences the first frames.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of whatever is random.")
@click.option("--out", type=PATH, metavar="DIR", help="Folder for models and report.  [default: runs/quantize/MODEL]")
@click.option("--overwrite", is_flag=True, help="Replace DIR, once the new one is complete.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(model: str, kinds: tuple[str, ...], out: Path | None, as_json: bool, **given: Any) -> int:
    """Build smaller variants of MODEL, judge each on labelled images, and say which to ship, or why none.

    Every variant answers the same images as the float model, through the same task and evaluator as `visionkit eval`.
    What decides is the 95 % interval of the difference; beside it stand each class, size, time on this machine, and
    the calibration. DIR gets the models, verdict.json and report.html, which opens without network. Damaged files are
    told and not counted; the exit code is then 4.
    """
    from visionkit.compress.judging import judge_variants

    judged = judge_variants(
        model,
        _choice(given),
        _wishes(given, kinds),
        _folder(model, out, overwrite=given["overwrite"]),
        overwrite=given["overwrite"],
        command=shlex.join(["visionkit", *sys.argv[1:]]),
        tell=lambda line: click.echo(clean(line), err=True),
        progress=_progress if sys.stderr.isatty() else None,
    )
    if as_json:
        from visionkit.compress.report import report_table

        emit_json({**report_table(judged.report), "folder": str(judged.folder)})
    else:
        for line in _lines(judged):
            emit(line)
    for problem in judged.problems[:TOLD]:
        click.echo(clean(f"visionkit: warning: {problem.reason}"), err=True)
    if len(judged.problems) > TOLD:
        click.echo(f"visionkit: warning: {len(judged.problems) - TOLD} more cannot be read", err=True)
    return 4 if judged.problems else 0


def _choice(given: dict[str, Any]) -> Any:
    from visionkit.compress.trials import DataChoice

    names = ("data", "split", "part", "images", "layout", "labels", "limit")
    return DataChoice(**{name: given[name] for name in names})


def _wishes(given: dict[str, Any], kinds: tuple[str, ...]) -> Any:
    from visionkit.compress.judging import Wishes
    from visionkit.compress.verdict import Bounds

    bounds = Bounds(given["max_drop"], given["latency_ms"], given["max_class_drop"], given["min_agreement"])
    names = ("calibration", "trust_calibration", "samples", "unlabelled", "box", "rescue", "seed")
    return Wishes(kinds, bounds, ranked=given["rank"], **{name: given[name] for name in names})


def _folder(model: str, out: Path | None, *, overwrite: bool) -> Path:
    """Where to, with the folders above it. Raises OutputError `exists`."""
    from visionkit.errors import OutputError
    from visionkit.io.files import writing_to

    target = out if out is not None else Path("runs/quantize") / Path(model).stem
    if os.path.lexists(target) and not overwrite:
        raise OutputError("exists", f"'{clean(str(target))}' already exists; pass --overwrite or choose another --out.")
    with writing_to(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _progress(done: int, total: int) -> None:
    click.echo(f"\r{done}/{total}" + ("\n" if done == total else ""), err=True, nl=False)


def _lines(judged: Judged) -> list[str]:
    report = judged.report
    rows = [["VARIANT", "VERDICT", report.metric.upper(), "LOST", "95 %", "SIZE", "ZIPPED", "MS", "P95"]]
    rows.append(_row(report.reference, None))
    rows += [_row(one, ruling) for one, ruling in zip(report.variants, report.decision.rulings, strict=True)]
    reasons = [f"{ruling.kind}: {reason.text}" for ruling in report.decision.rulings for reason in ruling.reasons]
    notes = [f"{one.kind}: {note}" for one in report.variants for note in one.notes]
    told = [*reasons, *notes]
    page = judged.folder / "report.html"
    return [*table(rows), *([""] if told else []), *map(clean, told), "", clean(report.decision.sentence), str(page)]


def _row(one: VariantFacts, ruling: Ruling | None) -> list[str]:
    start = [one.kind, "" if ruling is None else WORDS[ruling.verdict]]
    if one.metric is None:
        return [*start, *["-"] * 7]
    lost = ["", ""] if ruling is None or one.drop is None else _lost(one)
    times = [f"{one.best.whole_ms:.3g}", f"{one.best.whole_p95_ms:.3g}"] if one.timings else ["-", "-"]
    return [*start, f"{one.metric.value:.1%}", *lost, f"{one.size / 1e6:.2f}M", f"{one.zipped / 1e6:.2f}M", *times]


def _lost(one: VariantFacts) -> list[str]:
    drop = one.drop
    return ["-", "-"] if drop is None else [_points(drop.value), f"{_points(drop.low)} to {_points(drop.high)}"]


def _points(value: float) -> str:
    return f"{value:.1f}".replace("-0.0", "0.0")
