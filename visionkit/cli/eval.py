"""`visionkit eval`: measure a model on annotated data."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import click

from visionkit.cli.eval_classify import classify
from visionkit.cli.eval_detect import detect
from visionkit.cli.eval_mot import mot
from visionkit.cli.eval_segment import segment
from visionkit.cli.options import model_options
from visionkit.cli.text import emit, emit_json, examples, table

if TYPE_CHECKING:
    from visionkit.evaluate.track import Score

__all__ = ["command"]


@click.group(
    epilog=examples(
        "visionkit eval classify --model sign_digits --data photos/",
        "visionkit eval detect --model runs/my_detector --data VOC/ --part test",
        "visionkit eval segment --model runs/my_segmenter --data street/ --crf",
        "visionkit eval track --data sequences/",
    )
)
def command() -> None:
    """Measure a model on annotated data."""


@command.command(
    epilog=examples("visionkit eval track --data sequences/", "visionkit eval track --data OTB/Crossing --json")
)
@click.option(
    "--data", required=True, metavar="DIR", help="A sequence (groundtruth_rect.txt, img/) or a folder of them."
)
@model_options
@click.option("--opencv/--no-opencv", "with_opencv", default=True, help="Measure OpenCV's trackers too, if installed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def track(data: str, with_opencv: bool, as_json: bool, **options: Any) -> None:
    """One pass over each sequence from the first frame's box: success AUC of 21 thresholds, precision at 20 px, speed.

    The speed counts reading and decoding the frames as well as tracking.
    """
    from visionkit.evaluate.sequences import find_sequences
    from visionkit.evaluate.track import evaluate_tracker, opencv_trackers

    sequences = find_sequences(Path(data))
    results = {"ours": evaluate_tracker(_ours(options), sequences)}
    if with_opencv:
        results |= {name: evaluate_tracker(make, sequences) for name, make in opencv_trackers().items()}
    if as_json:
        emit_json({name: [_as_json(score) for score in scores] for name, scores in results.items()})
        return
    for line in table(_rows(results)):
        emit(line)


def _ours(options: dict[str, Any]) -> Any:
    from visionkit.cli.track import load_model

    tracker = load_model({**options, "video": False})  # nothing is encoded beside it
    return lambda: tracker  # `init` starts it anew


def _as_json(score: Score) -> dict[str, Any]:
    return {
        "sequence": score.sequence,
        "frames": score.frames,
        "auc": round(score.auc, 4),
        "precision": round(score.precision, 4),
        "fps": round(score.fps, 1),
    }


def _rows(results: dict[str, list[Score]]) -> list[list[str]]:
    heads = [f"{name.upper()} {what}" for name in results for what in ("AUC", "P20", "FPS")]
    rows = [["SEQUENCE", "FRAMES", *heads]]
    for one in zip(*results.values(), strict=True):
        cells = [cell for s in one for cell in (f"{s.auc:.3f}", f"{s.precision:.3f}", f"{s.fps:.0f}")]
        rows.append([one[0].sequence, str(one[0].frames), *cells])
    total = ["mean", str(sum(s.frames for s in results["ours"]))]
    for scores in results.values():
        frames, seconds = sum(s.frames for s in scores), sum(s.frames / s.fps for s in scores)
        total += [f"{mean([s.auc for s in scores]):.3f}", f"{mean([s.precision for s in scores]):.3f}"]
        total.append(f"{frames / seconds:.0f}")
    return [*rows, total]


command.add_command(classify)
command.add_command(detect)
command.add_command(mot)
command.add_command(segment)
