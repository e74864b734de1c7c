"""`visionkit eval mot`: many tracks at once against annotated ones."""

from __future__ import annotations

from pathlib import Path

import click

from visionkit.cli.text import emit, emit_json, examples, table

__all__ = ["mot"]


@click.command(
    epilog=examples(
        "visionkit eval mot --data MOT17-04/gt/gt.txt --results runs/detect/MOT17-04/results.jsonl",
        "visionkit eval mot --data gt.txt --results tracks.txt --json",
    )
)
@click.option("--data", required=True, metavar="FILE", help="True tracks, in the MOT Challenge's format.")
@click.option("--results", required=True, metavar="FILE", help="results.jsonl of `detect --track`, or a MOT file.")
@click.option(
    "--iou", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Overlap that makes an answer right."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def mot(data: str, results: str, iou: float, as_json: bool) -> None:
    """CLEAR (MOTA, MOTP, switches), HOTA and IDF1 of tracked objects; needs roboflow's trackers (visionkit[mot])."""
    from visionkit.evaluate.mot_metrics import mot_scores

    scores = mot_scores(Path(data), Path(results), threshold=iou)
    if as_json:
        emit_json({name: round(value, 6) for name, value in scores.items()})
        return
    for line in table([["MEASURE", "VALUE"], *([name, _shown(value)] for name, value in scores.items())]):
        emit(line)


def _shown(value: float) -> str:
    return f"{value:.0f}" if value == int(value) and abs(value) > 1 else f"{value:.3f}"
